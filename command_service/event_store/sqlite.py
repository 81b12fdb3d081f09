"""The event store in one SQLite file, for one command service at a time."""

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Any

import msgspec
import uuid_utils

from command_service.account import Account, evolve
from command_service.event_store import Answer, Append, Lease, NewEvent, Stream
from shared.events import AccountId, Position, RecordedEvent, UnreadableEvent, Version, decode_events, join_events
from shared.problems import CorruptStore, LedgerError, OutcomeUnknown, StoreUnavailable
from shared.sqlite import SqliteThread, migrate, roll_back_leftover

PART_EVENTS = 32
"""So many positions of an account are put away together; also a number in the schema."""
SWEEP_EVENTS = 25_000
"""Each time that so many more events are in the log, the streams that they moved begin to be written.

Memory holds up to twice as many streams, and a start after a crash reads up to twice as many events again, about 8 µs
each. With a million accounts, four times as many made a command 5 % cheaper.
"""
REPLAY_EVENTS = 10_000
READER_CACHE_KIBIBYTES = 4 * 1024
"""Who reads the log goes past each page once."""

READ_LEDGER = "SELECT source, position, published, streams_position FROM ledger"
READ_LAST_POSITION = "SELECT coalesce(max(position), 0) FROM events"
READ_STREAMS = """
    SELECT account_id, version, name, balance, positions FROM json_each(?) CROSS JOIN streams ON account_id = value
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
        SELECT ?4
        UNION ALL
        SELECT positions FROM streams WHERE account_id = ?1 AND version >= ?2
    )
    SELECT event FROM events WHERE position IN (
        SELECT DISTINCT value FROM parts, json_each('[' || positions || ']')
        ORDER BY value LIMIT ?3 OFFSET ?2 % {PART_EVENTS}
    )
    ORDER BY position
"""

CREATE_LEDGER = "INSERT INTO ledger (one, source, position, published, streams_position) VALUES (1, ?, 0, 0, 0)"
MOVE_HEAD = "UPDATE ledger SET position = ?, streams_position = ?"
MOVE_PUBLISHED = "UPDATE ledger SET published = ?"
ADD_EVENT = "INSERT INTO events (position, event) VALUES (?, ?)"
ADD_PART = "INSERT INTO stream_parts (account_id, part, positions) VALUES (?, ?, ?)"
PUT_STREAM = """
    INSERT INTO streams (account_id, version, name, balance, positions) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (account_id) DO UPDATE
    SET version = excluded.version, name = excluded.name, balance = excluded.balance, positions = excluded.positions
"""
ADD_ANSWER = "INSERT INTO answers (idempotency_key, fingerprint, outcomes) VALUES (?, ?, ?)"

Row = tuple[AccountId, Version, str | None, int | None, str]
"""Of the table of streams: id, version, name, balance in cents, and the positions since its last full part."""
NO_ROW: Row = (AccountId(""), Version(0), None, None, "")

Ends = dict[AccountId, tuple[Version, str]]
"""Of each stream, the last version and the positions since its last full part."""
NO_END = Version(0), ""


