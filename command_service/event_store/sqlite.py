"""The event store in one SQLite file, for one command service at a time."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import uuid_utils

from command_service.event_store import Answer, Append, Lease, NewEvent, Stream
from command_service.event_store.sqlite_streams import READ_RUNS, RecentStreams, StreamEnd, lead_back, put, read_back
from shared.data_files import DataFiles, held_lock, make_file
from shared.events import AccountId, Position, Version
from shared.problems import CorruptStore, LedgerError, OutcomeUnknown
from shared.sqlite import SqliteThread, migrate, never_wait, roll_back_leftover

RUN_EVENTS = 32
"""In a row of the log, at most: a row for each event took a fifth of a batch's time."""
READER_CACHE_KIBIBYTES = 4 * 1024
"""Who reads the log goes past each page once."""

READ_LEDGER = "SELECT source, position, published, streams_position FROM ledger"
READ_LAST_POSITION = "SELECT coalesce(max(position), 0) FROM runs"
READ_ANSWERS = """
    SELECT idempotency_key, fingerprint, outcomes FROM answers
    WHERE idempotency_key IN (SELECT value FROM json_each(?))
"""

CREATE_LEDGER = "INSERT INTO ledger (one, source, position, published, streams_position) VALUES (1, ?, 0, 0, 0)"
MOVE_HEAD = "UPDATE ledger SET position = ?, streams_position = ?"
MOVE_PUBLISHED = "UPDATE ledger SET published = ?"
ADD_RUN = "INSERT INTO runs (position, trails, events) VALUES (?, ?, ?)"
ADD_ANSWER = "INSERT INTO answers (idempotency_key, fingerprint, outcomes) VALUES (?, ?, ?)"


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

    def __init__(
        self,
        source: str,
        recent: RecentStreams,
        writer: SqliteThread,
        reader: SqliteThread,
        stream_reader: SqliteThread,
        files: DataFiles,
        resources: AsyncExitStack,
    ) -> None:
        self.source = source
        self.files = files
        self._recent = recent
        self._resources = resources
        self._appending = asyncio.Lock()
        self._writer = writer
        self._reader = reader
        # The events of one account can lie far apart, each in a row with large ones: the feed does not wait for that.
        self._stream_reader = stream_reader
        self._tail = _Tail()

    @classmethod
    async def open(cls, path: Path) -> "SqliteEventStore":
        """Open the log at `path`, making it when it is not there.

        Raises `StoreUnavailable` while another process has it open, `CorruptStore` when it can't be trusted.
        """
        make_file(path)
        writer = SqliteThread(path)
        reader, stream_reader = (SqliteThread(path, bytes, cache_kibibytes=READER_CACHE_KIBIBYTES) for _ in range(2))
        async with AsyncExitStack() as resources:
            resources.enter_context(held_lock(path, sole=True))
            await writer.open()
            resources.push_async_callback(writer.close)
            source, recent = await writer.run(_prepare, path)
            await writer.run(never_wait)
            for thread in (reader, stream_reader):
                await thread.open()
                resources.push_async_callback(thread.close)
            return cls(source, recent, writer, reader, stream_reader, DataFiles(path), resources.pop_all())

    @asynccontextmanager
    async def append(self, account_ids: Collection[AccountId], keys: Collection[str]) -> AsyncIterator[Append]:
        async with self._appending:
            connection = self._writer.connection
            try:
                await self._writer.begin()
                yield connection.run(_begin, self._writer, self.files, self._tail, self._recent, account_ids, keys)
            finally:
                connection.run(roll_back_leftover)

    async def head(self) -> Position:
        return Position((await self._reader.run(_row, READ_LEDGER))[1])

    async def read(self, after: Position, events_max: int, bytes_max: int) -> list[bytes]:
        if self._tail.has(after + 1):
            return self._tail.read(after, events_max, bytes_max)
        return await self._reader.run(_read, after, events_max, bytes_max)

    async def read_stream(self, account_id: AccountId, after: Version, events_max: int, bytes_max: int) -> list[bytes]:
        end = self._recent.ends.get(account_id)
        last = end.last if end else None
        events = await self._stream_reader.run(read_back, account_id, last, after, events_max)
        return _page(events, bytes_max)

    async def published(self) -> Position:
        return Position((await self._reader.run(_row, READ_LEDGER))[2])

    async def acquire_lease(self) -> Lease | None:
        """Always: no other process has the file open."""
        return Lease(0, await self.published())

    async def save_published(self, lease: Lease, position: Position) -> None:  # noqa: ARG002
        async with self._appending:
            await self._writer.begin()
            await self._writer.run(_save_published, position)

    async def end_lease(self, lease: Lease, position: Position) -> None:
        await self.save_published(lease, position)

    async def close(self) -> None:
        try:
            async with self._appending:
                with suppress(LedgerError):  # the next start reads from the log what could not be written
                    self.files.check()
                    await self._writer.begin()
                    await self._writer.run(_write_recent, self._recent)
        finally:
            await self._resources.aclose()


