"""Where the projection service's parts meet."""

from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry
from pydantic import Field, HttpUrl, field_validator

from projection_service.api import create_api, reacher
from projection_service.feed import open_feed
from projection_service.live import STREAMS_MAX, TURNS_MAX, Tail, pass_on
from projection_service.pipeline import Pipeline
from projection_service.projection import Projection
from projection_service.rebuild.run import Report, rebuild
from projection_service.subscription import Subscription
from projection_service.view import View, no_past
from projection_service.view_store import ViewStore
from projection_service.view_store.beside import Beside
from projection_service.view_store.beside_postgres import open_postgres
from projection_service.view_store.beside_sqlite import open_sqlite
from projection_service.view_store.postgres import PostgresViewStore
from projection_service.view_store.sqlite import SqliteViewStore
from projection_service.views import VIEWS
from shared.messaging import broker_user
from shared.platform.gate import Gate
from shared.platform.server import bind, serve
from shared.platform.settings import ServiceSettings, shown_url
from shared.platform.watermark import Watermark, follow

ALL_VIEWS = "all"

log = structlog.get_logger()


class ProjectionSettings(ServiceSettings):
    port: int = Field(8081, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    ledger_url: HttpUrl = Field(
        HttpUrl("http://127.0.0.1:8080"), description="The command service, http or https, whose feed is read."
    )
    projection_name: str = Field(
        "default",
        # With its prefix it names a schema, and PostgreSQL cuts off names after 63 bytes.
        pattern=r"^[A-Za-z0-9._-]{1,50}$",
        description="Names this projection's queue and its file or schema: each projection has its own.",
    )
    ledger_key: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="The ledger's public key, as the feed gives it in Ledger-Key. Without it, the first one that the "
        "feed gives is kept.",
    )
    amqp_publisher: str | None = Field(
        None,
        min_length=1,
        max_length=255,
        description="The command service's user at the broker: messages of any other are parked in ledger.parked. "
        "Without it, the user in AMQP_URL.",
    )
    projection_views: str = Field(
        ALL_VIEWS,
        description=f"The views that are kept, separated by commas: {','.join(VIEWS)}; {ALL_VIEWS} for all of them.",
    )

    @field_validator("projection_views")
    @classmethod
    def _check_views(cls, names: str) -> str:
        _views(names)
        return names

    @property
    def views(self) -> list[View]:
        return _views(self.projection_views)

    def views_named(self, names: str) -> list[View]:
        """Those of `names`, separated by commas. Raises ValueError when one is not among `views`."""
        named = _named(names)
        if others := [view.name for view in named if view not in self.views]:
            raise ValueError(f"PROJECTION_VIEWS is {self.projection_views}, without {' and '.join(others)}")
        return named

    @property
    def path(self) -> Path:
        """The SQLite file, where there is no database."""
        return self.data_dir / f"projection-{self.projection_name}.sqlite3"

    @property
    def key(self) -> bytes | None:
        return bytes.fromhex(self.ledger_key) if self.ledger_key else None


def _views(names: str) -> list[View]:
    """Each once, in the order in which they are folded, with all that they need. Raises ValueError."""
    views = _named(names)
    for view in views:
        if missing := [name for name in view.needs if name not in {view.name for view in views}]:
            raise ValueError(f"the view {view.name} needs {' and '.join(missing)}: name what it needs, too")
    return views


def _named(names: str) -> list[View]:
    asked = set(VIEWS) if names == ALL_VIEWS else {name.strip() for name in names.split(",")}
    if unknown := sorted(asked - VIEWS.keys()):
        raise ValueError(f"there is no view {unknown[0]!r}, but {', '.join(VIEWS)}; {ALL_VIEWS} for all of them")
    return [view for view in VIEWS.values() if view.name in asked]


async def run(settings: ProjectionSettings) -> None:
    """Run until SIGTERM or SIGINT. Raises `LedgerError` when the store or the port can't be had."""
    path = settings.path
    views = settings.views
    names = [view.name for view in views]
    store: ViewStore
    if settings.database_url is None:
        store = await SqliteViewStore.open(path, names)
    else:
        store = await PostgresViewStore.open(str(settings.database_url), settings.projection_name, names)
    try:
        listener = bind(settings)
        log.info(
            "projection service",
            store=settings.store_name(path),
            views=",".join(names),
            broker=settings.broker_name,
            ledger=shown_url(str(settings.ledger_url)),
        )
        registry = CollectorRegistry()
        tail = Tail()
        projection = Projection(store, views, await store.checkpoint(), registry, settings.key, tail.add)
        amqp_url = str(settings.amqp_url) if settings.amqp_url else None
        async with open_feed(str(settings.ledger_url)) as feed:
            subscription = Subscription(
                projection,
                feed,
                amqp_url,
                settings.amqp_publisher or broker_user(amqp_url or ""),
                settings.projection_name,
                registry,
            )
            pipeline = Pipeline(projection, subscription)
            reach = reacher(projection.watermark)
            streams = Watermark(projection.position, STREAMS_MAX, TURNS_MAX)
            past = next((view.past(store, reach) for view in views if view.past), no_past(reach, ",".join(names)))
            app = create_api(store, VIEWS, projection, reach, past, streams, tail, subscription, pipeline, registry)
            # Others move these views on, or put a backup in their place: with SQLite, too, while the file stays.
            background = [
                subscription.run(),
                follow(projection.refresh, projection.watermark),
                pass_on(projection.watermark, streams),
                pipeline.watch(),
            ]
            if isinstance(store, SqliteViewStore):
                background.append(store.files.watch())
            endpoints = {
                path: endpoint for view in views for path, endpoint in view.endpoints(store, reach, past).items()
            }
            gate = Gate(app, endpoints, settings.hosts(str(settings.ledger_url)))
            await serve(gate, listener, settings, registry, background, on_stop=projection.watermark.close)
    finally:
        await store.close()


async def rebuild_views(settings: ProjectionSettings, asked: Collection[str], anew: bool, report: Report) -> None:
    """As `rebuild`, for the projection of `settings`."""
    opening: AbstractAsyncContextManager[Beside]
    if settings.database_url is None:
        opening = open_sqlite(settings.path, settings.projection_name)
    else:
        opening = open_postgres(str(settings.database_url), settings.projection_name)
    async with opening as beside, open_feed(str(settings.ledger_url)) as feed:
        await rebuild(beside, feed, VIEWS, asked, settings.key, anew, report)