class _RecentStreams:
    """The streams that have moved since their rows were written.

    Written at once, most rows would cost their command a page of the file: with many accounts, most of a commit
    (docs/performance.md). So they wait for a sweep, which writes them in the order of their ids, where neighbours
    share a page, a few with each append. What a crash takes from here is in the log.
    """

    def __init__(self, path: Path, written: Position) -> None:
        self._path = path
        self.head = written
        """Every event up to here is in `rows` or in the table."""
        self.written = written
        """Every event up to here is in the table."""
        self.rows: dict[AccountId, Row] = {}
        self._sweep: list[AccountId] = []
        """Still to be written, the next one last."""
        self._sweep_head = written
        """Every event up to here is in the table when the sweep is done."""

    def read(self, connection: sqlite3.Connection, account_ids: Iterable[AccountId]) -> list[Row]:
        rows: list[Row] = []
        others: list[AccountId] = []
        for account_id in account_ids:
            if row := self.rows.get(account_id):
                rows.append(row)
            else:
                others.append(account_id)
        if others:
            rows += connection.execute(READ_STREAMS, (_json(sorted(others)),))
        return rows

    def catch_up(self, connection: sqlite3.Connection, head: Position) -> None:
        """Take in what is in the log and not here: after a crash, or a commit whose outcome nobody heard.

        Raises `CorruptStore` when the log does not go on from the rows.
        """
        while self.head < head:
            page = [event.encode() for (event,) in connection.execute(READ_EVENTS, (self.head, REPLAY_EVENTS))]
            try:
                self._take_in(connection, decode_events(join_events(page)))
            except UnreadableEvent as error:
                raise CorruptStore(f"{self._path}, after position {self.head}: {error}.") from error

    def _take_in(self, connection: sqlite3.Connection, events: Sequence[RecordedEvent]) -> None:
        self.rows.update((row[0], row) for row in self.read(connection, {event.account_id for event in events}))
        for event in events:
            account_id, version = event.account_id, event.version
            _, last, name, balance, positions = self.rows.get(account_id, NO_ROW)
            if version <= last:  # a sweep that came to no end has written it
                continue
            if version != last + 1:
                raise CorruptStore(
                    f"{self._path}: position {event.position} is version {version} of {account_id!r}, "
                    f"after version {last}. Put a good copy in its place."
                )
            account = evolve(_account(name, balance), event.event)
            positions = _joined(positions, event.position) if version % PART_EVENTS else ""
            self.rows[account_id] = _row_of(account_id, Stream(version, account), positions)
        self.head = events[-1].position

    def next_to_write(self, rows_max: int) -> list[AccountId]:
        if not self._sweep and self.head - self._sweep_head >= SWEEP_EVENTS:
            self._sweep, self._sweep_head = sorted(self.rows, reverse=True), self.head
        return self._sweep[-rows_max:]

    def written_after(self, account_ids: Sequence[AccountId]) -> Position:
        """What `written` will be when the rows of `next_to_write` are there."""
        return self._sweep_head if len(account_ids) == len(self._sweep) else self.written

    def committed(self, head: Position, moved: Mapping[AccountId, Row], account_ids: Sequence[AccountId]) -> None:
        """Events up to `head` moved these rows, and those of `account_ids` are in the table."""
        self.head, self.written = head, self.written_after(account_ids)
        self.rows.update(moved)
        for account_id in account_ids:
            del self.rows[account_id]
        del self._sweep[len(self._sweep) - len(account_ids) :]


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
        recent: _RecentStreams,
        writer: SqliteThread,
        reader: SqliteThread,
        resources: AsyncExitStack,
    ) -> None:
        self.source = source
        self._recent = recent
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
        writer, reader = SqliteThread(path), SqliteThread(path, bytes, cache_kibibytes=READER_CACHE_KIBIBYTES)
        async with AsyncExitStack() as resources:
            resources.enter_context(_lock(path))
            await writer.open()
            resources.push_async_callback(writer.close)
            source, recent = await writer.run(_prepare, path)
            await reader.open()
            resources.push_async_callback(reader.close)
            return cls(source, recent, writer, reader, resources.pop_all())

    @asynccontextmanager
    async def append(self, account_ids: Collection[AccountId], keys: Collection[str]) -> AsyncIterator[Append]:
        async with self._appending:
            connection = self._writer.connection
            try:
                yield connection.run(_begin, self._writer, self._tail, self._recent, account_ids, keys)
            finally:
                connection.run(roll_back_leftover)

    async def head(self) -> Position:
        return Position((await self._reader.run(_row, READ_LEDGER))[1])

    async def read(self, after: Position, events_max: int, bytes_max: int) -> list[bytes]:
        if self._tail.has(after + 1):
            return self._tail.read(after, events_max, bytes_max)
        return await self._reader.run(_read_page, READ_EVENTS, (after, events_max), bytes_max)

    async def read_stream(self, account_id: AccountId, after: Version, events_max: int, bytes_max: int) -> list[bytes]:
        _, version, _, _, recent = self._recent.rows.get(account_id, NO_ROW)
        parameters = account_id, after, events_max, recent if version >= after else ""
        return await self._reader.run(_read_page, READ_STREAM, parameters, bytes_max)

    async def acquire_lease(self) -> Lease | None:
        """Always: no other process has the file open."""
        return Lease(0, Position((await self._reader.run(_row, READ_LEDGER))[2]))

    async def save_published(self, lease: Lease, position: Position) -> None:  # noqa: ARG002
        async with self._appending:
            await self._writer.run(_save_published, position)

    async def end_lease(self, lease: Lease, position: Position) -> None:
        await self.save_published(lease, position)

    async def close(self) -> None:
        async with self._appending:
            with suppress(LedgerError):  # the next start reads from the log what could not be written
                await self._writer.run(_write_recent, self._recent)
        await self._resources.aclose()


class _SqliteAppend:
    def __init__(
        self,
        writer: SqliteThread,
        tail: _Tail,
        recent: _RecentStreams,
        rows: Iterable[Row],
        answers: Mapping[str, Answer],
    ) -> None:
        self._writer = writer
        self._tail = tail
        self._recent = recent
        self._ends: Ends = {}
        self.head = recent.head
        streams: dict[AccountId, Stream] = {}
        self.streams: Mapping[AccountId, Stream] = streams
        self.answers = answers
        for account_id, version, name, balance, positions in rows:
            streams[account_id] = Stream(version, _account(name, balance))
            self._ends[account_id] = version, positions

    async def commit(
        self,
        events: Sequence[NewEvent],
        streams: Mapping[AccountId, Stream],
        answers: Mapping[str, Answer],
    ) -> None:
        moved, written = self._writer.connection.run(_write, self._recent, events, streams, self._ends, answers)
        await self._writer.run(_commit)
        self._recent.committed(Position(self.head + len(events)), moved, written)
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


