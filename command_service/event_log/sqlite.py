"""The event log in one SQLite file, for one command service at a time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import msgspec
import uuid_utils

from command_service.event_log import NO_HOLDS, PACKED_BYTES_MAX, Answer, Append, DueHold, KeptAnswer, Lease
from command_service.event_log.recent_states import RecentStates, put
from command_service.event_log.rows import all_sound, sound
from command_service.event_log.runs import PackedPage, Page, Run, cut, page, within
from command_service.ledger.account import Hold
from command_service.ledger.states import HoldKey, State
from shared.chain import START, ChainAt
from shared.errors import CorruptStore, LedgerError, OutcomeUnknown
from shared.events import EVENT_SEPARATOR, AccountId, HoldId, Position, Version
from shared.platform.data_files import DataFiles, held_lock, make_file
from shared.platform.sqlite import GOOD_COPY, SqliteThread, migrate, never_wait, roll_back_leftover
from shared.witness import new_key
from shared.zstd import zstd

COMPRESSION_LEVEL = 1
"""Of 22: the next ones take longer and make nothing smaller (docs/performance.md)."""


def _compress(text: bytes) -> bytes:
    return zstd.compress(text, COMPRESSION_LEVEL)


OPENING, SEPARATING, CLOSING = map(_compress, (b"[", EVENT_SEPARATOR, b"]"))
"""With runs between them a JSON array, since compressed texts that follow each other are one (RFC 8878, section 3)."""
PACKED_PARTS_MAX = 1_000
"""aiohttp reads no more than 1024; and short runs have little to gain."""
LONG_OUTCOMES_BYTES = 1024
READER_CACHE_KIBIBYTES = 4 * 1024
"""Who reads the log goes past each page once."""
REPLAY_RUNS = 64
"""So many rows of the log are in memory at a time, when it is read again."""
CHECK_ROWS = 1_000
BEFORE_THE_COMMIT = apsw.FullError, apsw.BusyError, apsw.ConnectionClosedError, apsw.ThreadingViolationError
"""A full disk or a lock is found before the commit record is written, the last two before SQLite is asked. Any other
failure (an fsync, say) may come after it: a restart would then find the transaction done."""

READ_LEDGER = 'SELECT source, "key", position, chain, time, published, states_position FROM ledger'
READ_LAST_RUN = "SELECT position, chain FROM runs ORDER BY position DESC LIMIT 1"
READ_RUNS = "SELECT position, chain, events FROM runs WHERE position > ? ORDER BY position"
READ_RUNS_AROUND = """
    SELECT position, chain, events FROM runs
    WHERE position >= (SELECT coalesce(max(position), 0) FROM runs WHERE position <= ?) ORDER BY position
"""
# Of whatever type a damaged row says they are: that one answer is not as it was given, and the log is.
READ_ANSWERS = """
    SELECT idempotency_key, coalesce(CAST(fingerprint AS BLOB), x''), coalesce(CAST(digest AS BLOB), x'') FROM answers
    WHERE idempotency_key IN (SELECT value FROM json_each(?))
"""
READ_OUTCOMES = """
    SELECT idempotency_key, coalesce(CAST(outcomes AS BLOB), x'') FROM answers
    WHERE idempotency_key IN (SELECT value FROM json_each(?))
"""
READ_HOLDS = """
    SELECT account_id, hold_id, amount, coalesce(expires_at, '') FROM json_each(?)
    CROSS JOIN holds ON account_id = json_extract(value, '$[0]') AND hold_id = json_extract(value, '$[1]')
"""
READ_FIRST_EXPIRY = "SELECT expires_at FROM holds WHERE expires_at IS NOT NULL ORDER BY expires_at LIMIT 1"
READ_DUE_HOLDS = """
    SELECT expires_at, account_id, hold_id FROM holds
    WHERE (expires_at, account_id, hold_id) > (?, ?, ?) AND expires_at <= ?
    ORDER BY expires_at, account_id, hold_id LIMIT ?
