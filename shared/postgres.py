"""PostgreSQL for asyncio: pooled connections that fail early instead of waiting, and numbered migrations."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import asyncpg

from shared.migrations import migration_scripts
from shared.problems import CorruptStore, LedgerError, StoreUnavailable

if TYPE_CHECKING:
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]

CONNECT_SECONDS = 5
CLOSE_SECONDS = 5
LOCK_SECONDS = 5
STATEMENT_SECONDS = 10
IDLE_IN_TRANSACTION_SECONDS = 3
"""A process that stops with the lock on the head in its hands loses it after this long, and its transaction."""
ANSWER_SECONDS = STATEMENT_SECONDS + 2
"""For a server that has fallen silent: it ends its own statements before."""
MIGRATION_SECONDS = 600

DATABASE_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection of which only one direction was closed
    OSError,
    TimeoutError,
)
"""What a database that is down, cut off or unwilling looks like from here."""


class PostgresPool:
    """Connections that work in one schema.

    A connection on which anything failed is thrown away: the server rolls back what was not committed.
    """

    def __init__(self, url: str, schema: str, connections_max: int) -> None:
        self.schema = schema
        # https://www.postgresql.org/docs/current/runtime-config-client.html
        settings = {
            "application_name": f"counting-house {schema}",
            "search_path": f'"{schema}"',
            "default_transaction_isolation": "read committed",
            # A commit returns when it is on disk, whatever the server's default is.
            "synchronous_commit": "on",
            "lock_timeout": f"{LOCK_SECONDS}s",
            "statement_timeout": f"{STATEMENT_SECONDS}s",
            "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_SECONDS}s",
        }
        self._pool = asyncpg.create_pool(
            url,
            min_size=0,
            max_size=connections_max,
            timeout=CONNECT_SECONDS,
            command_timeout=ANSWER_SECONDS,
            server_settings=settings,
            reset=_keep_session,
        )

    async def open(self) -> None:
        """Raises `StoreUnavailable` when the server can't be reached or refuses us."""
        await self._pool
        async with self.connection():
            pass

    @asynccontextmanager
    async def connection(self) -> AsyncIterator["Connection"]:
        """Raises `CorruptStore` or `StoreUnavailable` in place of PostgreSQL's own errors."""
        try:
            async with self._pool.acquire(timeout=CONNECT_SECONDS) as connection:
                try:
                    yield connection
                except BaseException:
                    # A lost connection has left the pool already, and says so: that must not hide what failed.
                    with suppress(asyncpg.InterfaceError):
                        connection.terminate()
                    raise
        except DATABASE_ERRORS as error:
            raise _problem(error) from error

    async def close(self) -> None:
        try:
            await asyncio.wait_for(self._pool.close(), CLOSE_SECONDS)
        except DATABASE_ERRORS:
            self._pool.terminate()


async def _keep_session(connection: object) -> None:
    """Nobody changes a session's settings here, so that there is nothing to reset: a round trip less each time."""


def _problem(error: Exception) -> LedgerError:
    if isinstance(error, (asyncpg.DataCorruptedError, asyncpg.IndexCorruptedError)):
        return CorruptStore(f"PostgreSQL: {error}.")
    return StoreUnavailable(f"PostgreSQL: {reason(error)}.")


def reason(error: Exception) -> str:
    """What happened, for people: some of these errors have no words of their own."""
    return str(error) or ("no answer in time" if isinstance(error, TimeoutError) else repr(error))


async def migrate(connection: "Connection", schema: str, package: str) -> None:
    """Bring `schema` up to date with `package`'s numbered `*.postgres.sql` files. Takes place in a transaction of
    the caller, whose lock makes others that start at the same time wait.

    Raises `CorruptStore` when the schema was written by a later program than this one.
    """
    migrations = migration_scripts(package, "postgres")
    await connection.execute(
        f"SET LOCAL lock_timeout = '{MIGRATION_SECONDS}s'; SET LOCAL statement_timeout = '{MIGRATION_SECONDS}s'"
    )
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", schema, timeout=MIGRATION_SECONDS)
    if await connection.fetchval("SHOW server_encoding") != "UTF8":
        raise CorruptStore("the database's encoding must be UTF8. Create it with: createdb --encoding UTF8")
    await connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
    await connection.execute("CREATE TABLE IF NOT EXISTS migrations (number integer PRIMARY KEY)")
    current: int = await connection.fetchval("SELECT coalesce(max(number), 0) FROM migrations")
    if current > len(migrations):
        raise CorruptStore(
            f"the schema {schema} has version {current}, newer than this program's {len(migrations)}: "
            "update the program."
        )
    for number, migration in enumerate(migrations[current:], current + 1):
        await connection.execute(migration, timeout=MIGRATION_SECONDS)
        await connection.execute("INSERT INTO migrations VALUES ($1)", number)
