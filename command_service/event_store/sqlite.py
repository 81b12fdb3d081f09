"""The event store in one SQLite file, for one command service at a time."""

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import IO, Any

import msgspec
import uuid_utils

from command_service.account import Account
from command_service.event_store import Answer, Append, Lease, NewEvent, Stream
from shared.events import AccountId, Position, Version
from shared.problems import CorruptStore, OutcomeUnknown, StoreUnavailable
from shared.sqlite import SqliteThread, migrate, roll_back_leftover

PART_EVENTS = 32
"""So many positions of an account are put away together; also a number in the schema."""

READ_LEDGER = "SELECT source, position, published FROM ledger"
READ_LAST_POSITION = "SELECT coalesce(max(position), 0) FROM events"
READ_STREAMS = """
    SELECT account_id, version, name, balance, positions FROM streams
    WHERE account_id IN (SELECT value FROM json_each(?))
"""
READ_ANSWERS = """
    SELECT idempotency_key, fingerprint, outcomes FROM answers
    WHERE idempotency_key IN (SELECT value FROM json_each(?))
"""
READ_EVENTS = "SELECT event FROM events WHERE position > ? ORDER BY position LIMIT ?"
READ_STREAM = f"""
    WITH parts AS (
        SELECT positions FROM (
            SELECT positions FROM stream_parts WHERE account_id = ?1 AND part >= ?2 / {PART_EVENTS}
            ORDER BY part LIMIT ?3 / {PART_EVENTS} + 2
        )
        UNION ALL
        SELECT positions FROM streams WHERE account_id = ?1 AND version >= ?2
    )
    SELECT event FROM events WHERE position IN (
        SELECT value FROM parts, json_each('[' || positions || ']') ORDER BY value LIMIT ?3 OFFSET ?2 % {PART_EVENTS}
    )
    ORDER BY position
"""

CREATE_LEDGER = "INSERT INTO ledger (one, source, position, published) VALUES (1, ?, 0, 0)"
MOVE_HEAD = "UPDATE ledger SET position = ?"
MOVE_PUBLISHED = "UPDATE ledger SET published = ?"
ADD_EVENT = "INSERT INTO events (position, event) VALUES (?, ?)"
ADD_PART = "INSERT INTO stream_parts (account_id, part, positions) VALUES (?, ?, ?)"
PUT_STREAM = """
    INSERT INTO streams (account_id, version, name, balance, positions) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (account_id) DO UPDATE
    SET version = excluded.version, name = excluded.name, balance = excluded.balance, positions = excluded.positions
"""
ADD_ANSWER = "INSERT INTO answers (idempotency_key, fingerprint, outcomes) VALUES (?, ?, ?)"

Ends = dict[AccountId, tuple[int, str]]
"""Of each stream, the last version and the positions since its last full part."""
NO_END = (0, "")


class _Tail:
    """The last transaction's events. The relay and the followers of the feed want them at once: no trip for that."""

    def __init__(self) -> None:
        self.head = Position(0)
        self.events: Sequence[NewEvent] = []

    def read(self, after: Position, events_max: int, bytes_max: int) -> list[bytes]:
        first = after - self.head
        return _page((event.event.encode() for event in self.events[first : first + events_max]), bytes_max)

    def has(self, position: int) -> bool:
        return self.head < position <= self.head + len(self.events)