"""
CHECK_HOLDS = """
    SELECT account_id, hold_id, amount, coalesce(expires_at, '') FROM holds
    WHERE (account_id, hold_id) > (?, ?) ORDER BY account_id, hold_id LIMIT ?
"""
CHECK_STATES = "SELECT account_id, version, state FROM states WHERE account_id > ? ORDER BY account_id LIMIT ?"
CHECK_ANSWERS = """
    SELECT idempotency_key, fingerprint, outcomes, digest FROM answers
    WHERE idempotency_key > ? ORDER BY idempotency_key LIMIT ?
"""

CREATE_LEDGER = """
    INSERT INTO ledger (one, source, "key", position, chain, time, published, states_position)
    VALUES (1, ?, ?, 0, ?, '', 0, 0)
"""
MOVE_HEAD = "UPDATE ledger SET position = ?, chain = ?, time = ?, states_position = ?"
MOVE_STATES = "UPDATE ledger SET states_position = ?"
MOVE_PUBLISHED = "UPDATE ledger SET published = ?"
ADD_RUN = "INSERT INTO runs (position, chain, events) VALUES (?, ?, ?)"
PUT_HOLD = """
    INSERT INTO holds (account_id, hold_id, amount, expires_at) VALUES (?, ?, ?, ?)
    ON CONFLICT (account_id, hold_id) DO UPDATE SET amount = excluded.amount, expires_at = excluded.expires_at
"""
END_HOLD = "DELETE FROM holds WHERE account_id = ? AND hold_id = ?"
ADD_ANSWER = "INSERT INTO answers (idempotency_key, fingerprint, digest, outcomes) VALUES (?, ?, ?, ?)"


Commit = Callable[
    [
        ChainAt,
        Sequence[bytes],
        str,
        Mapping[AccountId, State],
        Mapping[str, Answer],
        Mapping[HoldKey, Hold | None],
    ],
    Awaitable[None],
]


class _Ledger(NamedTuple):
    source: str
    key: bytes
    position: Position
    chain: bytes
    time: str
    published: Position
    states_position: Position


LEDGER_TYPES = (str, bytes, int, bytes, str, int, int)
RUN_TYPES = (int, bytes, bytes)
HOLD_TYPES = (str, str, int, str)


class _Tail(NamedTuple):
    """The last transaction's runs. The relay and the followers of the feed want them at once: no trip for that."""

    before: ChainAt
    runs: Sequence[Run]

    def has(self, position: int) -> bool:
        return bool(self.runs) and self.before.position < position <= self.runs[-1].position


