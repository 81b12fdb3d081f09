"""The command service's HTTP face: the gate, the commands behind it, and the application for all else."""

from collections.abc import Callable, Iterable, Mapping

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from command_service.event_log import EventLog
from command_service.http.commands import command_endpoints
from command_service.http.feed import install_feed
from command_service.http.openapi import describe_commands
from command_service.ledger_writer import LedgerWriter
from shared.events import Asset, Position
from shared.platform.docs import install_docs, lead_to_docs
from shared.platform.gate import Gate
from shared.platform.problems import install_problem_handlers, problem_responses
from shared.platform.telemetry import install_operator_routes
from shared.platform.watermark import Watermark
from shared.witness import Signer


def create_api(
    event_log: EventLog,
    signer: Signer,
    writer: LedgerWriter,
    head: Watermark,
    registry: CollectorRegistry,
    query_url: str,
    default_asset: Asset,
    hosts: Iterable[str],
    published: Callable[[], Position | None],
    status: Callable[[], Mapping[str, str]],
) -> Gate:
    """`query_url` is where accounts are read; `default_asset` is that of accounts for which none is asked; `hosts` are
    the names by which clients may call; `published` is up to where the broker has confirmed the events, None without
    one; `status` is what the tasks beside the writer say of themselves."""
    app = FastAPI(
        title="Counting House: command service",
        summary="Records commands in the event log.",
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    install_problem_handlers(app)
    feed = install_feed(app, event_log, signer, head, published)

    @app.get("/readyz", tags=["operations"], summary="Can commands be recorded?", responses=problem_responses(503))
    async def readyz() -> dict[str, str]:
        await event_log.head()
        writer.check_ready()
        return {"status": "ready", **status()}

    install_operator_routes(app, registry)
    install_docs(app)
    lead_to_docs(app)
    describe_commands(app.openapi())
    return Gate(app, {"/events": feed, **command_endpoints(writer, query_url, default_asset)}, hosts)
