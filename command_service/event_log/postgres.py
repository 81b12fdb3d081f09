"""The event log in PostgreSQL, for any number of command services."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import asyncpg
import uuid_utils

from command_service.event_log import (
    CLERK_LEASE_SECONDS,
    LEASE_SECONDS,
    NO_HOLDS,
    Answer,
    Append,
    DueHold,
    KeptAnswer,
    Lease,
    LeaseLost,
)
from command_service.event_log.runs import PackedPage, Page, Run, cut, page
from command_service.ledger.account import Hold
from command_service.ledger.states import HoldKey, State
from shared.chain import START, ChainAt
from shared.errors import CorruptStore, OutcomeUnknown
from shared.events import AccountId, HoldId, Position, Version
from shared.platform.postgres import DATABASE_ERRORS, PostgresPool, migrate, reason
from shared.witness import new_key

if TYPE_CHECKING:
    from shared.platform.postgres import Connection

SCHEMA = "ledger"
READ_CONNECTIONS_MAX = 4
RUNS_FIRST = 12
"""Of full runs, so many are a page. Of short ones a page takes more: twice as many are asked for each time."""
CHECK_ROWS = 1_000
LEASE = timedelta(seconds=LEASE_SECONDS)
CLERK_LEASE = timedelta(seconds=CLERK_LEASE_SECONDS)

READ_LEDGER = 'SELECT source, "key", position, chain FROM ledger'
READ_HEAD = "SELECT position FROM ledger"
READ_END = 'SELECT position, chain, "time" FROM ledger'
READ_LAST_RUN = "SELECT position, chain FROM runs ORDER BY position DESC LIMIT 1"
CREATE_LEDGER = """INSERT INTO ledger (source, "key", position, chain, "time") VALUES ($1, $2, 0, $3, '')"""

BEGIN_APPEND = "BEGIN; SELECT position FROM ledger FOR UPDATE"
READ_HEAD_AND_STATES = """
    SELECT NULL AS account_id, position AS version, chain AS state, "time" FROM ledger
    UNION ALL SELECT account_id, version, state, NULL FROM states WHERE account_id = ANY($1)
"""
READ_ANSWERS = """
    SELECT idempotency_key, fingerprint, digest FROM answers WHERE idempotency_key = ANY($1)
"""
READ_OUTCOMES = """
    SELECT idempotency_key, convert_to(outcomes, 'UTF8') FROM answers WHERE idempotency_key = ANY($1)
"""
# Hold by hold: else a plan that was made while there were few would go through all of them.
READ_HOLDS = """
    SELECT hold.* FROM unnest($1::text[], $2::text[]) AS asked (account_id, hold_id) CROSS JOIN LATERAL (
        SELECT account_id, hold_id, amount, expires_at FROM holds
        WHERE account_id = asked.account_id AND hold_id = asked.hold_id OFFSET 0
    ) AS hold
"""
# In a statement of its own: most batches have none.
WRITE_HOLDS = """
    WITH ended AS (
        DELETE FROM holds USING unnest($1::text[], $2::text[]) AS gone (account_id, hold_id)
        WHERE holds.account_id = gone.account_id AND holds.hold_id = gone.hold_id
    )
    INSERT INTO holds (account_id, hold_id, amount, expires_at)
    SELECT * FROM unnest($3::text[], $4::text[], $5::bigint[], $6::text[])
    ON CONFLICT (account_id, hold_id) DO UPDATE SET amount = excluded.amount, expires_at = excluded.expires_at
"""
# `unnest` and not COPY, which takes more rows a second from 1000 rows on: a process that stops in the middle
# of a COPY would hold the lock for as long as it lives, since no time-out ends a COPY that waits for its client.
WRITE = """
    WITH head AS (UPDATE ledger SET position = $1, chain = $2, "time" = $3),
    added AS (
        INSERT INTO runs (position, chain, events)
        SELECT position, chain, convert_from(events, 'UTF8')
        FROM unnest($4::bigint[], $5::bytea[], $6::bytea[]) AS run (position, chain, events)
    ),
    put AS (
        INSERT INTO states (account_id, version, state)
        SELECT * FROM unnest($7::text[], $8::bigint[], $9::bytea[])
        ON CONFLICT (account_id) DO UPDATE SET version = excluded.version, state = excluded.state
    )
    INSERT INTO answers (idempotency_key, fingerprint, outcomes, digest)
    SELECT key, fingerprint, convert_from(outcomes, 'UTF8'), digest
    FROM unnest($10::text[], $11::bytea[], $12::bytea[], $13::bytea[]) AS answer (key, fingerprint, outcomes, digest)