class SqliteEventLog:
    """Appends through one connection and reads through another, so that readers never hold up an append.

    Of an append only the COMMIT, which waits for the disk, goes to another thread. The statements before it take
    some µs each: less than to hand them over, and to fight for the interpreter's lock at every row.
    """

    def __init__(
        self,
        ledger: _Ledger,
        writer: SqliteThread,
        reader: SqliteThread,
        files: DataFiles,
        resources: AsyncExitStack,
    ) -> None:
        self.source = ledger.source
        self.key = ledger.key
        self.files = files
        self._path = writer.connection.path
        self._recent = RecentStates(self._path, ledger.position)
        self._resources = resources
        self._appending = asyncio.Lock()
        self._writer = writer
        self._reader = reader
        # A new one costs as much as to compress a hundred events. It has nothing of one run left for the next.
        self._compressor = zstd.ZstdCompressor(COMPRESSION_LEVEL)
        self._tail = _Tail(START, [])

    @classmethod
    async def open(cls, path: Path) -> "SqliteEventLog":
        """Open the log at `path`, making it when it is not there.

        Raises `StoreUnavailable` while another process has it open, `CorruptStore` when it can't be trusted.
        """
        make_file(path)
        writer = SqliteThread(path)
        reader = SqliteThread(path, cache_kibibytes=READER_CACHE_KIBIBYTES)
        async with AsyncExitStack() as resources:
            resources.enter_context(held_lock(path, sole=True))
            await writer.open()
            resources.push_async_callback(writer.close)
            ledger = await writer.run(_prepare, path)
            await writer.run(never_wait)
            await reader.open()
            resources.push_async_callback(reader.close)
            return cls(ledger, writer, reader, DataFiles(path), resources.pop_all())

    @asynccontextmanager
    async def append(
        self, account_ids: Collection[AccountId], keys: Collection[str], holds: Collection[HoldKey] = ()
    ) -> AsyncIterator[Append]:
        async with self._appending:
            connection = self._writer.connection
            try:
                await self._writer.begin()
                yield connection.run(self._begin, account_ids, keys, holds)
            finally:
                connection.run(roll_back_leftover)

    def _begin(
        self,
        connection: apsw.Connection,
        account_ids: Collection[AccountId],
        keys: Collection[str],
        holds: Collection[HoldKey],
    ) -> "_SqliteAppend":
        ledger = _catch_up(connection, self._recent)
        rows = _rows(connection, self._path, (str, bytes, bytes), READ_ANSWERS, _json(keys)) if keys else ()
        answers = {key: KeptAnswer(fingerprint, digest) for key, fingerprint, digest in rows}
        states = self._recent.read(connection, account_ids)
        open_holds = dict(_read_holds(connection, self._path, READ_HOLDS, _json(holds)) if holds else ())
        return _SqliteAppend(ledger, states, answers, open_holds, self._outcomes, self._commit)

    async def _outcomes(self, keys: Collection[str]) -> Mapping[str, bytes]:
        """Of answers that are not damaged. Not through the writer: SQLite gives up the transaction of a statement that
        comes upon a page which is not there."""
        try:
            rows = await self._reader.run(_rows, self._path, (str, bytes), READ_OUTCOMES, _json(keys))
        except CorruptStore:
            each = [await self._outcomes([key]) for key in keys] if len(keys) > 1 else []
            return {key: outcomes for one in each for key, outcomes in one.items()}
        outcomes: dict[str, bytes] = {}
        for key, packed in rows:
            with suppress(CorruptStore):
                outcomes[key] = _unpacked(self._path, packed)
        return outcomes

    async def _commit(
        self,
        head: ChainAt,
        events: Sequence[bytes],
        time: str,
        states: Mapping[AccountId, State],
        answers: Mapping[str, Answer],
        holds: Mapping[HoldKey, Hold | None],
    ) -> None:
        runs = cut(head, events)
        written = self._writer.connection.run(_write, self._recent, self._compressor, head, runs, time, answers, holds)
        await self._writer.run(_commit)
        self.files.check()
        self._recent.committed(Position(head.position + len(events)), states, written)
        if runs:
            self._tail = _Tail(head, runs)

    async def head(self) -> Position:
        return (await self._ledger()).position

    async def _ledger(self) -> _Ledger:
        return await self._reader.run(_read_ledger, self._path)

    async def read(self, after: Position, events_max: int, bytes_max: int) -> Page:
        if self._tail.has(after + 1):
            return Page(*page(*self._tail, after, events_max, bytes_max), self._tail.runs[-1].position)
        return await self._reader.run(_read, self._path, after, events_max, bytes_max)

    async def read_packed(self, after: Position, events_max: int, bytes_max: int) -> PackedPage | None:
        if self._tail.has(after + 1) or events_max == 0:
            return None
        return await self._reader.run(_read_packed, self._path, after, events_max, bytes_max)

    async def published(self) -> Position:
        return (await self._ledger()).published

    async def acquire_lease(self) -> Lease | None:
        """Always: no other process has the file open."""
        return Lease(0, await self.published())

    async def save_published(self, lease: Lease, position: Position) -> None:  # noqa: ARG002
        async with self._appending:
            await self._writer.begin()
            await self._writer.run(_save_published, position)

    async def end_lease(self, lease: Lease, position: Position) -> None:
        await self.save_published(lease, position)

    async def first_expiry(self) -> str | None:
        rows = await self._reader.run(_rows, self._path, (str,), READ_FIRST_EXPIRY)
        return rows[0][0] if rows else None

    async def due_holds(self, after: DueHold, time: str, holds_max: int) -> Sequence[DueHold]:
        types = (str, str, str)
        return await self._reader.run(_rows, self._path, types, READ_DUE_HOLDS, *after, time, holds_max)

    async def lead_clerk(self, holder: str) -> bool:  # noqa: ARG002
        """Always: no other process has the file open."""
        return True

    async def end_clerk_lease(self, holder: str) -> None: ...

    async def check(self) -> None:
        await self._reader.run(_check, self._path)

    async def end(self) -> tuple[ChainAt, str]:
        ledger = await self._ledger()
        return ChainAt(ledger.position, ledger.chain), ledger.time

    async def runs(self, after: Position) -> Sequence[Run]:
        return await self._reader.run(_read_runs, self._path, after)

    async def states_position(self) -> Position:
        return (await self._ledger()).states_position

    async def states(self, after: AccountId) -> Sequence[tuple[AccountId, State]]:
        rows = await self._reader.run(_rows, self._path, (str, int, bytes), CHECK_STATES, after, CHECK_ROWS)
        return [(AccountId(account_id), State(Version(version), state)) for account_id, version, state in rows]

    async def holds(self, after: HoldKey | None) -> Sequence[tuple[HoldKey, Hold]]:
        return await self._reader.run(_read_holds, self._path, CHECK_HOLDS, *(after or ("", "")), CHECK_ROWS)

    async def answers(self, after: str) -> Sequence[tuple[str, Answer, bytes]]:
        types = (str, bytes, bytes, bytes)
        rows = await self._reader.run(_rows, self._path, types, CHECK_ANSWERS, after, CHECK_ROWS)
        return [
            (key, Answer(fingerprint, _unpacked(self._path, outcomes)), digest)
            for key, fingerprint, outcomes, digest in rows
        ]

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
        ledger: _Ledger,
        states: Mapping[AccountId, State],
        answers: Mapping[str, KeptAnswer],
        holds: Mapping[HoldKey, Hold],
        outcomes: Callable[[Collection[str]], Awaitable[Mapping[str, bytes]]],
        commit: Commit,
    ) -> None:
        self.head = ChainAt(ledger.position, ledger.chain)
        self.time = ledger.time
        self.states = states
        self.answers = answers
        self.holds = holds
        self._outcomes = outcomes
        self._commit = commit

    async def outcomes(self, keys: Collection[str]) -> Mapping[str, bytes]:
        return await self._outcomes(keys)

    async def commit(
        self,
        events: Sequence[bytes],
        time: str,
        states: Mapping[AccountId, State],
        answers: Mapping[str, Answer],
        holds: Mapping[HoldKey, Hold | None] = NO_HOLDS,
    ) -> None:
        await self._commit(self.head, events, time, states, answers, holds)


