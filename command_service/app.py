"""Where the command service's parts meet."""

import structlog
from prometheus_client import CollectorRegistry
from pydantic import Field, HttpUrl, field_validator

from command_service.clerk import Clerk
from command_service.event_log import EventLog
from command_service.event_log.postgres import PostgresEventLog
from command_service.event_log.sqlite import SqliteEventLog
from command_service.http.app import create_api
from command_service.ledger_writer import LedgerWriter
from command_service.relay import Relay
from shared.events import ASSET_RULE, USD, is_asset
from shared.platform.server import bind, serve
from shared.platform.settings import ServiceSettings
from shared.platform.watermark import Watermark, follow
from shared.witness import Signer

log = structlog.get_logger()


class CommandSettings(ServiceSettings):
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    query_url: HttpUrl = Field(
        HttpUrl("http://127.0.0.1:8081"),
        description="Where clients reach the projection service, http or https; base of Location.",
    )
    default_asset: str = Field(USD, description=f"The asset of accounts for which none is asked: {ASSET_RULE}.")

    @field_validator("default_asset")
    @classmethod
    def _check_asset(cls, asset: str) -> str:
        if not is_asset(asset):
            raise ValueError(f"{asset!a} is no asset. Set {ASSET_RULE}")
        return asset


async def run(settings: CommandSettings) -> None:
    """Run until SIGTERM or SIGINT. Raises `LedgerError` when the store or the port can't be had."""
    path = settings.data_dir / "ledger.sqlite3"
    event_log: EventLog
    if settings.database_url is None:
        event_log = await SqliteEventLog.open(path)
    else:
        event_log = await PostgresEventLog.open(str(settings.database_url))
    try:
        listener = bind(settings)
        log.info("command service", store=settings.store_name(path), broker=settings.broker_name)
        signer = Signer(event_log.source, event_log.key)
        head = Watermark(await event_log.head())
        registry = CollectorRegistry()
        writer = LedgerWriter(event_log, head, registry)
        clerk = Clerk(event_log, writer, registry)
        background = [writer.run(), clerk.run()]
        if isinstance(event_log, SqliteEventLog):
            background.append(event_log.files.watch())
        else:
            background.append(follow(event_log.head, head))
        relay = None
        if settings.amqp_url is not None:
            relay = Relay(event_log, signer, head, str(settings.amqp_url), registry)
            background.append(relay.run())
        query_url = str(settings.query_url)
        app = create_api(
            event_log,
            signer,
            writer,
            head,
            registry,
            query_url.rstrip("/"),
            settings.default_asset,
            settings.hosts(query_url),
            lambda: relay.confirmed if relay else None,
            lambda: {"relay": relay.status if relay else "no broker", "clerk": clerk.status},
        )
        await serve(app, listener, settings, registry, background, on_stop=head.close)
    finally:
        await event_log.close()