class SqliteEventStore:
    """Appends through one connection and reads through another, so that readers never hold up an append.

    Of an append only the COMMIT, which waits for the disk, goes to another thread. The statements before it take
    some µs each: less than to hand them over, and to fight for the interpreter's lock at every row.
    """

    def __init__(self, source: str, writer: SqliteThread, reader: SqliteThread, resources: AsyncExitStack) -> None:
        self.source = source
        self._resources = resources
        self._appending = asyncio.Lock()
        self._writer = writer
        self._reader = reader
        self._tail = _Tail()

    @classmethod
    async def open(cls, path: Path) -> "SqliteEventStore":
        """Open the log at `path`, making it when it is not there.

        Raises `StoreUnavailable` while another process has it open, `CorruptStore` when it can't be trusted.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        writer, reader = SqliteThread(path), SqliteThread(path, text_factory=bytes)
        async with AsyncExitStack() as resources:
            resources.enter_context(_lock(path))
            await writer.open()
            resources.push_async_callback(writer.close)
            source = await writer.run(_prepare, path)
            await reader.open()
            resources.push_async_callback(reader.close)
            return cls(source, writer, reader, resources.pop_all())

    @asynccontextmanager
    async def append(self, account_ids: Collection[AccountId], keys: Collection[str]) -> AsyncIterator[Append]:
        async with self._appending:
            connection = self._writer.connection
            try:
                yield connection.run(_begin, self._writer, self._tail, account_ids, keys)
            finally:
                connection.run(roll_back_leftover)

    async def head(self) -> Position:
        return Position((await self._reader.run(_row, READ_LEDGER))[1])

    async def read(self, after: Position, events_max: int, bytes_max: int) -> list[bytes]:
        if self._tail.has(after + 1):
            return self._tail.read(after, events_max, bytes_max)
        return await self._reader.run(_read_page, READ_EVENTS, (after, events_max), bytes_max)

    async def read_stream(self, account_id: AccountId, after: Version, events_max: int, bytes_max: int) -> list[bytes]:
        return await self._reader.run(_read_page, READ_STREAM, (account_id, after, events_max), bytes_max)

    async def acquire_lease(self) -> Lease | None:
        """Always: no other process has the file open."""
        return Lease(0, Position((await self._reader.run(_row, READ_LEDGER))[2]))

    async def save_published(self, lease: Lease, position: Position) -> None:  # noqa: ARG002
        async with self._appending:
            await self._writer.run(_save_published, position)

    async def end_lease(self, lease: Lease, position: Position) -> None:
        await self.save_published(lease, position)

    async def close(self) -> None:
        await self._resources.aclose()


class _SqliteAppend:
    def __init__(
        self,
        writer: SqliteThread,
        tail: _Tail,
        head: Position,
        streams: Mapping[AccountId, Stream],
        ends: Ends,
        answers: Mapping[str, Answer],
    ) -> None:
        self._writer = writer
        self._tail = tail
        self.head = head
        self.streams = streams
        self._ends = ends
        self.answers = answers

    async def commit(
        self,
        events: Sequence[NewEvent],
        streams: Mapping[AccountId, Stream],
        answers: Mapping[str, Answer],
    ) -> None:
        self._writer.connection.run(_write, self.head, events, streams, self._ends, answers)
        await self._writer.run(_commit)
        self._tail.head, self._tail.events = self.head, events


def _lock(path: Path) -> IO[str]:
    """Hold a lock on a file beside the database until this process ends, however it ends."""
    lock = path.with_suffix(".lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with lock:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
        raise StoreUnavailable(
            f"{path} is open in another command service (process {owner}). "
            "One file takes one command service: stop that one, or set DATA_DIR to another folder."
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _prepare(connection: sqlite3.Connection, path: Path) -> str:
    migrate(connection, "command_service.event_store")
    if connection.execute(READ_LEDGER).fetchone() is None:
        connection.execute(CREATE_LEDGER, (f"/ledgers/{uuid_utils.uuid7()}",))
    source, head, published = _row(connection, READ_LEDGER)
    (last,) = _row(connection, READ_LAST_POSITION)
    if not published <= head == last:
        raise CorruptStore(
            f"{path}: the head is {head}, the last event {last}, and {published} are published. "
            "Nothing was written to it; put a good copy in its place."
        )
    return str(source)


def _begin(
    connection: sqlite3.Connection,
    writer: SqliteThread,
    tail: _Tail,
    account_ids: Collection[AccountId],
    keys: Collection[str],
) -> _SqliteAppend:
    connection.execute("BEGIN IMMEDIATE")
    _, head, _ = _row(connection, READ_LEDGER)
    streams: dict[AccountId, Stream] = {}
    ends: Ends = {}
    for account_id, version, name, balance, positions in connection.execute(READ_STREAMS, (_json(account_ids),)):
        streams[account_id] = Stream(version, None if name is None else Account(name, balance))
        ends[account_id] = version, positions
    answers = {
        key: Answer(fingerprint, outcomes)
        for key, fingerprint, outcomes in (connection.execute(READ_ANSWERS, (_json(keys),)) if keys else ())
    }
    return _SqliteAppend(writer, tail, Position(head), streams, ends, answers)


def _write(
    connection: sqlite3.Connection,
    head: Position,
    events: Sequence[NewEvent],
    streams: Mapping[AccountId, Stream],
    ends: Ends,
    answers: Mapping[str, Answer],
) -> None:
    parts: list[tuple[AccountId, int, str]] = []
    for event in events:
        position, account_id, version = event.position, event.account_id, event.version
        last, before = ends.get(account_id, NO_END)
        if version != last + 1:
            raise StoreUnavailable(f"version {version} of {account_id!r} does not follow version {last}.")
        together = f"{before},{position}" if before else str(position)
        if version % PART_EVENTS == 0:
            parts.append((account_id, version // PART_EVENTS - 1, together))
            together = ""
        ends[account_id] = version, together
    connection.execute(MOVE_HEAD, (head + len(events),))
    connection.executemany(ADD_EVENT, [(event.position, event.event) for event in events])
    connection.executemany(ADD_PART, parts)
    connection.executemany(
        PUT_STREAM,
        [
            (
                account_id,
                stream.version,
                stream.account and stream.account.name,
                stream.account and stream.account.balance,
                ends.get(account_id, NO_END)[1],
            )
            for account_id, stream in streams.items()
        ],
    )
    connection.executemany(ADD_ANSWER, [(key, answer.fingerprint, answer.outcomes) for key, answer in answers.items()])


def _commit(connection: sqlite3.Connection) -> None:
    try:
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        # A full disk or a lock is found before the commit record is written; any other failure
        # (an fsync, say) may come after it, and a restart would then find the transaction done.
        if error.sqlite_errorname in ("SQLITE_FULL", "SQLITE_BUSY"):
            raise
        raise OutcomeUnknown(f"the commit failed: {error}. Retry with the same Idempotency-Key.") from error


def _save_published(connection: sqlite3.Connection, position: Position) -> None:
    connection.execute(MOVE_PUBLISHED, (position,))


def _read_page(
    connection: sqlite3.Connection, statement: str, parameters: tuple[object, ...], bytes_max: int
) -> list[bytes]:
    return _page((event for (event,) in connection.execute(statement, parameters)), bytes_max)


def _page(events: Iterable[bytes], bytes_max: int) -> list[bytes]:
    page: list[bytes] = []
    for event in events:
        bytes_max -= len(event)
        if page and bytes_max < 0:
            break
        page.append(event)
    return page


def _row(connection: sqlite3.Connection, statement: str) -> tuple[Any, ...]:
    row: tuple[Any, ...] = connection.execute(statement).fetchone()
    return row


def _json(values: Collection[str]) -> str:
    return msgspec.json.encode(list(values)).decode()
