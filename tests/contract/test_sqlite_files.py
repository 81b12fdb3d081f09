"""What only an SQLite file can suffer: other openers, other contents, no space. Nothing is overwritten."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from command_service.account import Account
from command_service.event_store import NewEvent, Stream
from command_service.event_store.sqlite import SqliteEventStore
from projection_service.view_store.sqlite import SqliteViewStore
from shared.events import Position, Version
from shared.migrations import migration_scripts
from shared.problems import CorruptStore, LedgerError, StoreUnavailable
from shared.sqlite import SqliteThread
from tests.contract.conftest import closed_at_the_end
from tests.contract.test_event_store import LOG, STREAMS, encoded, long_log, record, stored
from tests.examples import ALICE, BOB, CREATED, DEPOSITED, logged

STORES: list[type[SqliteEventStore] | type[SqliteViewStore]] = [SqliteEventStore, SqliteViewStore]


async def make_log(path: Path) -> None:
    async with closed_at_the_end(SqliteEventStore.open(path)) as store:
        await record(store, LOG, STREAMS)


async def test_a_log_is_open_in_one_place_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    async with closed_at_the_end(SqliteEventStore.open(path)) as store:
        with pytest.raises(StoreUnavailable, match="DATA_DIR"):
            await SqliteEventStore.open(path)
        await record(store, LOG)
    async with closed_at_the_end(SqliteEventStore.open(path)) as store:
        assert await stored(store) == encoded(LOG)


async def test_a_commit_waits_for_the_disk(tmp_path: Path) -> None:
    """FULL is 2: https://www.sqlite.org/pragma.html#pragma_synchronous. No test here can take the power away."""
    thread = SqliteThread(tmp_path / "file.sqlite3")
    await thread.open()
    setting = await thread.run(lambda connection: connection.execute("PRAGMA synchronous").fetchone())
    await thread.close()
    assert setting == (2,)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("content", [b"my diary, not a database\n" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
async def test_a_file_that_is_no_database_is_refused_and_left_alone(
    tmp_path: Path, store: type[SqliteEventStore] | type[SqliteViewStore], content: bytes
) -> None:
    path = tmp_path / "file.sqlite3"
    path.write_bytes(content)
    with pytest.raises(CorruptStore, match=str(path)):
        await store.open(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("store", STORES)
async def test_a_file_of_a_later_program_is_refused_and_left_alone(
    tmp_path: Path, store: type[SqliteEventStore] | type[SqliteViewStore]
) -> None:
    path = tmp_path / "file.sqlite3"
    async with closed_at_the_end(store.open(path)):
        pass
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(CorruptStore, match="update the program"):
        await store.open(path)
    assert path.read_bytes() == before


async def test_a_truncated_log_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    async with closed_at_the_end(SqliteEventStore.open(path)) as store:
        await record(store, [logged(n, CREATED, version=n) for n in range(1, 2000)])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LedgerError):
        async with closed_at_the_end(SqliteEventStore.open(path)) as store:
            await store.read(Position(0), 10_000, 2**31)
    assert path.read_bytes() == whole[: len(whole) // 2]


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM runs WHERE position = 5",
        "UPDATE ledger SET position = 4",
        "UPDATE ledger SET position = 6",
        "UPDATE ledger SET published = 6",
    ],
)
async def test_a_log_whose_head_is_not_its_last_event_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "ledger.sqlite3"
    await make_log(path)
    with sqlite3.connect(path) as connection:
        connection.execute(damage)
    connection.close()
    with pytest.raises(CorruptStore, match="good copy"):
        await SqliteEventStore.open(path)


def limit_pages(pages: int) -> Callable[[sqlite3.Connection], None]:
    """SQLite's own limit on the size of a file fails as a full disk does: with SQLITE_FULL."""
    return lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").close()


async def test_a_full_disk_writes_nothing_and_says_so_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    async with closed_at_the_end(SqliteEventStore.open(path)) as store:
        await record(store, LOG, STREAMS)
        await store._writer.run(limit_pages(12))
        more = [logged(n, CREATED, version=n - 2) for n in range(6, 500)]
        with pytest.raises(StoreUnavailable, match="full"):
            await record(store, more)
        assert await stored(store) == encoded(LOG)
        await store._writer.run(limit_pages(1_000_000))
        await record(store, more)
        assert len(await stored(store)) == 499


def make_old_log(path: Path, versions: int) -> list[NewEvent]:
    """As the first version of this program wrote it, with so many events of Alice and of Bob."""
    log = long_log(versions)
    with sqlite3.connect(path) as connection:
        connection.executescript(migration_scripts("command_service.event_store", "sqlite")[0])
        connection.execute("INSERT INTO ledger VALUES (1, '/ledgers/old', ?, 0)", (len(log),))
        connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", map(msgspec.structs.astuple, log))
        if versions:
            connection.execute(f"INSERT INTO streams VALUES ('alice', {versions}, NULL, NULL)")
            connection.execute(f"INSERT INTO streams VALUES ('bob', {versions}, 'Bob', 5)")
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    return log


@pytest.mark.parametrize("versions", [0, 1, 31, 32, 512, 1024, 1100])
async def test_a_log_of_an_earlier_program_is_brought_up_to_date(tmp_path: Path, versions: int) -> None:
    path = tmp_path / "ledger.sqlite3"
    log = make_old_log(path, versions)
    streams = {ALICE: Stream(Version(versions), None), BOB: Stream(Version(versions), Account("Bob", 5))}
    async with closed_at_the_end(SqliteEventStore.open(path)) as store:
        assert await stored(store) == encoded(log)
        async with store.append({ALICE, BOB}, set()) as append:
            assert (append.head, append.streams) == (2 * versions, streams if versions else {})
            more = [logged(2 * versions + n, DEPOSITED, BOB, versions + n) for n in range(1, 34)]
            await append.commit(more, {BOB: Stream(Version(versions + 33), Account("Bob", 335))}, {})
        for account_id in (ALICE, BOB):
            events = encoded([event for event in [*log, *more] if event.account_id == account_id])
            for after in {*range(0, versions + 34, 31), 32, 64, 768, 1023, 1024, versions, versions + 33}:
                page = await store.read_stream(account_id, Version(after), 200, 2**31)
                assert page == events[after : after + 200]


@pytest.mark.parametrize("versions", [1, 32, 1024, 1100])
async def test_a_log_of_an_earlier_program_becomes_what_this_one_would_have_written(
    tmp_path: Path, versions: int
) -> None:
    old, new = tmp_path / "old.sqlite3", tmp_path / "new.sqlite3"
    log = make_old_log(old, versions)
    streams = {ALICE: Stream(Version(versions), None), BOB: Stream(Version(versions), Account("Bob", 5))}
    async with closed_at_the_end(SqliteEventStore.open(old)), closed_at_the_end(SqliteEventStore.open(new)) as store:
        await record(store, log, streams)
    for table in ("runs", "streams"):
        contents = []
        for path in (old, new):
            with sqlite3.connect(path) as connection:
                contents.append(connection.execute(f"SELECT * FROM {table}").fetchall())
            connection.close()
        assert contents[0] == contents[1]


@pytest.mark.parametrize("position", [1, 32, 50, 64, 200])
async def test_a_log_of_an_earlier_program_with_a_hole_is_refused_and_left_alone(tmp_path: Path, position: int) -> None:
    path = tmp_path / "ledger.sqlite3"
    make_old_log(path, 100)
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM events WHERE position = ?", (position,))
    connection.close()
    with pytest.raises(CorruptStore, match="hole"):
        await SqliteEventStore.open(path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (199,)
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    connection.close()


async def test_the_files_as_they_are_after_a_power_loss_hold_every_committed_event(tmp_path: Path) -> None:
    """A copy taken while the store is open is what a killed process leaves: file and write-ahead log."""
    path, copy = tmp_path / "ledger.sqlite3", tmp_path / "copy"
    async with closed_at_the_end(SqliteEventStore.open(path)) as store:
        await record(store, LOG, STREAMS)
        copy.mkdir()
        for file in tmp_path.glob("ledger.sqlite3*"):
            shutil.copy(file, copy)
    async with closed_at_the_end(SqliteEventStore.open(copy / "ledger.sqlite3")) as store:
        assert await stored(store) == encoded(LOG)
