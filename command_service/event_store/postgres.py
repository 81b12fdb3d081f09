"""The event store in PostgreSQL, for any number of command services."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import asyncpg
import uuid_utils

from command_service.account import Account
from command_service.event_store import LEASE_SECONDS, Answer, Append, Lease, LeaseLost, NewEvent, Stream
from shared.events import AccountId, Position, Version
from shared.postgres import DATABASE_ERRORS, PostgresPool, migrate, reason
from shared.problems import CorruptStore, OutcomeUnknown

if TYPE_CHECKING:
    from shared.postgres import Connection

SCHEMA = "ledger"
READ_CONNECTIONS_MAX = 4
LEASE = timedelta(seconds=LEASE_SECONDS)

READ_LEDGER = "SELECT source, position FROM ledger"
READ_LAST_POSITION = "SELECT coalesce(max(position), 0) FROM events"
CREATE_LEDGER = "INSERT INTO ledger (source, position) VALUES ($1, 0)"

BEGIN_APPEND = "BEGIN; SELECT position FROM ledger FOR UPDATE"
READ_HEAD_AND_STREAMS = """
    SELECT position, account_id, version, name, balance FROM ledger LEFT JOIN streams ON account_id = ANY($1)
"""
READ_ANSWERS = "SELECT idempotency_key, fingerprint, outcomes FROM answers WHERE idempotency_key = ANY($1)"
# `unnest` and not COPY, which takes more rows a second from 1000 rows on: a process that stops in the middle
# of a COPY would hold the lock for as long as it lives, since no time-out ends a COPY that waits for its client.
WRITE = """
    WITH head AS (UPDATE ledger SET position = $1),
    added AS (
        INSERT INTO events (position, account_id, version, event)
        SELECT * FROM unnest($2::bigint[], $3::text[], $4::bigint[], $5::text[])
    ),
    put AS (
        INSERT INTO streams (account_id, version, name, balance)
        SELECT * FROM unnest($6::text[], $7::bigint[], $8::text[], $9::bigint[])
        ON CONFLICT (account_id) DO UPDATE
        SET version = excluded.version, name = excluded.name, balance = excluded.balance
    )
    INSERT INTO answers (idempotency_key, fingerprint, outcomes)
    SELECT * FROM unnest($10::text[], $11::bytea[], $12::text[])
"""

# The sum counts the event itself: the first one is there however large it is.
READ_EVENTS = """
    SELECT event FROM (
        SELECT position, event, sum(octet_length(event)) OVER (ORDER BY position) AS bytes
        FROM (SELECT position, event FROM events WHERE position > $1 ORDER BY position LIMIT $2) AS page
    ) AS sized WHERE bytes <= $3 OR bytes = octet_length(event) ORDER BY position
"""
READ_STREAM = """
    SELECT event FROM (
        SELECT version, event, sum(octet_length(event)) OVER (ORDER BY version) AS bytes
        FROM (
            SELECT version, event FROM events WHERE account_id = $4 AND version > $1 ORDER BY version LIMIT $2
        ) AS page
    ) AS sized WHERE bytes <= $3 OR bytes = octet_length(event) ORDER BY version
"""

# The database's clock decides alone. A lease that ends later than any lease can was given before that clock
# was set back.
ACQUIRE_LEASE = """
    UPDATE relay SET token = token + 1, leased_until = clock_timestamp() + $1
    WHERE leased_until < clock_timestamp() OR leased_until > clock_timestamp() + $1
    RETURNING token, published
"""
MOVE_PUBLISHED = """
    UPDATE relay SET published = $2, leased_until = clock_timestamp() + $3 WHERE token = $1 RETURNING token
