"""States that are not yet in their table: nothing about them is lost in a crash, at whatever moment it comes."""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from command_service.event_log import recent_states, runs, sqlite
from command_service.event_log.sqlite import SqliteEventLog
from command_service.ledger.account import Hold, hold_after
from command_service.ledger.commands import (
    Capture,
    Close,
    Command,
    CreateAccount,
    Freeze,
    PlaceHold,
    Release,
    SetOverdraftLimit,
    Unfreeze,
)
from command_service.ledger.states import HoldKey, State, states_after
from command_service.ledger_writer import WriteRequest
from command_service.verify import verify
from shared.errors import CorruptStore, OutcomeUnknown
from shared.events import INT64_MAX, AccountId, HoldId, RecordedEvent, decode_events, join_events
from tests.contract.conftest import closed_at_the_end
from tests.contract.test_event_log import LOG, STATES, listed, record, state, stored
from tests.contract.test_ledger import running
from tests.examples import ALICE, BOB, DEPOSIT_REJECTED, deposit, logged, transfer, withdraw

IDS = [AccountId(name) for name in "abcdefgh"]
ids = st.sampled_from(IDS)
hold_ids = st.sampled_from([HoldId("x"), HoldId("y")])
commands = st.one_of(
    st.builds(CreateAccount, st.just("Alice"), ids),
    st.builds(deposit, st.integers(0, 3), ids),
    st.builds(withdraw, st.integers(0, 3), ids),
    st.builds(transfer, st.integers(0, 3), ids, ids),
    st.builds(PlaceHold, ids, st.integers(0, 3), hold_ids),
    st.builds(Capture, ids, hold_ids, st.none() | st.integers(0, 3), st.none() | ids),
    st.builds(Release, ids, hold_ids),
    st.builds(SetOverdraftLimit, ids, st.integers(0, 3)),
    *(st.builds(command, ids) for command in (Freeze, Unfreeze, Close)),
)


def left_by_a_crash(path: Path, to: Path) -> Path:
    """A copy taken while the log is open is what a killed process leaves: file and write-ahead log."""
    to.mkdir()
    for file in path.parent.glob(f"{path.name}*"):
        shutil.copy(file, to)
    return to / path.name


def folded(events: Sequence[RecordedEvent]) -> dict[AccountId, State]:
    states: dict[AccountId, State] = {}
    for event in events:
        states |= states_after(states, event)
    return states


def folded_holds(events: Sequence[RecordedEvent]) -> dict[HoldKey, Hold]:
    holds: dict[HoldKey, Hold | None] = {}
    for event in events:
        if hold_id := getattr(event.event, "hold_id", None):
            key = event.account_id, hold_id
            holds[key] = hold_after(holds.get(key), event.event)
    return {key: hold for key, hold in holds.items() if hold}


async def check(log: SqliteEventLog) -> None:
    """Each state, and each hold, is what its account's events, replayed from the first one, have come to."""
    events = decode_events(join_events(await stored(log)))
    async with log.append(IDS, set()) as append:
        assert append.head.position == len(events)
        assert append.states == folded(events)
    assert await listed(log) == folded_holds(events)
    await verify(log)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    lives=st.lists(st.lists(st.lists(commands, min_size=1, max_size=40), max_size=6), min_size=1, max_size=4),
    sweep=st.sampled_from([1, 2, 5, 20, 1000]),
    run_events=st.sampled_from([1, 3, 128]),
)
def test_after_any_commands_and_crashes_each_state_is_what_its_events_say(
    lives: list[list[list[Command]]], sweep: int, run_events: int
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(recent_states, "SWEEP_EVENTS", sweep)
        patch.setattr(sqlite, "REPLAY_RUNS", 2)
        patch.setattr(runs, "RUN_EVENTS_MAX", run_events)
        asyncio.run(crash_after_each(lives, Path(folder)))


async def crash_after_each(lives: list[list[list[Command]]], folder: Path) -> None:
    path = folder / "ledger.sqlite3"
    for number, life in enumerate(lives):
        async with closed_at_the_end(SqliteEventLog.open(path)) as log, running(log) as ledger:
            await check(log)
            for request in life:
                await ledger.writer.write(WriteRequest(request))
                await check(log)
            crashed = left_by_a_crash(path, folder / f"{number}")
        async with closed_at_the_end(SqliteEventLog.open(path)) as log:
            await check(log)
        path = crashed
    async with closed_at_the_end(SqliteEventLog.open(path)) as log:
        await check(log)


@asynccontextmanager
async def many_in_memory(path: Path) -> AsyncIterator[SqliteEventLog]:
    """A log with 101 events, in the middle of a sweep."""
    async with closed_at_the_end(SqliteEventLog.open(path)) as log, running(log) as ledger:
        for number in range(101):
            await ledger.writer.write(WriteRequest([CreateAccount("Alice", IDS[number % 8])]))
        assert log._recent._sweep
        yield log


async def next_deposit(log: SqliteEventLog) -> None:
    async with running(log) as ledger:
        await ledger.writer.write(WriteRequest([deposit(1, IDS[0])]))


@pytest.mark.parametrize("is_done", [True, False])
async def test_a_commit_that_is_reported_as_failed_counts_if_it_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_done: bool
) -> None:
    """As when an fsync fails, after or before the commit record is on disk."""
    monkeypatch.setattr(recent_states, "SWEEP_EVENTS", 10)
    commit = sqlite._commit

    def fail(connection: apsw.Connection) -> None:
        if is_done:
            commit(connection)
        raise OutcomeUnknown("the disk said no")

    async with many_in_memory(tmp_path / "ledger.sqlite3") as log:
        for _ in range(20):
            with monkeypatch.context() as patch:
                patch.setattr(sqlite, "_commit", fail)
                with pytest.raises(OutcomeUnknown):
                    await next_deposit(log)
            await check(log)
            await next_deposit(log)
            await check(log)
        assert await log.head() == 101 + 20 + 20 * is_done


