"""How a client is told what went wrong: RFC 9457 problem documents, made in one place."""

from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from shared.errors import PROBLEM_TYPE, InvalidRequest, LedgerError

PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "reason": {"type": "string", "description": "Why the ledger rejected the command."},
        "event_id": {"type": "string", "description": "The event that records the rejection."},
        "position": {"type": "integer"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}

PROBLEM_DESCRIPTIONS = {
    400: "Rejected by the ledger, and recorded as such.",
    403: "A web page of another origin may not do this.",
    404: "Unknown.",
    413: "The body is over its limit. Nothing was recorded.",
    415: "The body is not said to be JSON, or is encoded. Nothing was recorded.",
    421: "The Host is none of this service's names.",
    422: "Malformed. Nothing was recorded.",
    500: "The outcome is unknown: retry with the same Idempotency-Key.",
    503: "Not now. Nothing was recorded; try again later.",
}

log = structlog.get_logger()


def problem(
    status: int, slug: str, title: str, detail: str, members: Mapping[str, object] | None = None
) -> dict[str, object]:
    return {
        "type": PROBLEM_TYPE + slug,
        "title": title,
        "status": status,
        "detail": detail,
        **(members or {}),
    }


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What an OpenAPI operation documents for these statuses."""
    return {
        status: {
            "description": PROBLEM_DESCRIPTIONS[status],
            "content": {"application/problem+json": {"schema": PROBLEM_SCHEMA}},
        }
        for status in statuses
    }


def _response(document: Mapping[str, object], status: int, headers: Mapping[str, str] | None) -> Response:
    # A cache may keep a 404 that does not say otherwise.
    kept = {"Cache-Control": "no-store", **(headers or {})}
    return Response(msgspec.json.encode(document), status, kept, "application/problem+json")


def problem_response(error: LedgerError) -> Response:
    document = problem(error.status, error.slug, error.title, str(error), error.members())
    return _response(document, error.status, error.headers)


def unexpected_response(method: str, path: str, error: Exception) -> Response:
    log.error("unexpected error", method=method, path=path, exc_info=error)
    return problem_response(LedgerError("An unexpected error; the service's log has it."))


def in_lines(response: Response) -> tuple[int, bytes, bytes]:
    """Its status, the lines of its head, and its body."""
    lines = b"".join([b"%b: %b\r\n" % header for header in response.raw_headers])
    return response.status_code, lines, bytes(response.body)


def install_problem_handlers(app: FastAPI) -> None:
    """Answer every error of `app` with a problem document."""

    async def ledger_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, LedgerError)
        return problem_response(error)

    async def invalid_parameters(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        # The location starts with "path", "query" or "header"; the client knows the field by its name.
        invalid = InvalidRequest([(".".join(map(str, e["loc"][1:])), e["msg"]) for e in error.errors()])
        return await ledger_error(request, invalid)

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        slug = error.detail.lower().replace(" ", "-")
        detail = f"{request.method} {request.url.path}: {error.detail}"
        document = problem(error.status_code, slug, error.detail, detail)
        return _response(document, error.status_code, error.headers)

    async def disconnected(request: Request, error: Exception) -> Response:
        return Response(status_code=400)  # nobody is there to read it

    async def unexpected(request: Request, error: Exception) -> Response:
        return unexpected_response(request.method, request.url.path, error)

    app.add_exception_handler(LedgerError, ledger_error)
    app.add_exception_handler(RequestValidationError, invalid_parameters)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(ClientDisconnect, disconnected)
    app.add_exception_handler(Exception, unexpected)