"""
READ_PUBLISHED = "SELECT published FROM relay"
END_LEASE = "UPDATE relay SET published = $2, leased_until = '-infinity' WHERE token = $1"


class PostgresEventStore:
    """Appends through one connection and reads through others, so that readers never hold up an append."""

    def __init__(self, source: str, writer: PostgresPool, reader: PostgresPool, resources: AsyncExitStack) -> None:
        self.source = source
        self._writer = writer
        self._reader = reader
        self._resources = resources

    @classmethod
    async def open(cls, url: str) -> "PostgresEventStore":
        """Open the log in the database at `url`, making it when it is not there.

        Raises `StoreUnavailable` when the database can't be reached, `CorruptStore` when the log can't be trusted.
        """
        writer, reader = PostgresPool(url, SCHEMA, 1), PostgresPool(url, SCHEMA, READ_CONNECTIONS_MAX)
        async with AsyncExitStack() as resources:
            await writer.open()
            resources.push_async_callback(writer.close)
            async with writer.connection() as connection, connection.transaction():
                source = await _prepare(connection)
            await reader.open()
            resources.push_async_callback(reader.close)
            return cls(source, writer, reader, resources.pop_all())

    @asynccontextmanager
    async def append(self, account_ids: Collection[AccountId], keys: Collection[str]) -> AsyncIterator[Append]:
        async with self._writer.connection() as connection:
            await connection.execute(BEGIN_APPEND)
            # Statements of their own: each sees what had been committed when it began, after the lock was ours.
            # https://www.postgresql.org/docs/current/transaction-iso.html#XACT-READ-COMMITTED
            rows = await connection.fetch(READ_HEAD_AND_STREAMS, list(account_ids))
            answers = await connection.fetch(READ_ANSWERS, list(keys)) if keys else []
            append = _PostgresAppend(connection, rows, answers)
            yield append
            if not append.ended:
                await connection.execute("ROLLBACK")

    async def head(self) -> Position:
        async with self._reader.connection() as connection:
            _, position = await connection.fetchrow(READ_LEDGER)  # type: ignore[misc]
        return Position(position)

    async def read(self, after: Position, events_max: int, bytes_max: int) -> list[bytes]:
        return await self._read(READ_EVENTS, after, events_max, bytes_max)

    async def read_stream(self, account_id: AccountId, after: Version, events_max: int, bytes_max: int) -> list[bytes]:
        return await self._read(READ_STREAM, after, events_max, bytes_max, account_id)

    async def _read(self, statement: str, *parameters: object) -> list[bytes]:
        async with self._reader.connection() as connection:
            rows = await connection.fetch(statement, *parameters)
        return [event.encode() for (event,) in rows]

    async def published(self) -> Position:
        async with self._reader.connection() as connection:
            return Position(await connection.fetchval(READ_PUBLISHED))

    async def acquire_lease(self) -> Lease | None:
        async with self._reader.connection() as connection:
            row = await connection.fetchrow(ACQUIRE_LEASE, LEASE)
        return None if row is None else Lease(*row)

    async def save_published(self, lease: Lease, position: Position) -> None:
        async with self._reader.connection() as connection:
            if not await connection.fetchrow(MOVE_PUBLISHED, lease.token, position, LEASE):
                raise LeaseLost("another command service publishes now.")

    async def end_lease(self, lease: Lease, position: Position) -> None:
        async with self._reader.connection() as connection:
            await connection.execute(END_LEASE, lease.token, position)

    async def close(self) -> None:
        await self._resources.aclose()


class _PostgresAppend:
    def __init__(
        self, connection: "Connection", rows: Sequence[asyncpg.Record], answers: Sequence[asyncpg.Record]
    ) -> None:
        self._connection = connection
        self.head = Position(rows[0]["position"])
        self.streams: Mapping[AccountId, Stream] = {
            AccountId(account_id): Stream(Version(version), None if name is None else Account(name, balance))
            for _, account_id, version, name, balance in rows
            if account_id is not None
        }
        self.answers: Mapping[str, Answer] = {
            key: Answer(fingerprint, outcomes) for key, fingerprint, outcomes in answers
        }
        self.ended = False

    async def commit(
        self,
        events: Sequence[NewEvent],
        streams: Mapping[AccountId, Stream],
        answers: Mapping[str, Answer],
    ) -> None:
        accounts = [stream.account for stream in streams.values()]
        try:
            await self._connection.execute(
                WRITE,
                self.head + len(events),
                [event.position for event in events],
                [event.account_id for event in events],
                [event.version for event in events],
                [event.event for event in events],
                list(streams),
                [stream.version for stream in streams.values()],
                [account and account.name for account in accounts],
                [account and account.balance for account in accounts],
                list(answers),
                [answer.fingerprint for answer in answers.values()],
                [answer.outcomes for answer in answers.values()],
            )
        except asyncpg.IntegrityConstraintViolationError as error:
            raise ValueError(str(error)) from error
        try:
            # The head was written, if only as it was: a commit that wrote nothing would wait for no standby.
            await self._connection.execute("COMMIT")
        except DATABASE_ERRORS as error:
            # The server may have done it before the connection broke.
            raise OutcomeUnknown(f"the commit failed: {reason(error)}. Retry with the same Idempotency-Key.") from error
        self.ended = True


async def _prepare(connection: "Connection") -> str:
    await migrate(connection, SCHEMA, "command_service.event_store")
    if await connection.fetchrow(READ_LEDGER) is None:
        await connection.execute(CREATE_LEDGER, f"/ledgers/{uuid_utils.uuid7()}")
    await connection.execute("SELECT 1 FROM ledger FOR UPDATE")
    source, head = await connection.fetchrow(READ_LEDGER)  # type: ignore[misc]
    last = await connection.fetchval(READ_LAST_POSITION)
    published = await connection.fetchval(READ_PUBLISHED)
    if published is None or not published <= head == last:
        raise CorruptStore(
            f"the schema {SCHEMA}: the head is {head}, the last event {last}, and {published} are published. "
            "Nothing was written to it; put a good copy in its place."
        )
    return str(source)
