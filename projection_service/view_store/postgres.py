"""The views in PostgreSQL: a schema for each projection, which replicas of it may share."""

from collections.abc import Collection, Sequence
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, Any

import asyncpg
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
from projection_service.view_store.kept import READ_KEPT, check, plan
from shared.platform.postgres import MIGRATION_SECONDS, PostgresPool, migrate

if TYPE_CHECKING:
    from shared.platform.postgres import Connection

CONNECTIONS_MAX = 8
# Pages are read along the index that has their order, so far as they go. To gather all that is asked for and sort it
# looks cheaper as long as it is thought to be little; nothing bounds it. What has to be sorted is, and JIT, to which a
# forbidden sort looks expensive, would take longer than any query here.
SETTINGS = {"enable_sort": "off", "jit": "off"}
SCHEMA_PREFIX = "projection_"

READ_CHECKPOINT = "SELECT position, source, chain, key, rebuilds, views FROM checkpoint"
MOVE_CHECKPOINT = """
    WITH moved AS (
        UPDATE checkpoint SET position = $1, source = $2, chain = $3, key = $4, rebuilds = $5
        WHERE position = $6 AND source IS NOT DISTINCT FROM $7 AND chain = $8 AND key IS NOT DISTINCT FROM $9
            AND rebuilds = $10 AND views = $11
        RETURNING position
    )
"""
MOVE_PARAMETERS = 11
SENT = {"numeric": "text"}
"""What our rows have as text, PostgreSQL reads in a tenth of the time that asyncpg takes to write it in base 10,000."""
READ_AT = """
    SELECT checkpoint.chain = ${chain}, asked.*
    FROM checkpoint LEFT JOIN (SELECT true, rows.* FROM ({read}) AS rows) AS asked ON true
"""
"""One statement, and so one moment. The chain stands for all that was folded."""
SET_VIEWS = "UPDATE checkpoint SET views = $1"


class PostgresViewStore:
    def __init__(self, pool: PostgresPool, views: str) -> None:
        self.read_piece = in_turns(self.read)
        self._pool = pool
        self._views = views

    @classmethod
    async def open(
        cls, url: str, projection_name: str, views: Collection[str], prefix: str = SCHEMA_PREFIX
    ) -> "PostgresViewStore":
        """Open the projection's tables of `views` in the database at `url`, making them when they are not there.

        Raises `StoreUnavailable` when the database can't be reached, `CorruptStore` when it can't be used, and as
        `plan` does.
        """
        pool = PostgresPool(url, f"{prefix}{projection_name}", CONNECTIONS_MAX, SETTINGS)
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
            *checkpoint, views = one_row(await connection.fetch(READ_CHECKPOINT))
        check(views, self._views)
        return Checkpoint(*checkpoint)

    async def read(self, read: Read, *parameters: object) -> Sequence[Sequence[Any]]:
        async with self._pool.connection() as connection:
            return [tuple(row) for row in await connection.fetch(read.postgres, *parameters)]

    async def read_for_fold(self, expected: Checkpoint, read: Read, *parameters: object) -> Sequence[Sequence[Any]]:
        statement = READ_AT.format(chain=len(parameters) + 1, read=read.postgres)
        async with self._pool.connection() as connection:
            rows = await connection.fetch(statement, *parameters, expected.chain)
        if not one_row(rows)[0]:
            raise CheckpointMoved(f"the views are not what they were at {expected.position}.")
        return [tuple(row)[2:] for row in rows if row[1]]

    async def commit(self, expected: Checkpoint, checkpoint: Checkpoint, changes: Sequence[Change]) -> None:
        written = [(write, columns) for write, rows in changes if (columns := list(zip(*rows, strict=True)))]
        async with self._pool.connection() as connection:
            try:
                moved = await connection.fetchrow(
                    _statement(tuple(write for write, _ in written)),
                    *astuple(checkpoint),
                    *astuple(expected),
                    self._views,
                    *(column for _, columns in written for column in columns),
                )
            except asyncpg.IntegrityConstraintViolationError as error:
                raise ImpossibleEvents(str(error)) from error
        if moved is None:
            raise CheckpointMoved(f"the views are not what they were at {expected.position}, or not {self._views}.")

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
    position, views = one_row(await connection.fetch(READ_KEPT))
    return position, views


@lru_cache
def _statement(writes: tuple[Write, ...]) -> str:
    """One statement, and so one transaction: nothing is held while the server waits for us.

    Where the checkpoint does not move, there is nothing in any `changed`.
    """
    numbers = count(MOVE_PARAMETERS + 1)
    parts = [MOVE_CHECKPOINT]
    for number, write in enumerate(writes, 1):
        names, types = zip(*write.described(), strict=True)
        arrays = ", ".join(f"${next(numbers)}::{SENT.get(type_, type_)}[]::{type_}[]" for type_ in types)
        rows = f"SELECT changed.* FROM moved, unnest({arrays}) AS changed ({', '.join(names)})"
        parts.append(f"write_{number} AS (WITH changed AS ({rows}) {write.sql})")
    return f"{', '.join(parts)} SELECT position FROM moved"
