"""Runs a service: its HTTP server and its background tasks, together or not at all."""

import asyncio
import gc
import socket
from collections.abc import Callable, Coroutine, Sequence
from ipaddress import ip_address
from types import FrameType
from typing import TypeVar

import structlog
import typer
import uvicorn
from prometheus_client import CollectorRegistry

from shared.errors import LedgerError
from shared.platform.gate import Gate
from shared.platform.http_protocol import Connections, Limits
from shared.platform.settings import ServiceSettings, describe_settings, read_settings
from shared.platform.telemetry import configure_logs

S = TypeVar("S", bound=ServiceSettings)

SHUTDOWN_SECONDS = 20
SEND_BUFFER_BYTES = 256 * 1024

log = structlog.get_logger()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._loop = asyncio.get_running_loop()
        self._on_stop = on_stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        # uvicorn would raise the signal again at its end and so die of it; a clean stop exits with 0.
        self.should_exit = True
        self._loop.call_soon_threadsafe(self._on_stop)


def bind(settings: ServiceSettings) -> socket.socket:
    """The listening socket. Raises `LedgerError` when the address is taken or not of this machine."""
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        raise LedgerError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}. Set HOST or PORT to a free address."
        ) from error
    # For all connections. Else the kernel takes some megabytes of each answer that nobody reads, and bounds no sum.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    if not ip_address(listener.getsockname()[0]).is_loopback:
        log.warning("open to other machines; it has no users of its own: put a proxy before it that asks who comes")
    return listener


async def serve(
    gate: Gate,
    listener: socket.socket,
    settings: ServiceSettings,
    registry: CollectorRegistry,
    background: Sequence[Coroutine[None, None, None]],
    on_stop: Callable[[], None],
) -> None:
    """Serve until SIGTERM or SIGINT: requests under way are answered first, then the background tasks end.

    `on_stop` is called when the signal comes, to release requests that wait. A background task that
    fails takes the process with it: half a service would be worse than one that is restarted.
    """
    connections = Connections(gate, Limits.of(settings), registry)
    config = uvicorn.Config(
        gate,
        loop="none",
        http=connections.protocol,  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing here asks who the client is
        # A browser takes an answer for what its Content-Type says, and for nothing else.
        headers=[("X-Content-Type-Options", "nosniff")],
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    server = _Server(config, on_stop)
    # What is loaded by now stays. A collector that goes through it again and again takes a tenth of a batch's time.
    gc.collect()
    gc.freeze()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in [*background, connections.sweep()]]
        host, port = listener.getsockname()[:2]
        log.info("listening", url=f"http://{f'[{host}]' if ':' in host else host}:{port}")
        await server.serve(sockets=[listener])
        log.info("stopped listening")
        for task in tasks:
            task.cancel()


def run_service(name: str, purpose: str, settings: type[S], run: Callable[[S], Coroutine[None, None, None]]) -> None:
    """The command line of a service that has no other commands: `--help`, or run it to its end, as `run_to_its_end`."""
    command_line = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    command_line.command(help=service_help(purpose, settings))(lambda: run_to_its_end(name, settings, run))
    command_line(prog_name=name)


def service_help(purpose: str, settings: type[ServiceSettings]) -> str:
    return f"{purpose}\n\nSet by environment variables:\n\n{describe_settings(settings)}"


def run_to_its_end(name: str, settings: type[S], run: Callable[[S], Coroutine[None, None, None]]) -> None:
    """Exit status 0 after a clean stop, 1 with a line that says why otherwise, 2 when a setting is wrong."""
    values = read_settings(settings)
    configure_logs(name, values.log_level, values.log_format)
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(run(values))
    except* LedgerError as errors:
        log.error("cannot go on", reason=str(errors.exceptions[0]))
        raise SystemExit(1) from None


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # not made for this platform
        return None
    return uvloop.new_event_loop