def _prepare(connection: sqlite3.Connection, path: Path) -> tuple[str, _RecentStreams]:
    migrate(connection, "command_service.event_store")
    if connection.execute(READ_LEDGER).fetchone() is None:
        connection.execute(CREATE_LEDGER, (f"/ledgers/{uuid_utils.uuid7()}",))
    source, head, published, written = _row(connection, READ_LEDGER)
    (last,) = _row(connection, READ_LAST_POSITION)
    if not (published <= head == last and written <= head):
        raise CorruptStore(
            f"{path}: the head is {head}, the last event {last}, {published} are published, {written} in the streams. "
            "Nothing was written to it; put a good copy in its place."
        )
    recent = _RecentStreams(path, written)
    recent.catch_up(connection, head)
    return str(source), recent


def _begin(
    connection: sqlite3.Connection,
    writer: SqliteThread,
    tail: _Tail,
    recent: _RecentStreams,
    account_ids: Collection[AccountId],
    keys: Collection[str],
) -> _SqliteAppend:
    _begin_at_head(connection, recent)
    answers = {
        key: Answer(fingerprint, outcomes)
        for key, fingerprint, outcomes in (connection.execute(READ_ANSWERS, (_json(keys),)) if keys else ())
    }
    return _SqliteAppend(writer, tail, recent, recent.read(connection, account_ids), answers)


def _begin_at_head(connection: sqlite3.Connection, recent: _RecentStreams) -> None:
    connection.execute("BEGIN IMMEDIATE")
    _, head, _, _ = _row(connection, READ_LEDGER)
    recent.catch_up(connection, head)


def _write(
    connection: sqlite3.Connection,
    recent: _RecentStreams,
    events: Sequence[NewEvent],
    streams: Mapping[AccountId, Stream],
    ends: Ends,
    answers: Mapping[str, Answer],
) -> tuple[dict[AccountId, Row], list[AccountId]]:
    """The rows that these events move, and the ids of those that were written to the table."""
    parts: list[tuple[AccountId, int, str]] = []
    for event in events:
        position, account_id, version = event.position, event.account_id, event.version
        last, before = ends.get(account_id, NO_END)
        if version != last + 1:
            raise StoreUnavailable(f"version {version} of {account_id!r} does not follow version {last}.")
        together = _joined(before, position)
        if version % PART_EVENTS == 0:
            parts.append((account_id, version // PART_EVENTS - 1, together))
            together = ""
        ends[account_id] = version, together
    moved = {
        account_id: _row_of(account_id, stream, ends.get(account_id, NO_END)[1])
        for account_id, stream in streams.items()
    }
    due = recent.next_to_write(len(events))
    connection.execute(MOVE_HEAD, (recent.head + len(events), recent.written_after(due)))
    connection.executemany(ADD_EVENT, [(event.position, event.event) for event in events])
    connection.executemany(ADD_PART, parts)
    connection.executemany(PUT_STREAM, [moved.get(account_id) or recent.rows[account_id] for account_id in due])
    connection.executemany(ADD_ANSWER, [(key, answer.fingerprint, answer.outcomes) for key, answer in answers.items()])
    return moved, due


def _commit(connection: sqlite3.Connection) -> None:
    try:
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        # A full disk or a lock is found before the commit record is written; any other failure
        # (an fsync, say) may come after it, and a restart would then find the transaction done.
        if error.sqlite_errorname in ("SQLITE_FULL", "SQLITE_BUSY"):
            raise
        raise OutcomeUnknown(f"the commit failed: {error}. Retry with the same Idempotency-Key.") from error


def _write_recent(connection: sqlite3.Connection, recent: _RecentStreams) -> None:
    if not recent.rows:
        return
    try:
        _begin_at_head(connection, recent)
        connection.executemany(PUT_STREAM, sorted(recent.rows.values()))
        connection.execute(MOVE_HEAD, (recent.head, recent.head))
        connection.execute("COMMIT")
    finally:
        roll_back_leftover(connection)


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


def _account(name: str | None, balance: int | None) -> Account | None:
    return None if name is None or balance is None else Account(name, balance)


def _row_of(account_id: AccountId, stream: Stream, positions: str) -> Row:
    if stream.account is None:
        return account_id, stream.version, None, None, positions
    return account_id, stream.version, stream.account.name, stream.account.balance, positions


def _joined(positions: str, position: Position) -> str:
    return f"{positions},{position}" if positions else str(position)


def _row(connection: sqlite3.Connection, statement: str) -> tuple[Any, ...]:
    row: tuple[Any, ...] = connection.execute(statement).fetchone()
    return row


def _json(values: Collection[str]) -> str:
    return msgspec.json.encode(list(values)).decode()
