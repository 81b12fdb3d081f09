"""New views beside those of a PostgreSQL schema, in a schema of their own."""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg

from projection_service.view_store import Checkpoint, ViewStore, one_row
from projection_service.view_store.beside import NEW_PREFIX, Both, InUse, NoViews, QueriesInTheWay, RebuildUnderWay
from projection_service.view_store.kept import NO_VIEWS, parts, view_migrations
from projection_service.view_store.postgres import READ_CHECKPOINT, SCHEMA_PREFIX, PostgresViewStore
from shared.errors import LedgerError
from shared.platform.postgres import MIGRATION_SECONDS, PostgresPool, migrate

if TYPE_CHECKING:
    from asyncpg.transaction import Transaction

    from shared.platform.postgres import Connection

CONNECTIONS_MAX = 4
HOLD_SECONDS = 30
"""A process that stops while it holds the views loses them after this long; a second is usual."""
QUERIES_SECONDS = 0.25
"""All queries wait while the tables are awaited: no longer than this for one that takes long."""
BOTH_SECONDS = 3600

TAKE_TURN = "SELECT pg_advisory_lock(hashtextextended($1, 0))"
"""Waits as long as for any lock: the server may not have noticed yet that a process which was killed is gone."""
HOLD = f"""
    SET LOCAL idle_in_transaction_session_timeout = '{HOLD_SECONDS}s';
    LOCK TABLE checkpoint IN EXCLUSIVE MODE;
"""
"""Commits wait, queries do not."""
TAKE_TABLES = f"""
    SET LOCAL statement_timeout = '{MIGRATION_SECONDS}s';
    SET LOCAL lock_timeout = '{QUERIES_SECONDS * 1000:.0f}ms';
    LOCK TABLE checkpoint IN ACCESS EXCLUSIVE MODE;
"""
"""The one that all queries lock first."""
READ_GRANTS = """
    SELECT format(
        'GRANT %s ON %I.%I TO %s%s', privilege_type, $1::text, relname,
        CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
        CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
    )
    FROM pg_class, aclexplode(relacl) AS granted
    WHERE relnamespace = $1::text::regnamespace AND relname = ANY($2) AND grantee <> relowner
"""
READ_COLUMNS = """
    SELECT attname::text, coalesce(attnum = ANY(indkey), false)
    FROM pg_attribute LEFT JOIN pg_index ON indrelid = attrelid AND indisprimary
    WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
READ_TABLE_OF = "SELECT tablename FROM pg_indexes WHERE schemaname = $1 AND indexname = $2"
SWITCHED = "UPDATE checkpoint SET views = $1, rebuilds = rebuilds + 1"


class PostgresBeside:
    dialect = "postgres"

    def __init__(self, url: str, projection_name: str, pool: PostgresPool) -> None:
        self._url, self._projection_name, self._pool = url, projection_name, pool
        self._old, self._new = pool.schema, _new_schema(projection_name)
        self.what, self.new_what = f"the schema {self._old}", f"the schema {self._new}"
        self._held: tuple[Connection, Transaction] | None = None

    async def in_use(self) -> InUse:
        async with self._pool.connection() as connection:
            return await _in_use(connection)

    async def open_new(self, views: Collection[str]) -> ViewStore:
        return await PostgresViewStore.open(self._url, self._projection_name, views, f"{NEW_PREFIX}_")

    async def remove_new(self) -> None:
        async with self._pool.connection() as connection:
            await connection.execute(f'DROP SCHEMA IF EXISTS "{self._new}" CASCADE')

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[InUse]:
        async with self._pool.connection() as connection:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(HOLD)
            self._held = connection, transaction
            try:
                yield await _in_use(connection)
                if self._held is not None:
                    await transaction.rollback()
            finally:
                self._held = None

    @asynccontextmanager
    async def both(self) -> AsyncIterator[Both]:
        async with (
            self._pool.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            await connection.execute(
                f"SET LOCAL statement_timeout = '{BOTH_SECONDS}s'; "
                f"SET LOCAL idle_in_transaction_session_timeout = '{BOTH_SECONDS}s'; "
                f'SET LOCAL search_path = "{self._new}", "{self._old}"; SELECT position FROM checkpoint'
            )
            yield _Both(connection, self._old, self._new)

    async def switch(self, views: Sequence[str], kept: str) -> None:
        assert self._held is not None
        connection, transaction = self._held
        try:
            await self._switch(connection, views, kept)
        except asyncpg.LockNotAvailableError as error:
            raise QueriesInTheWay(f"queries have kept the tables of {self.what} for {QUERIES_SECONDS} s.") from error
        except asyncpg.DependentObjectsStillExistError as error:
            raise LedgerError(
                f"something that is not ours is built on the views in {self.what}: {error}. Drop it, and make it again "
                "on the new tables."
            ) from error
        self._held = None
        await transaction.commit()

    async def _switch(self, connection: "Connection", views: Sequence[str], kept: str) -> None:
        tables = [name for view in views for kind, name in parts(view) if kind == "TABLE"]
        for view in views:
            if not await self._moves(connection, view, tables):
                await self._make_in_place(connection, view)
        await connection.execute(TAKE_TABLES)
        grants = await connection.fetch(READ_GRANTS, self._old, tables)
        for view in reversed(views):
            for kind, name in parts(view):
                if kind == "TABLE":
                    await connection.execute(f"DROP TABLE IF EXISTS {name}")
        for table in tables:
            await connection.execute(f'ALTER TABLE "{self._new}".{table} SET SCHEMA "{self._old}"')
        for (grant,) in grants:
            await connection.execute(grant)
        await connection.execute(SWITCHED, kept)
        await connection.execute(f'DROP SCHEMA "{self._new}" CASCADE')

    async def _moves(self, connection: "Connection", view: str, tables: Sequence[str]) -> bool:
        """A view that is only indexes on the tables of others moves with them, if they do."""
        on = [
            await connection.fetchval(READ_TABLE_OF, self._new, name) for kind, name in parts(view) if kind == "INDEX"
        ]
        return not on or set(on) <= set(tables)

    async def _make_in_place(self, connection: "Connection", view: str) -> None:
        """Before queries have to wait."""
        await connection.execute(f"SET LOCAL statement_timeout = '{MIGRATION_SECONDS}s'")
        for kind, name in parts(view):
            await connection.execute(f"DROP {kind} IF EXISTS {name}")
        for script in view_migrations(view, self.dialect).values():
            await connection.execute(script, timeout=MIGRATION_SECONDS)


class _Both:
    """The search path has the new schema first."""

    def __init__(self, connection: "Connection", old: str, new: str) -> None:
        self._connection = connection
        self.old, self.new = f'"{old}".', f'"{new}".'

    async def rows(self, sql: str) -> Sequence[Sequence[Any]]:
        return [tuple(row) for row in await self._connection.fetch(sql, timeout=BOTH_SECONDS)]

    async def columns(self, table: str) -> tuple[list[str], list[str]]:
        found = await self._connection.fetch(READ_COLUMNS, f"{self.new}{table}")
        return [name for name, is_key in found if is_key], [name for name, is_key in found if not is_key]

    def unlike(self, column: str) -> str:
        # JSON has no equality, and is to be the same to the byte.
        return f"o.{column}::text IS DISTINCT FROM n.{column}::text"


@asynccontextmanager
async def open_postgres(url: str, projection_name: str) -> AsyncIterator[PostgresBeside]:
    """The views of the projection in the database at `url`. Raises `NoViews`, `RebuildUnderWay`, and as
    `PostgresPool.open` and `migrate`."""
    pool = PostgresPool(url, f"{SCHEMA_PREFIX}{projection_name}", CONNECTIONS_MAX)
    await pool.open()
    try:
        # Where its session ends, another one may begin: the checkpoint of the new views keeps both from doing harm.
        async with pool.connection() as turn:
            try:
                await turn.execute(TAKE_TURN, f"building {_new_schema(projection_name)}")
            except asyncpg.LockNotAvailableError as error:
                raise RebuildUnderWay(
                    f"another process is building the schema {_new_schema(projection_name)} already. Wait for its end, "
                    "or stop it."
                ) from error
            if await turn.fetchval("SELECT to_regclass('checkpoint')") is None:
                raise NoViews(f"the schema {pool.schema}")
            async with pool.connection() as connection, connection.transaction():
                await migrate(connection, pool.schema, "projection_service.view_store")
            beside = PostgresBeside(url, projection_name, pool)
            if (await beside.in_use()).views == NO_VIEWS:
                raise NoViews(beside.what)
            yield beside
    finally:
        await pool.close()


def _new_schema(projection_name: str) -> str:
    return f"{NEW_PREFIX}_{projection_name}"


async def _in_use(connection: "Connection") -> InUse:
    *checkpoint, views = one_row(await connection.fetch(READ_CHECKPOINT))
    return InUse(Checkpoint(*checkpoint), views)
