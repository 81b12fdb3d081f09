"""Logs, metrics and health: what an operator sees of a service."""

import logging
import sys
import traceback
from collections.abc import Iterator
from typing import TextIO

import structlog
from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest

from shared.errors import LedgerError

VALUE_CHARACTERS_MAX = 1000
"""Of each value of a log entry; an exception is shortened by its frames."""
FRAMES_MAX = 12
EXCEPTIONS_MAX = 6
"""Of an exception's causes, and of those in its group."""


def configure_logs(service: str, level: str, form: str, stream: TextIO = sys.stderr) -> None:
    """One line an entry on `stream`: for people (`console`) or for machines (`json`). Library logs are included.

    For people, an exception takes a line for each frame. No entry shows a local variable, a body or a header.
    """
    shared_processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers: list[structlog.typing.Processor] = [
        _describe_exception,
        _shorten,
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback),
    ]
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared_processors, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(stream),
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared_processors,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING), force=True)
    # It logs whole messages that came back; the sessions say what is wrong, in a line.
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    structlog.contextvars.bind_contextvars(service=service)


def _describe_exception(
    _: structlog.typing.WrappedLogger, __: str, entry: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """An exception as where it came from. What it says may be a client's data, unless it was written for people."""
    error = entry.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        entry["exception"] = "\n".join(_lines(error))
    return entry


def _lines(error: BaseException) -> Iterator[str]:
    found = [error]
    for n, cause in enumerate(found):
        name = type(cause).__qualname__
        said = f": {_printable(str(cause))}" if isinstance(cause, (LedgerError, OSError)) else ""
        yield f"{'from ' if n else ''}{name}{said}"
        # Without its lines of code: they would have to be read from a disk that may be the trouble.
        frames = traceback.StackSummary.extract(
            traceback.walk_tb(cause.__traceback__), limit=-FRAMES_MAX, lookup_lines=False
        )
        yield from (f"  {frame.filename}:{frame.lineno} in {frame.name}" for frame in frames)
        inner = cause.exceptions if isinstance(cause, BaseExceptionGroup) else ()
        for next_one in (*inner, cause.__cause__ or cause.__context__):
            if next_one is not None and next_one not in found and len(found) < EXCEPTIONS_MAX:
                found.append(next_one)


def _shorten(
    _: structlog.typing.WrappedLogger, __: str, entry: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    return {
        name: value if isinstance(value, int | float | None) or name == "exception" else _printable(str(value))
        for name, value in entry.items()
    }


def _printable(text: str) -> str:
    """Short, and on one line: what clients send must not look like an entry of its own."""
    if len(text) > VALUE_CHARACTERS_MAX:
        text = f"{text[:VALUE_CHARACTERS_MAX]}… ({len(text)} characters)"
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def install_operator_routes(app: FastAPI, registry: CollectorRegistry) -> None:
    """`/livez` and `/metrics`. `/readyz` is each service's own, since ready means something else in each."""
    ProcessCollector(registry=registry)

    @app.get("/livez", tags=["operations"], summary="Is the process alive?")
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/metrics", tags=["operations"], summary="Metrics for Prometheus", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return PlainTextResponse(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