class _SqliteAppend:
    def __init__(
        self,
        writer: SqliteThread,
        files: DataFiles,
        tail: _Tail,
        recent: RecentStreams,
        ends: Mapping[AccountId, StreamEnd],
        answers: Mapping[str, Answer],
    ) -> None:
        self._writer = writer
        self._files = files
        self._tail = tail
        self._recent = recent
        self._ends = ends
        self.head = recent.head
        self.streams: Mapping[AccountId, Stream] = {
            account_id: Stream(end.last.version, end.account) for account_id, end in ends.items()
        }
        self.answers = answers

    async def commit(
        self,
        events: Sequence[NewEvent],
        streams: Mapping[AccountId, Stream],
        answers: Mapping[str, Answer],
    ) -> None:
        moved, written = self._writer.connection.run(_write, self._recent, events, streams, self._ends, answers)
        await self._writer.run(_commit)
        self._files.check()
        self._recent.committed(Position(self.head + len(events)), moved, written)
        if events:
            self._tail.head, self._tail.events = self.head, events


def _prepare(connection: sqlite3.Connection, path: Path) -> tuple[str, RecentStreams]:
    migrate(connection, "command_service.event_store")
    if connection.execute(READ_LEDGER).fetchone() is None:
        connection.execute(CREATE_LEDGER, (f"/ledgers/{uuid_utils.uuid7()}",))
    source, head, published, streams_position = _row(connection, READ_LEDGER)
    (last,) = _row(connection, READ_LAST_POSITION)
    if not (published <= head == last and streams_position <= head):
        raise CorruptStore(
            f"{path}: the head is {head}, the last event {last}, {published} are published, {streams_position} in the "
            "streams. Nothing was written to it; put a good copy in its place."
        )
    recent = RecentStreams(path, streams_position)
    recent.catch_up(connection, head)
    connection.execute("BEGIN IMMEDIATE")
    _write_recent(connection, recent)
    return str(source), RecentStreams(path, head)


def _begin(
    connection: sqlite3.Connection,
    writer: SqliteThread,
    files: DataFiles,
    tail: _Tail,
    recent: RecentStreams,
    account_ids: Collection[AccountId],
    keys: Collection[str],
) -> _SqliteAppend:
    _catch_up(connection, recent)
    answers = {
        key: Answer(fingerprint, outcomes)
        for key, fingerprint, outcomes in (connection.execute(READ_ANSWERS, (_json(keys),)) if keys else ())
    }
    return _SqliteAppend(writer, files, tail, recent, recent.read(connection, account_ids), answers)


def _catch_up(connection: sqlite3.Connection, recent: RecentStreams) -> None:
    _, head, _, _ = _row(connection, READ_LEDGER)
    recent.catch_up(connection, head)


def _write(
    connection: sqlite3.Connection,
    recent: RecentStreams,
    events: Sequence[NewEvent],
    streams: Mapping[AccountId, Stream],
    ends: Mapping[AccountId, StreamEnd],
    answers: Mapping[str, Answer],
) -> tuple[dict[AccountId, StreamEnd], list[AccountId]]:
    """The ends that these events move, and the ids of those that were written to the table."""
    trails, links = lead_back(recent.head, events, ends)
    moved = {account_id: StreamEnd(stream.account, links[account_id]) for account_id, stream in streams.items()}
    due = recent.next_to_write(2 * len(events))
    if not events:  # a row that stays as it is would not be written, and the commit wait for no disk
        connection.execute(MOVE_HEAD, (recent.head + 1, recent.streams_position))
    connection.execute(MOVE_HEAD, (recent.head + len(events), recent.position_after(due)))
    try:
        connection.executemany(ADD_RUN, _runs(recent.head, [event.event for event in events], trails))
        put(connection, [(account_id, moved.get(account_id) or recent.ends[account_id]) for account_id in due])
        rows = [(key, answer.fingerprint, answer.outcomes) for key, answer in answers.items()]
        connection.executemany(ADD_ANSWER, rows)
    except sqlite3.IntegrityError as error:
        raise ValueError(str(error)) from error
    return moved, due


def _runs(head: Position, events: Sequence[str], trails: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    for first in range(0, len(events), RUN_EVENTS):
        run = events[first : first + RUN_EVENTS]
        yield head + first + len(run), "\n".join(trails[first : first + RUN_EVENTS]), "\n".join(run)


def _commit(connection: sqlite3.Connection) -> None:
    try:
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        # A full disk or a lock is found before the commit record is written; any other failure
        # (an fsync, say) may come after it, and a restart would then find the transaction done.
        if error.sqlite_errorname in ("SQLITE_FULL", "SQLITE_BUSY"):
            raise
        raise OutcomeUnknown(f"the commit failed: {error}. Retry with the same Idempotency-Key.") from error


def _write_recent(connection: sqlite3.Connection, recent: RecentStreams) -> None:
    """In the transaction that has begun, which this ends."""
    try:
        if recent.ends:
            _catch_up(connection, recent)
            put(connection, sorted(recent.ends.items()))
            connection.execute(MOVE_HEAD, (recent.head, recent.head))
            connection.execute("COMMIT")
    finally:
        roll_back_leftover(connection)


def _save_published(connection: sqlite3.Connection, position: Position) -> None:
    """In the transaction that has begun, which this ends."""
    try:
        connection.execute(MOVE_PUBLISHED, (position,))
        connection.execute("COMMIT")
    finally:
        roll_back_leftover(connection)


def _read(connection: sqlite3.Connection, after: Position, events_max: int, bytes_max: int) -> list[bytes]:
    return _page(islice(_read_runs(connection, after, events_max), events_max), bytes_max)


def _read_runs(connection: sqlite3.Connection, after: Position, events_max: int) -> Iterator[bytes]:
    for position, run in connection.execute(READ_RUNS, (after, events_max)):
        events = run.split(b"\n")
        yield from events[max(0, after - (position - len(events))) :]


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