def _prepare(connection: apsw.Connection, path: Path) -> _Ledger:
    migrate(connection, "command_service.event_log", path)
    last = (_rows(connection, path, (int, bytes), READ_LAST_RUN) or [(START.position, START.chain)])[0]
    if last == (START.position, START.chain) and connection.execute("SELECT 1 FROM ledger").fetchone() is None:
        connection.execute(CREATE_LEDGER, (f"/ledgers/{uuid_utils.uuid7()}", new_key(), START.chain))
    ledger = _read_ledger(connection, path)
    if not (
        (ledger.position, ledger.chain) == last
        and 0 <= ledger.published <= ledger.position
        and 0 <= ledger.states_position <= ledger.position
    ):
        raise CorruptStore(
            f"{path}: the head is {ledger.position}, the last event {last[0]} or one of another chain, "
            f"{ledger.published} are published, {ledger.states_position} in the states. "
            f"Nothing was written to it. {GOOD_COPY}"
        )
    recent = RecentStates(path, ledger.states_position)
    _catch_up(connection, recent)
    connection.execute("BEGIN IMMEDIATE")
    _write_recent(connection, recent)
    return ledger


def _catch_up(connection: apsw.Connection, recent: RecentStates) -> _Ledger:
    """Take in what is in the log and not there yet."""
    ledger = _read_ledger(connection, recent.path)
    while recent.head < ledger.position:
        runs = _read_runs(connection, recent.path, recent.head)
        if not runs:
            raise CorruptStore(f"{recent.path}: the log ends at {recent.head}, not at {ledger.position}. {GOOD_COPY}")
        recent.take_in(connection, runs)
    return ledger


