"""Where the projection service's parts meet."""

import aiohttp
import structlog
from prometheus_client import CollectorRegistry
from pydantic import Field

from projection_service.api import create_api
from projection_service.feed import Feed
from projection_service.projection import Projection
from projection_service.subscription import Subscription
from projection_service.view_store.sqlite import SqliteViewStore
from shared.server import bind, serve
from shared.settings import ServiceSettings

log = structlog.get_logger()


class ProjectionSettings(ServiceSettings):
    port: int = Field(8081, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    ledger_url: str = Field("http://127.0.0.1:8080", description="The command service, whose feed is read.")
    projection_name: str = Field(
        "default",
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="Names this projection's queue and its file: each projection has its own.",
    )


async def run(settings: ProjectionSettings) -> None:
    """Run until SIGTERM or SIGINT. Raises `LedgerError` when the store or the port can't be had."""
    path = settings.data_dir / f"projection-{settings.projection_name}.sqlite3"
    store = await SqliteViewStore.open(path)
    try:
        listener = bind(settings)
        log.info("projection service", store=str(path), broker=settings.broker_name, ledger=settings.ledger_url)
        registry = CollectorRegistry()
        projection = Projection(store, await store.checkpoint(), registry)
        async with aiohttp.ClientSession() as session:
            subscription = Subscription(
                projection,
                Feed(session, settings.ledger_url.rstrip("/")),
                str(settings.amqp_url) if settings.amqp_url else None,
                settings.projection_name,
                registry,
            )
            app = create_api(store, projection, subscription, registry)
            await serve(app, listener, [subscription.run()], on_stop=projection.watermark.close)
    finally:
        await store.close()