"""

# With the run before them, for its chain alone.
READ_RUNS = """
    SELECT
        position, chain, CASE WHEN position > $1 THEN convert_to(events, 'UTF8') END,
        (SELECT position FROM ledger) AS head
    FROM runs
    WHERE position >= (SELECT coalesce(max(position), 0) FROM runs WHERE position <= $1) ORDER BY position LIMIT $2
"""
READ_FIRST_EXPIRY = "SELECT expires_at FROM holds WHERE expires_at IS NOT NULL ORDER BY expires_at LIMIT 1"
# After the last page: else each would go through those that the ones before it have ended, until a VACUUM.
READ_DUE_HOLDS = """
    SELECT expires_at, account_id, hold_id FROM holds
    WHERE (expires_at, account_id, hold_id) > ($1, $2, $3) AND expires_at <= $4
    ORDER BY expires_at, account_id, hold_id LIMIT $5
"""
CHECK_HOLDS = """
    SELECT account_id, hold_id, amount, expires_at FROM holds
    WHERE (account_id, hold_id) > ($1, $2) ORDER BY account_id, hold_id LIMIT $3
"""
CHECK_STATES = "SELECT account_id, version, state FROM states WHERE account_id > $1 ORDER BY account_id LIMIT $2"
CHECK_ANSWERS = """
    SELECT idempotency_key, fingerprint, convert_to(outcomes, 'UTF8'), digest FROM answers
    WHERE idempotency_key > $1 ORDER BY idempotency_key LIMIT $2
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
# Without a token: a clerk that has lost it writes nothing that is not decided under the head's lock.
LEAD_CLERK = """
    UPDATE clerk SET holder = $1, leased_until = clock_timestamp() + $2
    WHERE holder = $1 OR leased_until < clock_timestamp() OR leased_until > clock_timestamp() + $2
    RETURNING holder
"""
END_CLERK_LEASE = "UPDATE clerk SET leased_until = '-infinity' WHERE holder = $1"


