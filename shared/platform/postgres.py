"""PostgreSQL for asyncio: pooled connections that fail early instead of waiting, and numbered migrations."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

import asyncpg
from asyncpg.exceptions._base import DataError as ArgumentError

from shared.errors import CorruptStore, InvalidRequest, LedgerError, StoreUnavailable
from shared.platform.migrations import migration_scripts, to_do

if TYPE_CHECKING:
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]

CONNECT_SECONDS = 5
HOST_SECONDS = 2
"""Of several hosts, each gets so long: one that has fallen silent must not take the time of the others."""
CLOSE_SECONDS = 5
LOCK_SECONDS = 4
STATEMENT_SECONDS = 5
IDLE_IN_TRANSACTION_SECONDS = 3
"""A process that stops with the lock on the head in its hands loses it after this long, and its transaction."""
ANSWER_SECONDS = STATEMENT_SECONDS + 1
"""For a server that has fallen silent: it ends its own statements before."""
MIGRATION_SECONDS = 600
NAME_CHARS_MAX = 63
"""PostgreSQL cuts off longer ones."""

MARK = "counting_house.session"
READ_MARK = f"SELECT current_setting('{MARK}', true)"
SET = "SELECT set_config(name, value, false) FROM unnest($1::text[], $2::text[]) AS asked (name, value)"
READ_SETTINGS = "SELECT name, current_setting(name) FROM unnest($1::text[]) AS asked (name)"

NOT_WANTED = asyncpg.TargetServerAttributeNotMatched
VALUE_ERRORS = (asyncpg.DataError, ArgumentError)
"""The server's word on a value, and asyncpg's."""
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

    def __init__(self, url: str, schema: str, connections_max: int, settings: Mapping[str, str] | None = None) -> None:
        """`settings` are of each session, beside those that are here for all."""
        self.schema = schema
        # https://www.postgresql.org/docs/current/runtime-config-client.html
        self._settings = {
            "application_name": f"counting-house {schema}"[:NAME_CHARS_MAX],
            "search_path": f'"{schema}"',
            "default_transaction_isolation": "read committed",
            # A commit returns when it is on disk, whatever the server's default is.
            "synchronous_commit": "on",
            "lock_timeout": f"{LOCK_SECONDS}s",
            "statement_timeout": f"{STATEMENT_SECONDS}s",
            "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_SECONDS}s",
            **(settings or {}),
        }
        hosts = len(_addresses(url))
        self._acquire_seconds = CONNECT_SECONDS if hosts == 1 else CONNECT_SECONDS + HOST_SECONDS * hosts
        self._pool = asyncpg.create_pool(
            url,
            min_size=0,
            max_size=connections_max,
            connect=_connect,
            init=self._prepare_session,
            command_timeout=ANSWER_SECONDS,
            reset=_keep_session,
        )

    async def open(self) -> None:
        """Raises `StoreUnavailable` when the server can't be reached or refuses us."""
        await self._pool
        async with self.connection():
            pass

    async def _prepare_session(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Make a new session's settings ours. Raises `CorruptStore` when it is not a session of ours alone: a pooler
        that gives it to others in between would lose the settings, and with them what is promised.

        They are set here and not when connecting, since a pooler refuses or drops what it does not know there.
        """
        if await connection.fetchval(READ_MARK):
            raise _pooled(self.schema, "an earlier client's settings were still there")
        await connection.execute(SET, [MARK, *self._settings], ["taken", *self._settings.values()])
        found = {row[0]: row[1] for row in await connection.fetch(READ_SETTINGS, list(self._settings))}
        for name, asked in self._settings.items():
            if found.get(name) != asked:
                raise _pooled(self.schema, f"{name} is {found[name]!r} where {asked!r} was asked for")

    @asynccontextmanager
    async def connection(self) -> AsyncIterator["Connection"]:
        """Raises `CorruptStore` or `StoreUnavailable` in place of PostgreSQL's own errors, and `InvalidRequest` for a
        value that it cannot hold."""
        try:
            async with self._pool.acquire(timeout=self._acquire_seconds) as connection:
                try:
                    yield connection
                except VALUE_ERRORS:
                    # The session is as good as before, if nothing was left open in it.
                    if connection.is_in_transaction():
                        connection.terminate()
                    raise
                except BaseException:
                    # A lost connection has left the pool already, and says so: that must not hide what failed.
                    with suppress(asyncpg.InterfaceError):
                        connection.terminate()
                    raise
        except VALUE_ERRORS as error:
            raise InvalidRequest([("value", f"PostgreSQL cannot hold it: {reason(error)}")]) from error
        except DATABASE_ERRORS as error:
            raise _problem(error) from error

    async def close(self) -> None:
        try:
            await asyncio.wait_for(self._pool.close(), CLOSE_SECONDS)
        except DATABASE_ERRORS:
            self._pool.terminate()


async def _connect(dsn: str | None = None, **options: Any) -> "asyncpg.Connection[asyncpg.Record]":
    """To the first host of `dsn` that answers and is what its `target_session_attrs` asks for.

    asyncpg gives all hosts together one time-out: https://github.com/MagicStack/asyncpg/issues/1155
    """
    assert dsn is not None
    hosts = _addresses(dsn)
    connect: Callable[..., Awaitable[asyncpg.Connection[asyncpg.Record]]] = asyncpg.connect
    if len(hosts) == 1:
        return await connect(dsn, timeout=CONNECT_SECONDS, **options)
    attributes = dict(parse_qsl(urlsplit(dsn).query)).get("target_session_attrs", "any")
    failure: Exception = TimeoutError()
    for wanted in ("standby", "any") if attributes == "prefer-standby" else (attributes,):
        for host, port in hosts:
            try:
                return await connect(
                    dsn, host=host, port=port, timeout=HOST_SECONDS, target_session_attrs=wanted, **options
                )
            except (OSError, TimeoutError, asyncpg.CannotConnectNowError, NOT_WANTED) as error:
                failure = type(error)(f"{host}:{port}: {reason(error)}") if isinstance(error, OSError) else error
    raise failure


def _addresses(url: str) -> list[tuple[str, int]]:
    """The hosts before the path, as in postgresql://user:password@one:5432,two:5432/database; what else says where the
    server is, asyncpg knows."""
    names = urlsplit(url).netloc.rpartition("@")[2].split(",")
    parts = [re.fullmatch(r"(\[[^]]*\]|[^:]*):?(\d*)", unquote(name)) for name in names]
    return [(part[1].strip("[]"), int(part[2] or 5432)) for part in parts if part]


def _pooled(schema: str, what: str) -> CorruptStore:
    return CorruptStore(
        f"PostgreSQL, schema {schema}: the settings of a session do not last: {what}. Nothing was written. If a pooler "
        "is in between, set its pool_mode to session and its server_reset_query to DISCARD ALL, or connect directly."
    )


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
    for number, migration in to_do(migrations, current, f"the schema {schema}").items():
        await connection.execute(migration, timeout=MIGRATION_SECONDS)
        await connection.execute("INSERT INTO migrations VALUES ($1)", number)
