"""What `verify` promises: a log that holds is passed, while it is in use too, and no damage to one is missed."""

import asyncio
import os
import random
import re
import resource
import shutil
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import asyncpg
import msgspec
import pytest

from command_service.event_log import EventLog, recent_states, sqlite
from command_service.event_log.postgres import PostgresEventLog
from command_service.event_log.sqlite import SqliteEventLog
from command_service.ledger.commands import (
    Capture,
    Close,
    Command,
    CreateAccount,
    Deposit,
    ExpireHold,
    Freeze,
    PlaceHold,
    Release,
    SetOverdraftLimit,
    Transfer,
    Unfreeze,
    Withdraw,
)
from command_service.ledger_writer import WriteRequest
from command_service.verify import verify
from shared.chain import START, ChainAt, extend
from shared.errors import CorruptStore, IdempotencyKeyReused, LedgerError
from shared.events import EVENT_TYPES, AccountId, HoldId, Position, decode_events, join_events, written
from shared.platform.sqlite import PAGE_BYTES
from tests.contract.conftest import OpenEventLog, closed_at_the_end
from tests.contract.test_event_log import ALL
from tests.contract.test_ledger import Ledger, running
from tests.examples import ALICE, deposit

IDS = [AccountId(name) for name in ("alice", "bob", "carol", "dave")]
REJECTED_ONLY = AccountId("mallory")
FLIPS = 1000
SECONDS_MAX = 10
"""For one damaged log: whatever it says, nobody hangs at it."""
MEMORY_MEBIBYTES_MAX = 256
"""More than before, for all of them: a damaged length asks for no gigabytes."""


STATUS_COMMANDS: list[Callable[[AccountId, str], Command]] = [Freeze, Unfreeze, Close]


