"""Streams that are not yet in their table: nothing about them is lost in a crash, at whatever moment it comes."""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from command_service.account import Command, CreateAccount, evolve
from command_service.event_store import Stream, sqlite, sqlite_streams
from command_service.event_store.sqlite import SqliteEventStore
from command_service.ledger_writer import WriteRequest
from shared.events import AccountId, RecordedEvent, Version, decode_events, join_events
from shared.problems import CorruptStore, OutcomeUnknown
from tests.contract.conftest import closed_at_the_end
from tests.contract.test_event_store import LOG, STREAMS, encoded, long_log, record, stored
from tests.contract.test_ledger import ALL, running
from tests.examples import ALICE, BOB, DEPOSIT_REJECTED, deposit, logged, withdraw

IDS = [AccountId(name) for name in "abcdefgh"]
ids = st.sampled_from(IDS)
commands = st.one_of(
    st.builds(CreateAccount, st.just("Alice"), ids),
    st.builds(deposit, st.integers(0, 3), ids),
    st.builds(withdraw, st.integers(0, 3), ids),
)


def left_by_a_crash(path: Path, to: Path) -> Path:
    """A copy taken while the store is open is what a killed process leaves: file and write-ahead log."""
    to.mkdir()
    for file in path.parent.glob(f"{path.name}*"):
        shutil.copy(file, to)
    return to / path.name


def folded(events: Sequence[RecordedEvent]) -> dict[AccountId, Stream]:
    streams: dict[AccountId, Stream] = {}
    for event in events:
        before = streams.get(event.account_id, Stream(Version(0), None))
        streams[event.account_id] = Stream(event.version, evolve(before.account, event.event))
    return streams


async def check(store: SqliteEventStore) -> None:
    """Each stream stands where its events, replayed from the first one, have brought it."""
    log = await stored(store)
    events = decode_events(join_events(log))
    async with store.append(IDS, set()) as append:
        assert append.head == len(events)
        assert append.streams == folded(events)
    for account_id in IDS:
        own = [encoded for event, encoded in zip(events, log, strict=True) if event.account_id == account_id]
        for after in {*range(10), len(own) // 2, 31, 32, 33, len(own)}:
            assert await store.read_stream(account_id, Version(after), 20, ALL) == own[after : after + 20]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    runs=st.lists(st.lists(st.lists(commands, min_size=1, max_size=40), max_size=6), min_size=1, max_size=4),
    sweep=st.sampled_from([1, 2, 5, 20, 1000]),
    stride=st.sampled_from([2, 3, 32]),
)
def test_after_any_commands_and_crashes_each_stream_is_what_its_events_say(
    runs: list[list[list[Command]]], sweep: int, stride: int
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite_streams, "SWEEP_EVENTS", sweep)
        patch.setattr(sqlite_streams, "REPLAY_RUNS", 2)
        patch.setattr(sqlite, "RUN_EVENTS", 3)
        patch.setattr(sqlite_streams, "STRIDE", stride)
        asyncio.run(crash_after_each(runs, Path(folder)))


async def crash_after_each(runs: list[list[list[Command]]], folder: Path) -> None:
    path = folder / "ledger.sqlite3"
    for number, run in enumerate(runs):
        async with closed_at_the_end(SqliteEventStore.open(path)) as store, running(store) as ledger:
            await check(store)
            for request in run:
                await ledger.writer.write(WriteRequest(request))
                await check(store)
            crashed = left_by_a_crash(path, folder / f"{number}")
        async with closed_at_the_end(SqliteEventStore.open(path)) as store:
            await check(store)
        path = crashed
    async with closed_at_the_end(SqliteEventStore.open(path)) as store:
        await check(store)


@asynccontextmanager
async def many_in_memory(path: Path) -> AsyncIterator[SqliteEventStore]:
    """A store with 100 events, in the middle of a sweep."""
    async with closed_at_the_end(SqliteEventStore.open(path)) as store, running(store) as ledger:
        for number in range(100):
            await ledger.writer.write(WriteRequest([CreateAccount("Alice", IDS[number % 8])]))
        assert store._recent._sweep
        yield store


async def next_deposit(store: SqliteEventStore) -> None:
    async with running(store) as ledger:
        await ledger.writer.write(WriteRequest([deposit(1, IDS[0])]))


@pytest.mark.parametrize("is_done", [True, False])
async def test_a_commit_that_is_reported_as_failed_counts_if_it_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_done: bool
) -> None:
    """As when an fsync fails, after or before the commit record is on disk."""
    monkeypatch.setattr(sqlite_streams, "SWEEP_EVENTS", 3)
    commit = sqlite._commit

    def fail(connection: sqlite3.Connection) -> None:
        if is_done:
            commit(connection)
        raise OutcomeUnknown("the disk said no")

    async with many_in_memory(tmp_path / "ledger.sqlite3") as store:
        for _ in range(20):
            with monkeypatch.context() as patch:
                patch.setattr(sqlite, "_commit", fail)
                with pytest.raises(OutcomeUnknown):
                    await next_deposit(store)
            await check(store)
            await next_deposit(store)
            await check(store)
        assert await store.head() == 100 + 20 + 20 * is_done


