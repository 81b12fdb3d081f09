"""The implementations that each contract suite runs over. Another store: another parameter here, and nowhere else."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path
from typing import Protocol, TypeVar

import apsw
import asyncpg
import pytest

from command_service.event_log import EventLog
from command_service.event_log.postgres import PostgresEventLog
from command_service.event_log.sqlite import SqliteEventLog
from projection_service.view_store import ViewStore
from projection_service.view_store.postgres import PostgresViewStore
from projection_service.view_store.sqlite import SqliteViewStore
from projection_service.views import VIEWS
from shared.platform import postgres

OpenEventLog = Callable[[], AbstractAsyncContextManager[EventLog]]


class OpenViewStore(Protocol):
    def __call__(self, *views: str) -> AbstractAsyncContextManager[ViewStore]: ...


ALL_VIEWS = list(VIEWS)


class Closable(Protocol):
    async def close(self) -> None: ...


S = TypeVar("S", bound=Closable)


@asynccontextmanager
async def closed_at_the_end(opening: Awaitable[S]) -> AsyncIterator[S]:
    store = await opening
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture(params=["sqlite", "postgres"])
def open_event_log(request: pytest.FixtureRequest, tmp_path: Path) -> OpenEventLog:
    """Opens the test's one event store; again after it was closed, with what is in it."""
    if request.param == "sqlite":
        return lambda: closed_at_the_end(SqliteEventLog.open(tmp_path / "ledger.sqlite3"))
    url = request.getfixturevalue("database_url")
    return lambda: closed_at_the_end(PostgresEventLog.open(url))


@pytest.fixture(params=["sqlite", "postgres"])
def open_view_store(request: pytest.FixtureRequest, tmp_path: Path) -> OpenViewStore:
    """Opens the test's one view store, any number of times; with all views, or those that are named."""
    if request.param == "sqlite":
        path = tmp_path / "views.sqlite3"
        return lambda *views: closed_at_the_end(SqliteViewStore.open(path, views or ALL_VIEWS))
    url = request.getfixturevalue("database_url")
    return lambda *views: closed_at_the_end(PostgresViewStore.open(url, "test", views or ALL_VIEWS))


ChangeViews = Callable[[str], Awaitable[None]]


@pytest.fixture
def change_views(request: pytest.FixtureRequest, open_view_store: OpenViewStore, tmp_path: Path) -> ChangeViews:
    """Runs SQL in the test's view store, as somebody does who is no projection."""
    if "sqlite" in request.node.callspec.id:

        async def change(sql: str) -> None:
            # Not another copy of SQLite: it would not see the locks of this process, and take them with it.
            # https://www.sqlite.org/howtocorrupt.html#_multiple_copies_of_sqlite_linked_into_the_same_application
            with closing(apsw.Connection(str(tmp_path / "views.sqlite3"))) as connection:
                connection.execute(sql)

    else:
        url = request.getfixturevalue("database_url")

        async def change(sql: str) -> None:
            connection = await asyncpg.connect(url, server_settings={"search_path": "projection_test"})
            try:
                await connection.execute(sql)
            finally:
                await connection.close()

    return change


@pytest.fixture
async def event_log(open_event_log: OpenEventLog) -> AsyncIterator[EventLog]:
    async with open_event_log() as store:
        yield store


@pytest.fixture
async def view_store(open_view_store: OpenViewStore) -> AsyncIterator[ViewStore]:
    async with open_view_store() as store:
        yield store


@pytest.fixture
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the test's time's sake. A store takes it up when it is opened."""
    for name in ("CONNECT_SECONDS", "ANSWER_SECONDS"):
        monkeypatch.setattr(postgres, name, 1)