class PostgresEventLog:
    """Appends through one connection and reads through others, so that readers never hold up an append."""

    def __init__(
        self, source: str, key: bytes, writer: PostgresPool, reader: PostgresPool, resources: AsyncExitStack
    ) -> None:
        self.source = source
        self.key = key
        self._writer = writer
        self._reader = reader
        self._resources = resources

    @classmethod
    async def open(cls, url: str) -> "PostgresEventLog":
        """Open the log in the database at `url`, making it when it is not there.

        Raises `StoreUnavailable` when the database can't be reached, `CorruptStore` when the log can't be trusted.
        """
        writer, reader = PostgresPool(url, SCHEMA, 1), PostgresPool(url, SCHEMA, READ_CONNECTIONS_MAX)
        async with AsyncExitStack() as resources:
            await writer.open()
            resources.push_async_callback(writer.close)
            async with writer.connection() as connection, connection.transaction():
                source, key = await _prepare(connection)
            await reader.open()
            resources.push_async_callback(reader.close)
            return cls(source, key, writer, reader, resources.pop_all())

    @asynccontextmanager
    async def append(
        self, account_ids: Collection[AccountId], keys: Collection[str], holds: Collection[HoldKey] = ()
    ) -> AsyncIterator[Append]:
        async with self._writer.connection() as connection:
            await connection.execute(BEGIN_APPEND)
            # Statements of their own: each sees what had been committed when it began, after the lock was ours.
            # https://www.postgresql.org/docs/current/transaction-iso.html#XACT-READ-COMMITTED
            rows = await connection.fetch(READ_HEAD_AND_STATES, list(account_ids))
            answers = await connection.fetch(READ_ANSWERS, list(keys)) if keys else []
            open_holds = await connection.fetch(READ_HOLDS, *_columns(holds)) if holds else []
            append = _PostgresAppend(connection, rows, answers, open_holds)
            yield append
            if not append.ended:
                await connection.execute("ROLLBACK")

    async def head(self) -> Position:
        async with self._reader.connection() as connection:
            return Position(await connection.fetchval(READ_HEAD))

    async def read(self, after: Position, events_max: int, bytes_max: int) -> Page:
        runs: list[Run] = []
        async with self._reader.connection() as connection:
            begin, found, head = await _read_runs(connection, after, rows_max := RUNS_FIRST)
            runs += found
            # What is before `after` in the first of them does not count.
            while len(found) >= rows_max - 1 and not _is_enough(runs, events_max + after - begin.position, bytes_max):
                _, found, head = await _read_runs(connection, runs[-1].position, rows_max := 2 * rows_max)
                runs += found
        return Page(*page(begin, runs, after, events_max, bytes_max), head)

    async def read_packed(self, after: Position, events_max: int, bytes_max: int) -> PackedPage | None:  # noqa: ARG002
        """None, always: the server keeps them compressed, and gives them as text."""
        return None

    async def first_expiry(self) -> str | None:
        async with self._reader.connection() as connection:
            expires_at: str | None = await connection.fetchval(READ_FIRST_EXPIRY)
        return expires_at

    async def due_holds(self, after: DueHold, time: str, holds_max: int) -> Sequence[DueHold]:
        async with self._reader.connection() as connection:
            rows = await connection.fetch(READ_DUE_HOLDS, *after, time, holds_max)
        return [(expires_at, AccountId(account_id), HoldId(hold_id)) for expires_at, account_id, hold_id in rows]

    async def lead_clerk(self, holder: str) -> bool:
        async with self._reader.connection() as connection:
            return await connection.fetchval(LEAD_CLERK, holder, CLERK_LEASE) is not None

    async def end_clerk_lease(self, holder: str) -> None:
        async with self._reader.connection() as connection:
            await connection.execute(END_CLERK_LEASE, holder)

    async def check(self) -> None:
        """Nothing: the server's data checksums, pg_checksums and pg_amcheck do that.

        https://www.postgresql.org/docs/current/checksums.html
        """

    async def end(self) -> tuple[ChainAt, str]:
        async with self._reader.connection() as connection:
            position, chain, time = await connection.fetchrow(READ_END)  # type: ignore[misc]
        return ChainAt(Position(position), chain), time

    async def runs(self, after: Position) -> Sequence[Run]:
        async with self._reader.connection() as connection:
            _, runs, _ = await _read_runs(connection, after, RUNS_FIRST)
        return runs

    async def states_position(self) -> Position:
        return await self.head()

    async def states(self, after: AccountId) -> Sequence[tuple[AccountId, State]]:
        async with self._reader.connection() as connection:
            rows = await connection.fetch(CHECK_STATES, after, CHECK_ROWS)
        return [(AccountId(account_id), State(Version(version), state)) for account_id, version, state in rows]

    async def holds(self, after: HoldKey | None) -> Sequence[tuple[HoldKey, Hold]]:
        async with self._reader.connection() as connection:
            return _holds(await connection.fetch(CHECK_HOLDS, *(after or ("", "")), CHECK_ROWS))

    async def answers(self, after: str) -> Sequence[tuple[str, Answer, bytes]]:
        async with self._reader.connection() as connection:
            rows = await connection.fetch(CHECK_ANSWERS, after, CHECK_ROWS)
        return [(key, Answer(fingerprint, outcomes), digest) for key, fingerprint, outcomes, digest in rows]

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
        self,
        connection: "Connection",
        rows: Sequence[asyncpg.Record],
        answers: Sequence[asyncpg.Record],
        holds: Sequence[asyncpg.Record],
    ) -> None:
        self._connection = connection
        (_, position, chain, self.time), *states = rows
        self.head = ChainAt(Position(position), chain)
        self.states: Mapping[AccountId, State] = {
            AccountId(account_id): State(Version(version), state) for account_id, version, state, _ in states
        }
        self.answers: Mapping[str, KeptAnswer] = {
            key: KeptAnswer(fingerprint, digest) for key, fingerprint, digest in answers
        }
        self.holds: Mapping[HoldKey, Hold] = dict(_holds(holds))
        self.ended = False

    async def outcomes(self, keys: Collection[str]) -> Mapping[str, bytes]:
        rows = await self._connection.fetch(READ_OUTCOMES, list(keys))
        return dict(map(tuple, rows))

    async def commit(
        self,
        events: Sequence[bytes],
        time: str,
        states: Mapping[AccountId, State],
        answers: Mapping[str, Answer],
        holds: Mapping[HoldKey, Hold | None] = NO_HOLDS,
    ) -> None:
        runs = cut(self.head, events)
        end = runs[-1] if runs else self.head
        try:
            if holds:
                still_open = [(*key, hold.amount, hold.expires_at) for key, hold in holds.items() if hold is not None]
                await self._connection.execute(
                    WRITE_HOLDS,
                    *_columns([key for key, hold in holds.items() if hold is None]),
                    *([row[column] for row in still_open] for column in range(4)),
                )
            await self._connection.execute(
                WRITE,
                end.position,
                end.chain,
                time,
                [run.position for run in runs],
                [run.chain for run in runs],
                [b"\n".join(run.events) for run in runs],
                list(states),
                [state.version for state in states.values()],
                [state.account for state in states.values()],
                list(answers),
                [answer.fingerprint for answer in answers.values()],
                [answer.outcomes for answer in answers.values()],
                [answer.digest(key) for key, answer in answers.items()],
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


async def _prepare(connection: "Connection") -> tuple[str, bytes]:
    await migrate(connection, SCHEMA, "command_service.event_log")
    if await connection.fetchrow(READ_LEDGER) is None:
        await connection.execute(CREATE_LEDGER, f"/ledgers/{uuid_utils.uuid7()}", new_key(), START.chain)
    await connection.execute("SELECT 1 FROM ledger FOR UPDATE")
    source, key, position, chain = await connection.fetchrow(READ_LEDGER)  # type: ignore[misc]
    last = tuple(await connection.fetchrow(READ_LAST_RUN) or (START.position, START.chain))
    published = await connection.fetchval(READ_PUBLISHED)
    if published is None or not ((position, chain) == last and 0 <= published <= position):
        raise CorruptStore(
            f"the schema {SCHEMA}: the head is {position}, the last event {last[0]} or one of another chain, and "
            f"{published} are published. Nothing was written to it; put a good copy in its place."
        )
    return str(source), key


async def _read_runs(connection: "Connection", after: Position, rows_max: int) -> tuple[ChainAt, list[Run], Position]:
    """The run with the event that follows `after` and those that follow it; where the first of them begins, and where
    the log ends: of one moment."""
    rows = await connection.fetch(READ_RUNS, after, rows_max)
    begin, head = START, Position(rows[-1][3]) if rows else START.position
    if rows and rows[0][2] is None:
        (position, chain, *_), *rows = rows
        begin = ChainAt(Position(position), chain)
    return begin, [Run(Position(position), chain, events.split(b"\n")) for position, chain, events, _ in rows], head


def _columns(keys: Collection[HoldKey]) -> tuple[list[AccountId], list[HoldId]]:
    return [account_id for account_id, _ in keys], [hold_id for _, hold_id in keys]


def _holds(rows: Sequence[asyncpg.Record]) -> list[tuple[HoldKey, Hold]]:
    return [
        ((AccountId(account_id), HoldId(hold_id)), Hold(amount, expires_at))
        for account_id, hold_id, amount, expires_at in rows
    ]


def _is_enough(runs: Sequence[Run], events_max: int, bytes_max: int) -> bool:
    return (
        sum(len(run.events) for run in runs) > events_max or sum(sum(map(len, run.events)) for run in runs) > bytes_max
    )
