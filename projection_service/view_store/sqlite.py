"""The views in one SQLite file."""

from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import apsw
import msgspec
from msgspec.structs import astuple

from projection_service.view_store import (
    Change,
    Checkpoint,
    CheckpointMoved,
    ImpossibleEvents,
    Read,
    Write,
    in_turns,
    one_row,
)
from projection_service.view_store.kept import READ_KEPT, check, numbers_in, plan, view_migrations
from shared.errors import StoreUnavailable
from shared.platform.data_files import DataFiles, held_lock, make_file
from shared.platform.sqlite import (
    SqliteConnection,
    SqliteThread,
    check_tables,
    execute_script,
    migrate,
    roll_back_leftover,
)

P = ParamSpec("P")

READ_CHECKPOINT = "SELECT position, source, chain, key, rebuilds, views FROM checkpoint"
MOVE_CHECKPOINT = """
    UPDATE checkpoint SET position = ?, source = ?, chain = ?, key = ?, rebuilds = ?
    WHERE position = ? AND source IS ? AND chain = ? AND key IS ? AND rebuilds = ? AND views = ?
"""
HAS_CHECKPOINT = "SELECT 1 FROM sqlite_schema WHERE name = 'checkpoint'"
READ_CHAIN = "SELECT chain FROM checkpoint"
ALL_CHANGED = "SELECT * FROM changed WHERE true"
SET_VIEWS = "UPDATE checkpoint SET views = ?"


class SqliteViewStore:
    """Writes through one connection and answers queries through another.

    Only commits, which wait for the disk, go to another thread: a row is read in some 10 µs, and a trip there and
    back takes ten times that.
    """

    def __init__(
        self, writer: SqliteThread, reader: SqliteConnection, views: str, files: DataFiles, resources: AsyncExitStack
    ) -> None:
        self.files = files
        self.read_piece = in_turns(self.read)
        self._writer = writer
        self._reader = reader
        self._views = views
        self._resources = resources

    @classmethod
    async def open(cls, path: Path, views: Collection[str]) -> "SqliteViewStore":
        """Open the tables of `views` at `path`, making them when they are not there.

        Raises as `SqliteThread.open` and `plan` do.
        """
        make_file(path)
        # What a power cut takes from the views is still in the log: the checkpoint goes back with them.
        writer = SqliteThread(path, synchronous="NORMAL")
        async with AsyncExitStack() as resources:
            resources.enter_context(held_lock(path, sole=False))
            await writer.open()
            resources.push_async_callback(writer.close)
            await writer.run(migrate, "projection_service.view_store", path)
            kept = await writer.run(_keep, views, path)
            reader = SqliteConnection(path)
            resources.callback(reader.close)
            return cls(writer, reader, kept, DataFiles(path), resources.pop_all())

    async def checkpoint(self) -> Checkpoint:
        *checkpoint, views = one_row(self._read(self._reader, _rows, READ_CHECKPOINT))
        check(views, self._views)
        return Checkpoint(*checkpoint)

    async def read(self, read: Read, *parameters: object) -> Sequence[Sequence[Any]]:
        return self._read(self._reader, _rows, read.sqlite, *parameters)

    async def read_for_fold(self, expected: Checkpoint, read: Read, *parameters: object) -> Sequence[Sequence[Any]]:
        return self._read(self._writer.connection, _rows_at, expected, read.sqlite, *parameters)

    def _read(
        self,
        connection: SqliteConnection,
        function: Callable[Concatenate[apsw.Connection, P], list[tuple[Any, ...]]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> list[tuple[Any, ...]]:
        try:
            return connection.run(function, *args, **kwargs)
        except apsw.SQLError as error:
            self._explain(connection, error)
            raise

    def _explain(self, connection: SqliteConnection, error: apsw.SQLError) -> None:
        """It is a bug, unless tables are not there: another process has taken them away, or a backup is read back."""
        if not connection.run(_rows, HAS_CHECKPOINT):
            raise StoreUnavailable(f"{connection.path}: the views' tables are gone.") from error
        _, views = one_row(connection.run(_rows, READ_KEPT))
        check(views, self._views)
        connection.run(check_tables, _scripts(numbers_in(views)), connection.path)

    async def commit(self, expected: Checkpoint, checkpoint: Checkpoint, changes: Sequence[Change]) -> None:
        try:
            await self._writer.run(_commit, expected, self._views, checkpoint, changes)
        except apsw.SQLError as error:
            self._explain(self._writer.connection, error)
            raise

    async def close(self) -> None:
        await self._resources.aclose()


def _rows(connection: apsw.Connection, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
    values = [msgspec.json.encode(value).decode() if isinstance(value, list) else value for value in parameters]
    return connection.execute(sql, values).fetchall()


def _rows_at(connection: apsw.Connection, expected: Checkpoint, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
    """Of one moment; the chain stands for all that was folded."""
    connection.execute("BEGIN")
    try:
        (chain,) = one_row(_rows(connection, READ_CHAIN))
        if chain != expected.chain:
            raise CheckpointMoved(f"the views are not what they were at {expected.position}.")
        return _rows(connection, sql, *parameters)
    finally:
        roll_back_leftover(connection)  # after some failures SQLite has done it


def _keep(connection: apsw.Connection, views: Collection[str], path: Path) -> str:
    """What `checkpoint.views` is from now on."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        position, kept = one_row(_rows(connection, READ_KEPT))
        todo = plan(position, kept, views, str(path), "sqlite")
        if todo.scripts:
            for script in todo.scripts:
                execute_script(connection, script)
            connection.execute(SET_VIEWS, (todo.views,))
        check_tables(connection, _scripts(views), path)
        connection.execute("COMMIT")
        return todo.views
    finally:
        roll_back_leftover(connection)


def _scripts(views: Collection[str]) -> list[str]:
    """What makes the tables of `views`, which may use those of one before."""
    return [script for name in sorted(views) for script in view_migrations(name, "sqlite").values()]


def _commit(
    connection: apsw.Connection,
    expected: Checkpoint,
    views: str,
    checkpoint: Checkpoint,
    changes: Sequence[Change],
) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(MOVE_CHECKPOINT, (*astuple(checkpoint), *astuple(expected), views))
        if not connection.changes():
            raise CheckpointMoved(f"the views are not what they were at {expected.position}, or not {views}.")
        for write, rows in changes:
            connection.executemany(_statement(write), rows)
        connection.execute("COMMIT")
    except apsw.ConstraintError as error:
        raise ImpossibleEvents(str(error)) from error
    finally:
        roll_back_leftover(connection)


@lru_cache
def _statement(write: Write) -> str:
    names = [name for name, _ in write.described()]
    row = f"VALUES ({', '.join('?' * len(names))})"
    if ALL_CHANGED in write.sql:
        # SQLite takes a row from here in three quarters of the time.
        return write.sql.replace(ALL_CHANGED, row)
    return f"WITH changed ({', '.join(names)}) AS ({row}) {write.sql}"