async def test_an_append_that_is_cancelled_at_any_moment_leaves_streams_that_its_log_explains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_streams, "SWEEP_EVENTS", 3)
    async with many_in_memory(tmp_path / "ledger.sqlite3") as store:
        for moment in range(30):
            appending = asyncio.create_task(next_deposit(store))
            for _ in range(moment // 3):
                await asyncio.sleep(0.0001)
            appending.cancel()
            with suppress(asyncio.CancelledError):
                await appending
            await check(store)


async def test_a_start_leaves_nothing_to_be_written_or_read_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    async with closed_at_the_end(SqliteEventStore.open(path)) as store:
        await record(store, LOG, STREAMS)
        assert (store._recent.streams_position, len(store._recent.ends)) == (0, 2)
        crashed = left_by_a_crash(path, tmp_path / "crashed")
    for file in (path, crashed):
        async with closed_at_the_end(SqliteEventStore.open(file)) as store:
            assert (store._recent.streams_position, store._recent.ends) == (5, {})
            async with store.append({ALICE, BOB}, set()) as append:
                assert append.streams == STREAMS


async def test_what_waits_stays_small_however_many_accounts_appends_and_crashes_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, append_max = 100, 40
    monkeypatch.setattr(sqlite_streams, "SWEEP_EVENTS", sweep)
    path, position = tmp_path / "ledger.sqlite3", 0
    for crash in range(20):
        async with closed_at_the_end(SqliteEventStore.open(path)) as store:
            for number in range(40):
                size = 1 + (7 * number + crash) % append_max
                ids = [AccountId(f"{position + n}") for n in range(size)]
                await record(
                    store,
                    [logged(position + n, DEPOSIT_REJECTED, id_, 1) for n, id_ in enumerate(ids, 1)],
                    {id_: Stream(Version(1), None) for id_ in ids},
                )
                position += size
                assert len(store._recent.ends) <= sweep + 2 * append_max
                assert position - store._recent.streams_position <= 2 * sweep + 3 * append_max
            path = left_by_a_crash(path, tmp_path / f"{crash}")


async def test_a_full_disk_at_the_end_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    async with closed_at_the_end(SqliteEventStore.open(path)) as store:
        events = [logged(n, DEPOSIT_REJECTED, AccountId(f"{n}"), 1) for n in range(1, 2000)]
        await record(store, events, {event.account_id: Stream(event.version, None) for event in events})
        (pages,) = await store._writer.run(lambda connection: connection.execute("PRAGMA page_count").fetchone())
        await store._writer.run(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").close())
    async with closed_at_the_end(SqliteEventStore.open(path)) as store:
        assert await stored(store) == encoded(events)
        async with store.append({AccountId("1999")}, set()) as append:
            assert append.streams == {AccountId("1999"): Stream(Version(1), None)}


async def test_a_stream_is_whole_while_its_end_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look into memory and the one into the file, events come and sweeps go."""
    monkeypatch.setattr(sqlite_streams, "SWEEP_EVENTS", 3)
    log = long_log(200)
    of_bob = encoded([event for event in log if event.account_id == BOB])
    async with closed_at_the_end(SqliteEventStore.open(tmp_path / "ledger.sqlite3")) as store:
        for event in log:
            reading = [
                asyncio.create_task(store.read_stream(BOB, Version(after), 50, ALL))
                for after in range(0, event.version + 2, 9)
            ]
            await record(store, [event], {event.account_id: Stream(event.version, None)})
            for after, task in zip(range(0, event.version + 2, 9), reading, strict=True):
                page = await task
                assert page == of_bob[after : after + len(page)]
                assert len(page) >= min(50, event.version - 1 - after)


async def test_a_way_back_that_leads_out_of_the_log_is_refused(tmp_path: Path) -> None:
    async with closed_at_the_end(SqliteEventStore.open(tmp_path / "ledger.sqlite3")) as store:
        await record(store, long_log(2)[:2], {id_: Stream(Version(1), None) for id_ in (ALICE, BOB)})
        await record(store, long_log(2)[2:], {id_: Stream(Version(2), None) for id_ in (ALICE, BOB)})
        await store._writer.run(lambda connection: connection.execute("DELETE FROM runs WHERE position = 2").close())
        with pytest.raises(CorruptStore, match="good copy"):
            await store.read_stream(ALICE, Version(0), ALL, ALL)


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM runs WHERE position = 3",
        "DELETE FROM runs WHERE position = 4",
        "UPDATE runs SET events = '{}' WHERE position = 4",
        "UPDATE ledger SET streams_position = 1",
        "UPDATE ledger SET streams_position = 9",
    ],
)
async def test_events_that_do_not_follow_are_refused_at_the_next_start(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "ledger.sqlite3"
    async with closed_at_the_end(SqliteEventStore.open(path)) as store:
        for event in LOG:
            await record(store, [event], {event.account_id: Stream(event.version, None)})
        crashed = left_by_a_crash(path, tmp_path / "crashed")
    with sqlite3.connect(crashed) as connection:
        connection.execute(damage)
    connection.close()
    with pytest.raises(CorruptStore, match=f"{crashed}.*good copy"):
        await SqliteEventStore.open(crashed)
