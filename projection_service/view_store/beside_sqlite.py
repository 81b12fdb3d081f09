"""New views beside those of an SQLite file, in a file of their own."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import apsw

from projection_service.view_store import Checkpoint, ViewStore, one_row
from projection_service.view_store.beside import NEW_PREFIX, Both, InUse, NoViews, RebuildUnderWay
from projection_service.view_store.kept import NO_VIEWS, parts, view_migrations
from projection_service.view_store.sqlite import READ_CHECKPOINT, SqliteViewStore
from shared.errors import StoreUnavailable
from shared.platform.data_files import LOCK_SUFFIX, Locked, held_lock
from shared.platform.migrations import migration_scripts
from shared.platform.sqlite import (
    SqliteThread,
    check_tables,
    execute_script,
    migrate,
    name_of,
    never_wait,
    roll_back_leftover,
)

P = ParamSpec("P")
T = TypeVar("T")

STORE = "projection_service.view_store"
READ_ATTACHED = "SELECT count(*) FROM pragma_database_list WHERE name = 'rebuilt'"
SWITCHED = "UPDATE main.checkpoint SET views = ?, rebuilds = rebuilds + 1"


class SqliteBeside:
    dialect = "sqlite"

    def __init__(self, path: Path, new_path: Path, connection: SqliteThread) -> None:
        self.what, self.new_what = str(path), str(new_path)
        self._path, self._new_path = path, new_path
        self._connection = connection

    async def in_use(self) -> InUse:
        return await self._connection.run(_in_use)

    async def open_new(self, views: Collection[str]) -> ViewStore:
        return await SqliteViewStore.open(self._new_path, views)

    async def remove_new(self) -> None:
        for name in _files(self._new_path):
            name.unlink(missing_ok=True)
        # What was copied is in the -wal, which would stay as large as it is. To cut it off keeps writers out, and has
        # little left to do after the first pass. No matter if something is in the way.
        for mode in ("PASSIVE", "TRUNCATE"):
            with suppress(StoreUnavailable):
                await self._connection.run(_write_back, mode)

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[InUse]:
        await self._connection.begin()
        try:
            yield await self.in_use()
        finally:
            await self._connection.run(_let_go)

    @asynccontextmanager
    async def both(self) -> AsyncIterator[Both]:
        thread = SqliteThread(self._new_path)
        await thread.open()
        try:
            await thread.run(_look, self._path)
            yield _Both(thread)
        finally:
            await thread.close()

    async def switch(self, views: Sequence[str], kept: str) -> None:
        await _interruptibly(self._connection, _switch, self._new_path, views, kept)


class _Both:
    """A name without either is looked for in `main` first."""

    old, new = "old.", "main."

    def __init__(self, thread: SqliteThread) -> None:
        self._thread = thread

    async def rows(self, sql: str) -> Sequence[Sequence[Any]]:
        return await _interruptibly(self._thread, lambda connection: connection.execute(sql).fetchall())

    async def columns(self, table: str) -> tuple[list[str], list[str]]:
        found = await self.rows(f"SELECT name, pk FROM pragma_table_info('{table}', 'main')")
        return [name for name, pk in found if pk], [name for name, pk in found if not pk]

    def unlike(self, column: str) -> str:
        return f"o.{column} IS NOT n.{column}"


@asynccontextmanager
async def open_sqlite(path: Path, projection_name: str) -> AsyncIterator[SqliteBeside]:
    """The views in the file at `path`. Raises `NoViews`, `RebuildUnderWay`, and as `SqliteThread.open` and `migrate`
    do."""
    if not path.exists():  # noqa: ASYNC240 -- nobody else waits
        raise NoViews(path)
    new_path = path.with_name(f"{NEW_PREFIX}-{projection_name}.sqlite3")
    # Not the lock of the new file: its store has that one.
    working = path.with_name(f"{NEW_PREFIX}ing-{projection_name}.sqlite3")
    async with AsyncExitStack() as resources:
        resources.enter_context(held_lock(path, sole=False))
        try:
            resources.enter_context(held_lock(working, sole=True))
        except Locked as error:
            raise RebuildUnderWay(
                f"process {error.owner} is building {new_path} already. Wait for its end, or stop it."
            ) from error
        connection = SqliteThread(path)
        await connection.open()
        resources.push_async_callback(connection.close)
        await connection.run(_check, path)
        await connection.run(never_wait)
        # The switch is over when it is on disk; to put it into its place in the file comes later.
        await connection.run(lambda connection: connection.execute("PRAGMA wal_autocheckpoint = 0"))
        beside = SqliteBeside(path, new_path, connection)
        if (await beside.in_use()).views == NO_VIEWS:
            raise NoViews(path)
        yield beside
        if not new_path.exists():
            working.with_suffix(LOCK_SUFFIX).unlink(missing_ok=True)


async def _interruptibly(
    thread: SqliteThread,
    function: Callable[Concatenate[apsw.Connection, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """As `thread.run`, for what may take minutes: who is cancelled does not wait for its end."""
    work = asyncio.ensure_future(thread.run(function, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        thread.connection.run(apsw.Connection.interrupt)
        await asyncio.gather(work, return_exceptions=True)
        raise


def _files(path: Path) -> list[Path]:
    """The one that the others belong to goes first: without a part of them it might still be opened."""
    return [path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm")), path.with_suffix(LOCK_SUFFIX)]


def _check(connection: apsw.Connection, path: Path) -> None:
    """As the service's start does. Without a lock, if there is nothing to migrate: that the service is at work is no
    reason not to begin."""
    scripts = migration_scripts(STORE, "sqlite")
    if connection.execute("PRAGMA user_version").get == max(scripts):
        check_tables(connection, scripts.values(), path)
    else:
        migrate(connection, STORE, path)


def _in_use(connection: apsw.Connection) -> InUse:
    row: Sequence[Any] = one_row(connection.execute(READ_CHECKPOINT).fetchall())
    *checkpoint, views = row
    return InUse(Checkpoint(*checkpoint), views)


def _look(connection: apsw.Connection, path: Path) -> None:
    connection.execute("ATTACH ? AS old", (name_of(path),))
    connection.execute("BEGIN")
    for name in ("main", "old"):
        # With its first read the transaction takes up the moment.
        connection.execute(f"SELECT position FROM {name}.checkpoint").fetchall()


def _switch(connection: apsw.Connection, new_path: Path, views: Sequence[str], kept: str) -> None:
    """In the open transaction. Tables that are dropped first leave their room in the file to the new ones. A copy into
    an empty table of the very same form takes over the rows, and the entries of its indexes, as they lie in the file
    (https://www.sqlite.org/src/file?name=src/insert.c, xferOptimization)."""
    connection.execute("ATTACH ? AS rebuilt", (name_of(new_path),))
    for view in reversed(views):
        for kind, name in parts(view):
            connection.execute(f"DROP {kind} IF EXISTS main.{name}")
    for view in views:
        for script in view_migrations(view, "sqlite").values():
            execute_script(connection, script)
        for kind, name in parts(view):
            if kind == "TABLE":
                connection.execute(f"DELETE FROM main.{name}")  # what the script put there
                connection.execute(f"INSERT INTO main.{name} SELECT * FROM rebuilt.{name}")
    connection.execute(SWITCHED, (kept,))
    connection.execute("COMMIT")


def _write_back(connection: apsw.Connection, mode: str) -> None:
    connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()


def _let_go(connection: apsw.Connection) -> None:
    roll_back_leftover(connection)
    if connection.execute(READ_ATTACHED).get:
        connection.execute("DETACH rebuilt")