def _write(
    connection: apsw.Connection,
    recent: RecentStates,
    compressor: zstd.ZstdCompressor,
    head: ChainAt,
    runs: Sequence[Run],
    time: str,
    answers: Mapping[str, Answer],
    holds: Mapping[HoldKey, Hold | None],
) -> int:
    """How many states of the sweep were written to the table."""
    end = runs[-1] if runs else head
    due = recent.next_to_write(4 * (end.position - head.position))
    if not runs:  # a row that stays as it is would not be written, and the commit wait for no disk
        connection.execute(MOVE_HEAD, (head.position + 1, head.chain, time, recent.states_position))
    connection.execute(MOVE_HEAD, (end.position, end.chain, time, recent.position_after(len(due))))
    try:
        connection.executemany(
            ADD_RUN,
            [
                (
                    run.position,
                    run.chain,
                    compressor.compress(EVENT_SEPARATOR.join(run.events), compressor.FLUSH_FRAME),
                )
                for run in runs
            ],
        )
        put(connection, due)
        if holds:
            _put_holds(connection, holds)
        connection.executemany(
            ADD_ANSWER,
            [
                (key, answer.fingerprint, answer.digest(key), _packed(answer.outcomes))
                for key, answer in answers.items()
            ],
        )
    except apsw.ConstraintError as error:
        raise ValueError(str(error)) from error
    return len(due)


def _put_holds(connection: apsw.Connection, holds: Mapping[HoldKey, Hold | None]) -> None:
    """Not in sweeps, as states are: few commands change one, and the log of holds that have ended long ago would have
    to be read again for those that have not."""
    connection.executemany(END_HOLD, [key for key, hold in holds.items() if hold is None])
    connection.executemany(
        PUT_HOLD, [(*key, hold.amount, hold.expires_at) for key, hold in holds.items() if hold is not None]
    )


def _commit(connection: apsw.Connection) -> None:
    try:
        connection.execute("COMMIT")
    except BEFORE_THE_COMMIT:
        raise
    except apsw.Error as error:
        raise OutcomeUnknown(f"the commit failed: {error}. Retry with the same Idempotency-Key.") from error


def _write_recent(connection: apsw.Connection, recent: RecentStates) -> None:
    """In the transaction that has begun, which this ends."""
    try:
        _catch_up(connection, recent)
        if states := recent.all():
            put(connection, sorted(states.items()))
            connection.execute(MOVE_STATES, (recent.head,))
            connection.execute("COMMIT")
    finally:
        roll_back_leftover(connection)


def _save_published(connection: apsw.Connection, position: Position) -> None:
    """In the transaction that has begun, which this ends."""
    try:
        connection.execute(MOVE_PUBLISHED, (position,))
        connection.execute("COMMIT")
    finally:
        roll_back_leftover(connection)


def _check(connection: apsw.Connection, path: Path) -> None:
    # https://www.sqlite.org/pragma.html#pragma_integrity_check
    ((verdict,),) = _rows(connection, path, (str,), "PRAGMA integrity_check(1)")
    if verdict != "ok":
        raise CorruptStore(f"{path}: {verdict}. {GOOD_COPY}")


def _read_ledger(connection: apsw.Connection, path: Path) -> _Ledger:
    rows = _rows(connection, path, LEDGER_TYPES, READ_LEDGER)
    if len(rows) != 1:
        raise CorruptStore(f"{path}: its head is gone. {GOOD_COPY}")
    return _Ledger(*rows[0])


