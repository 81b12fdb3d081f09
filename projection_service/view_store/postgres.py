"""The views in PostgreSQL: a schema for each projection, which replicas of it may share."""

from collections.abc import Collection, Sequence
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, Any

import asyncpg

from projection_service.view_store import Change, Checkpoint, CheckpointMoved, ImpossibleEvents, Read, Write
from projection_service.view_store.kept import READ_KEPT, check, plan
from shared.events import Position
from shared.platform.postgres import MIGRATION_SECONDS, PostgresPool, migrate

if TYPE_CHECKING:
    from shared.platform.postgres import Connection

CONNECTIONS_MAX = 8

READ_CHECKPOINT = "SELECT position, source, chain, key, views FROM checkpoint"
MOVE_CHECKPOINT = """
    WITH moved AS (
        UPDATE checkpoint SET position = $1, source = $2, chain = $3, key = $4
        WHERE position = $5 AND views = $6 RETURNING position
    )
"""
MOVE_PARAMETERS = 6
SET_VIEWS = "UPDATE checkpoint SET views = $1"


class PostgresViewStore:
    def __init__(self, pool: PostgresPool, views: str) -> None:
        self._pool = pool
        self._views = views

    @classmethod
    async def open(cls, url: str, projection_name: str, views: Collection[str]) -> "PostgresViewStore":
        """Open the projection's tables of `views` in the database at `url`, making them when they are not there.

        Raises `StoreUnavailable` when the database can't be reached, `CorruptStore` when it can't be used, and as
        `plan` does.
        """
        pool = PostgresPool(url, f"projection_{projection_name}", CONNECTIONS_MAX)
        await pool.open()
        try:
            async with pool.connection() as connection, connection.transaction():
                await migrate(connection, pool.schema, "projection_service.view_store")
                kept = await _keep(connection, views, f"the schema {pool.schema}")
        except BaseException:
            await pool.close()
            raise
        return cls(pool, kept)

    async def checkpoint(self) -> Checkpoint:
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(READ_CHECKPOINT)
        position, source, chain, key, views = row  # type: ignore[misc]
        check(views, self._views)
        return Checkpoint(Position(position), source, chain, key)

    async def read(self, read: Read, *parameters: object) -> Sequence[Sequence[Any]]:
        async with self._pool.connection() as connection:
            return [tuple(row) for row in await connection.fetch(read.postgres, *parameters)]

    read_for_fold = read

    async def commit(self, expected: Position, checkpoint: Checkpoint, changes: Sequence[Change]) -> None:
        written = [(write, columns) for write, rows in changes if (columns := list(zip(*rows, strict=True)))]
        async with self._pool.connection() as connection:
            try:
                moved = await connection.fetchrow(
                    _statement(tuple(write for write, _ in written)),
                    checkpoint.position,
                    checkpoint.source,
                    checkpoint.chain,
                    checkpoint.key,
                    expected,
                    self._views,
                    *(column for _, columns in written for column in columns),
                )
            except asyncpg.IntegrityConstraintViolationError as error:
                raise ImpossibleEvents(str(error)) from error
        if moved is None:
            raise CheckpointMoved(f"the checkpoint is no longer at {expected}, or no longer with {self._views}.")

    async def close(self) -> None:
        await self._pool.close()


async def _keep(connection: "Connection", views: Collection[str], what: str) -> str:
    """What `checkpoint.views` is from now on. Takes place in the transaction of `migrate`, whose lock keeps out others
    that open the same."""
    todo = plan(*await _read_kept(connection), views, what, "postgres")
    if todo.scripts:
        # Nothing moves from here on. Commits and queries lock this table first, too: nobody waits for each other.
        await connection.execute("LOCK TABLE checkpoint", timeout=MIGRATION_SECONDS)
        todo = plan(*await _read_kept(connection), views, what, "postgres")
        for script in todo.scripts:
            await connection.execute(script, timeout=MIGRATION_SECONDS)
        await connection.execute(SET_VIEWS, todo.views)
    return todo.views


async def _read_kept(connection: "Connection") -> tuple[int, str]:
    position, views = await connection.fetchrow(READ_KEPT)  # type: ignore[misc]
    return position, views


@lru_cache
def _statement(writes: tuple[Write, ...]) -> str:
    """One statement, and so one transaction: nothing is held while the server waits for us.

    Where the checkpoint does not move, there is nothing in any `changed`.
    """
    numbers = count(MOVE_PARAMETERS + 1)
    parts = [MOVE_CHECKPOINT]
    for number, write in enumerate(writes, 1):
        names, types = zip(*(column.split() for column in write.columns.split(",")), strict=True)
        arrays = ", ".join(f"${next(numbers)}::{type_}[]" for type_ in types)
        rows = f"SELECT changed.* FROM moved, unnest({arrays}) AS changed ({', '.join(names)})"
        parts.append(f"write_{number} AS (WITH changed AS ({rows}) {write.sql})")
    return f"{', '.join(parts)} SELECT position FROM moved"