def some_command(number: int) -> Command:
    """Often one that is rejected."""
    account_id = IDS[number % 7 % 4]
    match number % 6:
        case 0:
            return CreateAccount("Alice", account_id, "EUR/2")
        case 1:
            return Withdraw(account_id, number % 40)
        case 2:
            return Withdraw(REJECTED_ONLY, number, "rent")
        case 3:
            return Transfer(account_id, IDS[(number + 1) % 7 % 4], number % 30, "rent")
        case 4 if number % 5 < 4:
            return STATUS_COMMANDS[number // 6 % 3](account_id, "court order")
        case 4:
            return SetOverdraftLimit(account_id, number % 70)
        case _:
            return Deposit(account_id, number % 90, f'salary {number} \N{BANK} "\\\n')


def some_commands(number: int, first: int = 0) -> list[Command]:
    return [some_command(n) for n in range(first, first + number)]


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ERIN, FRANK = AccountId("erin"), AccountId("frank")
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
LATER = written(NOON + timedelta(hours=1))
SOON = written(NOON + timedelta(seconds=20))
"""Before the last request."""


def hold(hold_id: str, amount: int, expires_at: str | None = None) -> Command:
    return PlaceHold(ERIN, amount, HoldId(hold_id), expires_at, "books")


OF_HOLDS = [
    WriteRequest([CreateAccount("Erin", ERIN), Deposit(ERIN, 100), CreateAccount("Frank", FRANK)]),
    WriteRequest([hold("a", 30), hold("b", 20, LATER), hold("c", 10, SOON), hold("d", 41)]),
    WriteRequest([Capture(ERIN, HoldId("a"), 20, FRANK), Capture(ERIN, HoldId("a")), Release(ERIN, HoldId("b"))]),
    WriteRequest([Release(ERIN, HoldId("b")), hold("a", 5), hold("b", 7, LATER)]),
    WriteRequest([ExpireHold(ERIN, HoldId("c"))]),
]
"""Two are open at the end."""
HISTORY = [
    WriteRequest([CreateAccount("Alice", IDS[0])]),
    WriteRequest([Deposit(IDS[0], 100, "salary")], "short", b"fingerprint"),
    WriteRequest([CreateAccount("Bob", IDS[1]), CreateAccount("Carol", IDS[2], "EUR/2")]),
    WriteRequest([], "nothing", b"fingerprint"),
    WriteRequest(some_commands(40), "long", b"another fingerprint"),
    *(WriteRequest([command], traceparent=TRACE) for command in some_commands(10, 40)),
    WriteRequest(some_commands(200, 50)),
    WriteRequest(some_commands(20, 250), "last", b""),
    *OF_HOLDS,
]
EVENTS = sum(len(request.commands) for request in HISTORY)


async def write_history(log: EventLog, history: Sequence[WriteRequest] = HISTORY) -> None:
    """Each request in a transaction of its own, a second after the last one."""
    seconds = count()

    def now() -> datetime:
        return NOON + timedelta(seconds=next(seconds))

    async with running(log, now) as ledger:
        for request in history:
            await ledger.writer.write(request)


async def everything(log: EventLog) -> list[bytes]:
    return (await log.read(Position(0), ALL, ALL)).events


async def test_a_log_that_holds_is_passed_and_its_end_is_told(open_event_log: OpenEventLog) -> None:
    async with open_event_log() as log:
        assert await verify(log) == START
        await write_history(log)
        events = await everything(log)
        assert len({type(event.event) for event in decode_events(join_events(events))}) == len(EVENT_TYPES)
        whole = ChainAt(Position(EVENTS), extend(START.chain, events))
        assert await verify(log) == whole
    async with open_event_log() as log:
        assert await verify(log) == whole


async def test_how_far_it_has_come_is_told_up_to_the_head(event_log: EventLog) -> None:
    for _ in range(40):
        await write_history(event_log, [WriteRequest([Deposit(IDS[0], 1)])])
    told: list[tuple[int, int]] = []
    await verify(event_log, lambda reached, head: told.append((reached, head)))
    assert told == sorted(told)
    assert {head for _, head in told} == {40}
    assert told[-1] == (40, 40)


async def test_a_log_is_passed_while_it_is_written_to(event_log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_states, "SWEEP_EVENTS", 20)
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    verified: list[int] = []

    async def write(ledger: Ledger) -> None:
        for number in range(150):
            commands = some_commands(chance.choice([0, 1, 2, 3, 30]), chance.randrange(100))
            commands += [chance.choice(of_holds) for _ in range(chance.choice([0, 1, 30]))]
            key, atomic = chance.choice([None, f"key-{number}"]), chance.random() < 0.3
            await ledger.writer.write(WriteRequest(commands, key, atomic=atomic))
            await asyncio.sleep(0)

    of_holds = [command for n in range(5) for command in (hold(f"{n}", n), Release(ERIN, HoldId(f"{n}")))]
    async with running(event_log) as ledger:
        await ledger.writer.write(OF_HOLDS[0])
        writing = asyncio.create_task(write(ledger))
        while not writing.done():
            verified.append((await verify(event_log)).position)
        await writing
    assert verified == sorted(verified)
    assert len(set(verified)) > 3
    assert (await verify(event_log)).position == await event_log.head()


class Place(NamedTuple):
    """A bit of a file."""

    byte: int
    bit: int


def flipped(content: bytes, place: Place) -> bytes:
    damaged = bytearray(content)
    damaged[place.byte] ^= 1 << place.bit
    return bytes(damaged)


def put(path: Path, content: bytes) -> None:
    """As the file of a log that nobody has open."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.write_bytes(content)


async def found_in(path: Path) -> LedgerError | None:
    """What is said of the log, at its opening or by `verify`."""
    async with asyncio.timeout(SECONDS_MAX):
        try:
            log = await SqliteEventLog.open(path)
        except LedgerError as error:
            return error
        try:
            await verify(log)
        except CorruptStore as error:
            return error
        finally:
            await log.close()
    return None


def contents(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All that is in the file, by SQLite's own hand; of compressed texts, what was compressed."""
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = bytes
        assert connection.execute("PRAGMA integrity_check").fetchall() == [(b"ok",)]
        tables = {
            name: connection.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall()
            for name in (
                "sqlite_schema",
                "pragma_user_version",
                "pragma_encoding",
                "ledger",
                "runs",
                "states",
                "holds",
                "answers",
            )
        }
    tables["runs"] = [(position, chain, sqlite._decompress(path, events)) for position, chain, events in tables["runs"]]
    tables["answers"] = [(*row[:3], sqlite._unpacked(path, row[3])) for row in tables["answers"]]
    return tables


def is_harmless(original: dict[str, list[tuple[Any, ...]]], damaged: dict[str, list[tuple[Any, ...]]]) -> bool:
    """Is it the same, but for how far the relay has published, or how far the states were read? A lower position is as
    good there: more is published again, and dropped by its position; more is read again, and comes to the same."""
    (before,), (after,) = original["ledger"], damaged["ledger"]
    *same, published, settled = after
    head = before[3]
    run_ends = {0, *(row[0] for row in original["runs"])}
    return (
        damaged | {"ledger": []} == original | {"ledger": []}
        and same == list(before[:-2])
        and 0 <= published <= head
        and settled in run_ends
        and settled <= before[-1]
    )


def memory_mebibytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


@pytest.fixture
async def whole(tmp_path: Path) -> Path:
    """The file of a log that was closed, of which half is published."""
    path = tmp_path / "whole.sqlite3"
    async with closed_at_the_end(SqliteEventLog.open(path)) as log:
        await write_history(log)
        lease = await log.acquire_lease()
        assert lease is not None
        await log.end_lease(lease, Position(EVENTS // 2))
    assert not path.with_name(path.name + "-wal").exists()
    return path


async def test_a_bit_that_changes_anywhere_in_the_file_is_found_or_in_nothing(whole: Path, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    original, content = contents(whole), whole.read_bytes()
    path, before, found = tmp_path / "damaged.sqlite3", memory_mebibytes(), Counter[str]()
    # Most of a small file is free: so one third of the places is where something is, and another in the head's row.
    row = content.index(b"/ledgers/")
    kinds = [range(len(content)), [number for number, byte in enumerate(content) if byte], range(row - 12, row + 192)]
    for number in range(FLIPS):
        place = Place(chance.choice(kinds[number % 3]), chance.randrange(8))
        put(path, flipped(content, place))
        error = await found_in(path)
        if error is None:
            put(path, flipped(content, place))
            assert is_harmless(original, contents(path)), f"{place} of {whole}"
        found[type(error).__name__] += 1
    print(f"seed {seed}, {len(content)} bytes: {found}")
    assert memory_mebibytes() - before < MEMORY_MEBIBYTES_MAX


@pytest.fixture
async def left_by_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file whose states are partly in their table, some further than the others: opening it reads the log again."""
    monkeypatch.setattr(recent_states, "SWEEP_EVENTS", 20)
    path, crashed = tmp_path / "whole.sqlite3", tmp_path / "crashed.sqlite3"
    async with closed_at_the_end(SqliteEventLog.open(path)) as log:
        await write_history(log)
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{crashed}{suffix}")
    with closing(sqlite3.connect(crashed)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert 0 < connection.execute("SELECT states_position FROM ledger").fetchone()[0] < EVENTS
    return crashed


async def test_a_bit_that_changes_in_a_file_left_by_a_crash_is_found_or_comes_to_nothing(
    left_by_a_crash: Path, tmp_path: Path
) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    content = left_by_a_crash.read_bytes()
    path, found = tmp_path / "damaged.sqlite3", Counter[str]()
    put(path, content)
    assert await found_in(path) is None
    original = contents(path)
    filled = [number for number, byte in enumerate(content) if byte]
    for _ in range(FLIPS // 3):
        place = Place(chance.choice(filled), chance.randrange(8))
        put(path, flipped(content, place))
        error = await found_in(path)
        # What is there now was read and written again.
        assert error or is_harmless(original, contents(path)), f"{place} of {left_by_a_crash}"
        found[type(error).__name__] += 1
    print(f"seed {seed}, {len(content)} bytes: {found}")


SMALL = [request for request in HISTORY if len(request.commands) < 100]


@dataclass
class TableRow:
    """A row of PostgreSQL's."""

    table: str
    place: str
    """Its ctid, which each change changes."""
    values: dict[str, Any]

    async def put(self, admin: "asyncpg.Connection[asyncpg.Record]", column: str, value: bytes | int) -> None:
        """Texts are given encoded. Raises `asyncpg.PostgresError` when the server refuses it."""
        new = "convert_from($1::bytea, 'UTF8')" if isinstance(self.values[column], str) else "$1"
        self.place = await admin.fetchval(
            f'UPDATE {self.table} SET "{column}" = {new} WHERE ctid = $2::text::tid RETURNING ctid::text',
            value,
            self.place,
        )


async def rows_of(admin: "asyncpg.Connection[asyncpg.Record]", table: str) -> list[TableRow]:
    """With the values that have a bit, but for the column that is only there to allow one row."""
    rows = await admin.fetch(f"SELECT ctid::text, * FROM {table}")
    return [
        TableRow(
            table, place, {name: value for name, value in columns.items() if name != "one" and value not in (b"", None)}
        )
        for place, columns in ((row["ctid"], dict(list(row.items())[1:])) for row in rows)
    ]


def encoded(value: Any) -> bytes | int:
    return value.encode() if isinstance(value, str) else value


def with_a_bit_flipped(value: bytes | int, chance: random.Random) -> bytes | int:
    if isinstance(value, int):
        return int.from_bytes(with_a_bit_flipped(value.to_bytes(8, signed=True), chance), signed=True)  # type: ignore[arg-type]
    return flipped(value, Place(chance.randrange(len(value)), chance.randrange(8)))


async def found_by_verify(log: EventLog) -> CorruptStore | None:
    try:
        async with asyncio.timeout(SECONDS_MAX):
            await verify(log)
    except CorruptStore as error:
        return error
    return None


async def found_when_opened(url: str) -> LedgerError | None:
    try:
        async with closed_at_the_end(PostgresEventLog.open(url)) as log:
            return await found_by_verify(log)
    except LedgerError as error:
        return error


async def test_a_bit_that_changes_in_any_value_of_a_database_is_found(database_url: str) -> None:
    """Which is more than its data checksums do: they are over pages, and know nothing of what was meant."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    found = Counter[str]()
    admin = await asyncpg.connect(database_url, server_settings={"search_path": "ledger", "synchronous_commit": "off"})
    async with closed_at_the_end(PostgresEventLog.open(database_url)) as log:
        await write_history(log, SMALL)
        tables = [await rows_of(admin, table) for table in ("ledger", "runs", "states", "holds", "answers")]
        for _ in range(FLIPS):
            row = chance.choice(chance.choice(tables))
            column, value = chance.choice(list(row.values.items()))
            damaged = with_a_bit_flipped(encoded(value), chance)
            try:
                await row.put(admin, column, damaged)
            except asyncpg.PostgresError:
                found["refused by the server"] += 1
                continue
            if column in ("source", "key"):  # which an open log has read
                error = await found_when_opened(database_url)
            else:
                error = await found_by_verify(log)
            await row.put(admin, column, encoded(value))
            told = f"seed {seed}, {row.table}.{column}, {value!r} is {damaged!r}: {error}"
            assert error is not None, told
            if row.table != "answers" and column != "key":
                named = re.match(r"position (\d+)", str(error))
                assert named, told
                assert row.table != "runs" or int(named[1]) <= row.values["position"], told
            found[row.table] += 1
        await verify(log)
    await admin.close()
    print(f"seed {seed}: {found}")


async def execute(log: EventLog, *statements: str) -> None:
    """By another hand than the log's own."""
    if isinstance(log, PostgresEventLog):
        async with log._writer.connection() as connection:
            for statement in statements:
                await connection.execute(statement)
    else:
        assert isinstance(log, SqliteEventLog)
        for statement in statements:
            log._writer.connection.run(apsw.Connection.execute, statement)


async def rewrite(log: EventLog, events: Sequence[bytes]) -> None:
    """Put `events` in the place of all others, with the chain and the head that belong to them."""
    none = "zeroblob(32)" if isinstance(log, SqliteEventLog) else "decode(repeat('00', 32), 'hex')"
    await execute(log, "DELETE FROM runs", f"UPDATE ledger SET position = 0, chain = {none}")
    async with log.append(set(), set()) as append:
        await append.commit(events, attributes(events[-1])["time"], {}, {})


def attributes(event: bytes) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(event)
    return decoded


def changed(event: bytes, data: dict[str, Any] | None = None, **others: Any) -> bytes:
    before = attributes(event)
    return msgspec.json.encode(before | others | {"data": before["data"] | (data or {})})


@pytest.fixture
async def damaged_log(open_event_log: OpenEventLog) -> AsyncIterator[EventLog]:
    """With all its states in their table, to be damaged."""
    async with open_event_log() as log:
        await write_history(log)
    async with open_event_log() as log:
        assert (await verify(log)).position == EVENTS
        yield log


Rewritten = list[bytes]


def first(events: Rewritten, event_type: str, after: int = 10) -> int:
    """The position of the first such event from there on."""
    return next(n for n, event in enumerate(events, 1) if n > after and attributes(event)["type"] == event_type)


def renumbered(events: Rewritten) -> Rewritten:
    return [changed(event, sequence=f"{position:020d}") for position, event in enumerate(events, 1)]


def an_amount_that_could_not_be(events: Rewritten) -> int:
    position = first(events, "amount-deposited")
    events[position - 1] = changed(events[position - 1], {"amount": -1})
    return position


def an_amount_over_the_balance(events: Rewritten) -> int:
    position = first(events, "amount-withdrawn")
    events[position - 1] = changed(events[position - 1], {"amount": 10**9})
    return position


def a_rejection_that_had_no_reason(events: Rewritten) -> int:
    position = first(events, "withdrawal-rejected")
    events[position - 1] = changed(events[position - 1], {"amount": 1, "reason": "amount-not-positive"})
    return position


def a_hold_that_expired_before_its_time(events: Rewritten) -> int:
    placed = next(n for n, event in enumerate(events) if attributes(event)["data"].get("expires_at") == SOON)
    events[placed] = changed(events[placed], {"expires_at": LATER})
    return first(events, "hold-expired")


def a_capture_of_more_than_was_held(events: Rewritten) -> int:
    position = first(events, "hold-captured")
    events[position - 1] = changed(events[position - 1], {"amount": 31, "released": -1})
    return position


def two_that_are_swapped(events: Rewritten) -> int:
    events[20:22] = events[21], events[20]
    return 21


def one_that_is_gone(events: Rewritten) -> int:
    del events[20]
    return 21


def one_that_is_gone_without_a_hole(events: Rewritten) -> int:
    account_id = attributes(events.pop(20))["subject"]
    events[:] = renumbered(events)
    return next(n for n, event in enumerate(events, 1) if n > 20 and attributes(event)["subject"] == account_id)


def one_that_is_there_twice(events: Rewritten) -> int:
    events.insert(20, events[20])
    events[:] = renumbered(events)
    return 22


def an_event_of_another_ledger(events: Rewritten) -> int:
    events[20] = changed(events[20], source="/ledgers/another")
    return 21


def a_time_that_goes_back(events: Rewritten) -> int:
    events[20] = changed(events[20], time="2026-11-23T11:59:59.999999Z")
    return 21


def a_type_that_is_unknown(events: Rewritten) -> int:
    events[20] = changed(events[20], type="account-merged")
    return 21


def no_event(events: Rewritten) -> int:
    events[20] = b"{}"
    return 21


@pytest.mark.parametrize(
    "damage",
    [
        an_amount_that_could_not_be,
        an_amount_over_the_balance,
        a_rejection_that_had_no_reason,
        a_hold_that_expired_before_its_time,
        a_capture_of_more_than_was_held,
        two_that_are_swapped,
        one_that_is_gone,
        one_that_is_gone_without_a_hole,
        one_that_is_there_twice,
        an_event_of_another_ledger,
        a_time_that_goes_back,
        a_type_that_is_unknown,
        no_event,
    ],
)
async def test_a_history_that_cannot_have_been_is_found_at_its_first_such_event_whatever_its_chain(
    damaged_log: EventLog, damage: Callable[[Rewritten], int]
) -> None:
    events = await everything(damaged_log)
    position = damage(events)
    await rewrite(damaged_log, events)
    with pytest.raises(CorruptStore, match=f"^position {position}: "):
        await verify(damaged_log)


async def test_a_history_that_may_have_been_is_found_by_what_it_comes_to(damaged_log: EventLog) -> None:
    """At the account's last event at the latest: its state is after that one."""
    events = await everything(damaged_log)
    position = first(events, "amount-deposited")
    event = attributes(events[position - 1])
    last = max(n for n, other in enumerate(events, 1) if attributes(other)["subject"] == event["subject"])
    events[position - 1] = changed(events[position - 1], {"amount": event["data"]["amount"] + 10**6})
    await rewrite(damaged_log, events)
    with pytest.raises(CorruptStore, match=r"^position \d+: ") as told:
        await verify(damaged_log)
    assert position < int(str(told.value).split()[1].strip(":")) <= last


@pytest.mark.parametrize(
    ("damage", "position"),
    [
        ("DELETE FROM runs WHERE position = 1", 1),
        ("DELETE FROM runs WHERE position = 44", 5),
        ("DELETE FROM runs WHERE position > 254", 255),
        ("UPDATE runs SET position = 43 WHERE position = 44", 5),
        ("UPDATE runs SET chain = (SELECT chain FROM runs AS r WHERE r.position = 1) WHERE position = 44", 5),
        ("UPDATE runs SET events = (SELECT events FROM runs AS r WHERE r.position = 2) WHERE position = 1", 1),
        (f"UPDATE ledger SET position = {EVENTS - 1}", EVENTS - 1),
        (f"UPDATE ledger SET position = {EVENTS + 1}", EVENTS + 1),
        ("UPDATE ledger SET position = 0", 1),
        ("UPDATE ledger SET position = 254, chain = (SELECT chain FROM runs WHERE position = 254)", 254),
        ("UPDATE ledger SET chain = (SELECT chain FROM runs WHERE position = 44)", EVENTS),
        ("UPDATE ledger SET time = '2026-11-23T12:00:00.000000Z'", EVENTS),
        ("UPDATE ledger SET time = ''", EVENTS),
        ("UPDATE states SET version = version + 1 WHERE account_id = 'alice'", EVENTS + 1),
        ("UPDATE holds SET amount = amount + 1 WHERE hold_id = 'a'", EVENTS),
        ("UPDATE holds SET expires_at = NULL WHERE hold_id = 'b'", EVENTS),
        ("UPDATE holds SET account_id = 'frank' WHERE hold_id = 'a'", EVENTS),
        ("INSERT INTO holds SELECT account_id, 'c', amount, expires_at FROM holds WHERE hold_id = 'a'", EVENTS),
        ("DELETE FROM holds WHERE hold_id = 'a'", EVENTS),
    ],
)
async def test_tables_that_do_not_belong_together_are_found_at_the_first_position(
    damaged_log: EventLog, damage: str, position: int
) -> None:
    await execute(damaged_log, damage)
    with pytest.raises(CorruptStore, match=f"^position {position}[ :]"):
        await verify(damaged_log)


async def test_a_head_that_is_an_earlier_one_is_found(damaged_log: EventLog) -> None:
    """As when one table is put back, and the others are not: with nothing wrong in it."""
    events = (await damaged_log.read(Position(0), 54, ALL)).events
    head = f"position = 54, time = '{attributes(events[-1])['time']}'"
    await execute(damaged_log, f"UPDATE ledger SET {head}, chain = (SELECT chain FROM runs WHERE position = 54)")
    with pytest.raises(CorruptStore, match=r"^position 55 is there, and the log ends at 54"):
        await verify(damaged_log)


OF_BOB = "(SELECT state FROM states AS s WHERE s.account_id = 'bob')"


@pytest.mark.parametrize(
    "damage",
    [
        f"UPDATE states SET state = {OF_BOB} WHERE account_id = 'alice'",
        "UPDATE states SET version = version - 1 WHERE account_id = 'alice'",
        "UPDATE states SET version = 0 WHERE account_id = 'alice'",
        "UPDATE states SET account_id = 'zoe' WHERE account_id = 'alice'",
        "DELETE FROM states WHERE account_id = 'alice'",
        "DELETE FROM states WHERE account_id = 'mallory'",
        f"UPDATE states SET state = {OF_BOB} WHERE account_id = 'mallory'",
    ],
)
async def test_a_state_that_is_not_its_accounts_is_found_at_an_event_of_it(damaged_log: EventLog, damage: str) -> None:
    subject = "mallory" if "mallory" in damage else "alice"
    positions = {
        n for n, event in enumerate(await everything(damaged_log), 1) if attributes(event)["subject"] == subject
    }
    await execute(damaged_log, damage)
    with pytest.raises(CorruptStore, match=rf"^position .* the state of '{subject}'") as told:
        await verify(damaged_log)
    assert int(str(told.value).split()[1].strip(":")) in positions


async def test_a_state_of_an_account_that_has_no_events_is_found(damaged_log: EventLog) -> None:
    await execute(damaged_log, "INSERT INTO states SELECT 'zoe', version, state FROM states WHERE account_id = 'alice'")
    with pytest.raises(CorruptStore, match=f"^position {EVENTS + 1}: the state of 'zoe' has version"):
        await verify(damaged_log)


@pytest.mark.parametrize(
    "damage",
    [
        "fingerprint = (SELECT fingerprint FROM answers WHERE idempotency_key = 'long')",
        "outcomes = (SELECT outcomes FROM answers WHERE idempotency_key = 'long')",
        "outcomes = substr(outcomes, 2)",
        "digest = (SELECT digest FROM answers WHERE idempotency_key = 'long')",
    ],
)
async def test_nobody_is_told_a_damaged_answer_and_nothing_is_recorded_again(
    damaged_log: EventLog, damage: str
) -> None:
    retried = WriteRequest([deposit(1, ALICE)], "retried", b"asked")
    reused = WriteRequest([deposit(1, ALICE)], "retried", b"asked otherwise")
    async with running(damaged_log) as ledger:
        await ledger.writer.write(retried)
        await execute(damaged_log, f"UPDATE answers SET {damage} WHERE idempotency_key = 'retried'")
        told, of_another, accepted = await asyncio.gather(
            *map(ledger.writer.write, (retried, reused, WriteRequest([deposit(1, ALICE)]))), return_exceptions=True
        )
        assert isinstance(told, CorruptStore)
        assert "'retried'" in str(told)
        # The outcomes are not looked at for who may not hear them.
        assert isinstance(of_another, IdempotencyKeyReused if "outcomes =" in damage else CorruptStore)
        assert isinstance(accepted, list)
        assert await damaged_log.head() == EVENTS + 2


@pytest.mark.parametrize("damage", ["NULL", "7", "'text'", "CAST(x'ff' AS TEXT)", "CAST({} AS TEXT)"])
@pytest.mark.parametrize("column", ["fingerprint", "outcomes", "digest"])
async def test_an_answer_whose_damage_is_its_type_is_nobody_elses_matter(
    tmp_path: Path, column: str, damage: str
) -> None:
    """One bit of a row's header says of which type a value is: https://www.sqlite.org/fileformat.html#record_format"""
    path = tmp_path / "ledger.sqlite3"
    retried, another = (WriteRequest([deposit(1, ALICE)], key, b"asked") for key in ("retried", "another"))
    async with closed_at_the_end(SqliteEventLog.open(path)) as log, running(log) as ledger:
        await ledger.writer.write(WriteRequest([CreateAccount("Alice", ALICE)]))
        first, told = await ledger.writer.write(retried), await ledger.writer.write(another)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        (schema,) = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'answers'").fetchone()
        any_type = schema.removesuffix(" STRICT").replace("BLOB NOT NULL", "BLOB")
        for form, change in (
            (any_type, f"UPDATE answers SET {column} = {damage.format(column)} WHERE idempotency_key = 'retried'"),
            (schema, ""),
        ):
            connection.execute("PRAGMA writable_schema = ON")
            connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'answers'", (form,))
            connection.execute("PRAGMA writable_schema = RESET")
            connection.execute(change)
    async with closed_at_the_end(SqliteEventLog.open(path)) as log, running(log) as ledger:
        if "{}" in damage:
            assert await ledger.writer.write(retried) == first  # the bytes are the same
        else:
            with pytest.raises(CorruptStore, match="'retried'"):
                await ledger.writer.write(retried)
        assert await ledger.writer.write(another) == told
        await ledger.writer.write(WriteRequest([deposit(1, ALICE)]))
        assert await log.head() == 4


async def test_an_answer_that_the_file_ends_in_is_nobody_elses_matter(tmp_path: Path) -> None:
    """What is long goes on in pages of its own: https://www.sqlite.org/fileformat.html#overflow"""
    path = tmp_path / "ledger.sqlite3"
    long = WriteRequest([deposit(1, ALICE)] * 2000, "long", b"asked")
    async with closed_at_the_end(SqliteEventLog.open(path)) as log, running(log) as ledger:
        await ledger.writer.write(WriteRequest([CreateAccount("Alice", ALICE)]))
        await ledger.writer.write(long)
    with closing(apsw.Connection(str(path))) as connection:
        last = connection.execute("SELECT name, pagetype FROM dbstat ORDER BY pageno DESC LIMIT 1").get
        assert last == ("answers", "overflow")
    os.truncate(path, path.stat().st_size - PAGE_BYTES // 2)
    async with closed_at_the_end(SqliteEventLog.open(path)) as log, running(log) as ledger:
        requests = WriteRequest([deposit(1, ALICE)]), WriteRequest([deposit(1, ALICE)], "short", b"asked"), long
        first, second, damaged = map(ledger.writer.write, requests)
        assert len(await first) == len(await second) == 1
        with pytest.raises(CorruptStore, match="'long'"):
            await damaged
        assert await log.head() == 2003


@pytest.mark.parametrize("column", ["fingerprint", "outcomes", "digest", "idempotency_key"])
async def test_an_answer_that_is_not_the_one_that_was_given_is_found(damaged_log: EventLog, column: str) -> None:
    of_another = f"(SELECT {column} FROM answers AS a WHERE a.idempotency_key = 'long')"
    value = "'another'" if column == "idempotency_key" else of_another
    await execute(damaged_log, f"UPDATE answers SET {column} = {value} WHERE idempotency_key = 'short'")
    with pytest.raises(CorruptStore, match=r"Idempotency-Key '(short|another)'"):
        await verify(damaged_log)


@pytest.mark.parametrize("key", ["short", "long"])
async def test_an_answer_that_is_gone_is_missed(damaged_log: EventLog, key: str) -> None:
    await execute(damaged_log, f"DELETE FROM answers WHERE idempotency_key = '{key}'")
    with pytest.raises(CorruptStore, match="3 requests had an Idempotency-Key of their own, and 2 of the answers"):
        await verify(damaged_log)