def _read(connection: apsw.Connection, path: Path, after: Position, events_max: int, bytes_max: int) -> Page:
    rows = sound(path, RUN_TYPES, connection.execute(READ_RUNS_AROUND, (after,)))
    before, first = START, next(rows, None)
    if first and first[0] <= after:
        before = ChainAt(Position(first[0]), first[1])
    elif first:
        rows = chain([first], rows)
    found = page(before, _unpacked_runs(path, rows), after, events_max, bytes_max)
    return Page(*found, _read_ledger(connection, path).position)


def _read_packed(
    connection: apsw.Connection, path: Path, after: Position, events_max: int, bytes_max: int
) -> PackedPage | None:
    end, last = START, Position(after + events_max)
    parts: list[bytes] = []
    bytes_left = PACKED_BYTES_MAX
    for position, chain_after, events in sound(path, RUN_TYPES, connection.execute(READ_RUNS_AROUND, (after,))):
        run_end = ChainAt(Position(position), chain_after)
        if position > after:
            try:
                bytes_left -= _decompressed_bytes(path, events)
                bytes_max -= len(events)
                if parts and min(bytes_left, bytes_max) < 0:
                    break
                if end.position < after or last < position:
                    (run,) = _unpacked_runs(path, [(position, chain_after, events)])
                    known, until = max(0, after - end.position), min(last, position) - end.position
                    events, run_end = _compress(EVENT_SEPARATOR.join(run.events[known:until])), within(end, run, until)
            except CorruptStore:
                if parts:
                    break  # whoever asks for it first is told
                raise
            parts += [SEPARATING if parts else OPENING, events]
            if len(parts) > PACKED_PARTS_MAX:
                return None
        end = run_end
        if end.position >= last:
            break
    if not parts:
        return None
    return PackedPage(b"".join([*parts, CLOSING]), end, _read_ledger(connection, path).position)


def _read_runs(connection: apsw.Connection, path: Path, after: Position) -> list[Run]:
    rows = _rows(connection, path, RUN_TYPES, f"{READ_RUNS} LIMIT {REPLAY_RUNS}", after)
    return list(_unpacked_runs(path, rows))


def _read_holds(
    connection: apsw.Connection, path: Path, statement: str, *parameters: object
) -> list[tuple[HoldKey, Hold]]:
    rows = _rows(connection, path, HOLD_TYPES, statement, *parameters)
    return [
        ((AccountId(account_id), HoldId(hold_id)), Hold(amount, expires_at or None))
        for account_id, hold_id, amount, expires_at in rows
    ]


def _unpacked_runs(path: Path, rows: Iterable[tuple[int, bytes, bytes]]) -> Iterator[Run]:
    for position, chain_after, events in rows:
        yield Run(Position(position), chain_after, _decompress(path, events).split(EVENT_SEPARATOR))


def _packed(outcomes: bytes) -> bytes:
    return _compress(outcomes) if len(outcomes) > LONG_OUTCOMES_BYTES else outcomes


def _unpacked(path: Path, outcomes: bytes) -> bytes:
    return outcomes if outcomes.startswith(b"[") else _decompress(path, outcomes)


def _decompressed_bytes(path: Path, compressed: bytes) -> int:
    """As the text itself says."""
    try:
        size = zstd.get_frame_info(compressed).decompressed_size
    except zstd.ZstdError as error:
        raise CorruptStore(f"{path}: {error}. {GOOD_COPY}") from error
    return PACKED_BYTES_MAX + 1 if size is None else size


def _decompress(path: Path, compressed: bytes) -> bytes:
    try:
        return zstd.decompress(compressed)
    except zstd.ZstdError as error:
        raise CorruptStore(f"{path}: {error}. {GOOD_COPY}") from error


def _rows(
    connection: apsw.Connection, path: Path, types: tuple[type, ...], statement: str, *parameters: object
) -> list[Any]:
    return all_sound(path, types, connection.execute(statement, parameters))


def _json(values: Collection[str] | Collection[HoldKey]) -> str:
    return msgspec.json.encode(list(values)).decode()
