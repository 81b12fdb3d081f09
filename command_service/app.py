"""Where the command service's parts meet."""

import structlog
from prometheus_client import CollectorRegistry
from pydantic import Field, HttpUrl

from command_service.event_store import EventStore
from command_service.event_store.postgres import PostgresEventStore
from command_service.event_store.sqlite import SqliteEventStore
from command_service.http.app import create_api
from command_service.ledger_writer import LedgerWriter
from command_service.relay import Relay
from shared.server import bind, serve
from shared.settings import ServiceSettings
from shared.watermark import Watermark, follow

log = structlog.get_logger()


class CommandSettings(ServiceSettings):
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    query_url: HttpUrl = Field(
        HttpUrl("http://127.0.0.1:8081"),
        description="Where clients reach the projection service, http or https; base of Location.",
    )


async def run(settings: CommandSettings) -> None:
    """Run until SIGTERM or SIGINT. Raises `LedgerError` when the store or the port can't be had."""
    path = settings.data_dir / "ledger.sqlite3"
    store: EventStore
    if settings.database_url is None:
        store = await SqliteEventStore.open(path)
    else:
        store = await PostgresEventStore.open(str(settings.database_url))
    try:
        listener = bind(settings)
        log.info("command service", store=settings.store_name(path), broker=settings.broker_name)
        head = Watermark(await store.head())
        registry = CollectorRegistry()
        writer = LedgerWriter(store, head, registry)
        background = [writer.run()]
        if isinstance(store, SqliteEventStore):
            background.append(store.files.watch())
        else:
            background.append(follow(store.head, head))
        relay = None
        if settings.amqp_url is not None:
            relay = Relay(store, head, str(settings.amqp_url), registry)
            background.append(relay.run())
        query_url = str(settings.query_url)
        app = create_api(
            store,
            writer,
            head,
            registry,
            query_url.rstrip("/"),
            settings.hosts(query_url),
            lambda: relay.status if relay else "no broker",
        )
        await serve(app, listener, settings, registry, background, on_stop=head.close)
    finally:
        await store.close()