async def test_an_append_that_is_cancelled_at_any_moment_leaves_states_that_its_log_explains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent_states, "SWEEP_EVENTS", 10)
    async with many_in_memory(tmp_path / "ledger.sqlite3") as log:
        for moment in range(30):
            appending = asyncio.create_task(next_deposit(log))
            for _ in range(moment // 3):
                await asyncio.sleep(0.0001)
            appending.cancel()
            with suppress(asyncio.CancelledError):
                await appending
            await check(log)


async def test_a_start_does_not_apply_events_to_states_that_have_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep that a crash ended has written one of a transfer's accounts: sent twice, it would not fit in 64 bits."""
    monkeypatch.setattr(recent_states, "SWEEP_EVENTS", 10)
    path, payer, payee, most = tmp_path / "ledger.sqlite3", IDS[0], IDS[-1], INT64_MAX - 1
    async with closed_at_the_end(SqliteEventLog.open(path)) as log, running(log) as ledger:
        await ledger.writer.write(WriteRequest([CreateAccount("Alice", account_id) for account_id in IDS]))
        await ledger.writer.write(WriteRequest([SetOverdraftLimit(payer, most), transfer(most, payee, payer)]))
        await next_deposit(log)
        assert log._recent.states_position == 0
        crashed = left_by_a_crash(path, tmp_path / "crashed")
    async with closed_at_the_end(SqliteEventLog.open(crashed)) as log:
        await check(log)


async def test_a_start_leaves_nothing_to_be_written_or_read_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    async with closed_at_the_end(SqliteEventLog.open(path)) as log:
        await record(log, LOG, STATES)
        assert (log._recent.states_position, len(log._recent.all())) == (0, 2)
        crashed = left_by_a_crash(path, tmp_path / "crashed")
    for file in (path, crashed):
        async with closed_at_the_end(SqliteEventLog.open(file)) as log:
            assert (log._recent.states_position, log._recent.all()) == (5, {})
            async with log.append({ALICE, BOB}, set()) as append:
                assert append.states == STATES


async def test_what_waits_stays_small_however_many_accounts_appends_and_crashes_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, append_max = 100, 40
    monkeypatch.setattr(recent_states, "SWEEP_EVENTS", sweep)
    path, position = tmp_path / "ledger.sqlite3", 0
    for crash in range(20):
        async with closed_at_the_end(SqliteEventLog.open(path)) as log:
            for number in range(40):
                size = 1 + (7 * number + crash) % append_max
                ids = [AccountId(f"{position + n}") for n in range(size)]
                await record(
                    log,
                    [logged(position + n, DEPOSIT_REJECTED, id_, 1) for n, id_ in enumerate(ids, 1)],
                    {id_: state(1) for id_ in ids},
                )
                position += size
                assert len(log._recent.all()) <= sweep + 2 * append_max
                assert position - log._recent.states_position <= 2 * sweep + 3 * append_max
            path = left_by_a_crash(path, tmp_path / f"{crash}")


async def test_a_full_disk_at_the_end_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    async with closed_at_the_end(SqliteEventLog.open(path)) as log:
        events = [logged(n, DEPOSIT_REJECTED, AccountId(f"{n}"), 1) for n in range(1, 2000)]
        await record(log, events, {AccountId(f"{n}"): state(1) for n in range(1, 2000)})
        pages = await log._writer.run(lambda connection: connection.execute("PRAGMA page_count").get)
        await log._writer.run(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").close())
    async with closed_at_the_end(SqliteEventLog.open(path)) as log:
        assert await stored(log) == events
        async with log.append({AccountId("1999")}, set()) as append:
            assert append.states == {AccountId("1999"): state(1)}


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM runs WHERE position = 3",
        "DELETE FROM runs WHERE position = 4",
        "UPDATE runs SET events = x'7b7d' WHERE position = 4",
        "UPDATE ledger SET states_position = 1",
        "UPDATE ledger SET states_position = 9",
    ],
)
async def test_events_that_do_not_follow_are_refused_at_the_next_start(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "ledger.sqlite3"
    async with closed_at_the_end(SqliteEventLog.open(path)) as log:
        for event in LOG:
            await record(log, [event])
        crashed = left_by_a_crash(path, tmp_path / "crashed")
    with sqlite3.connect(crashed) as connection:
        connection.execute(damage)
    connection.close()
    with pytest.raises(CorruptStore, match=f"{crashed}.*good copy"):
        await SqliteEventLog.open(crashed)
