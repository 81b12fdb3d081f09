"""What only an SQLite file can suffer: other openers, other contents, no space. Nothing is overwritten."""

import asyncio
import os
import secrets
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import apsw
import pytest

from command_service import event_log
from command_service.event_log.sqlite import SqliteEventLog
from projection_service.view_store.sqlite import SqliteViewStore
from shared.errors import CorruptStore, FilesGone, LedgerError, StoreUnavailable
from shared.events import AccountId, AmountDeposited, Position
from shared.platform import sqlite
from shared.platform.sqlite import SqliteConnection, SqliteThread
from tests.contract.conftest import ALL_VIEWS, closed_at_the_end
from tests.contract.test_event_log import ALL, LOG, STATES, TIME, lead, record, stored
from tests.examples import CREATED, logged


class Views(SqliteViewStore):
    """With all of them."""

    @classmethod
    async def open(cls, path: Path, views: Collection[str] = ALL_VIEWS) -> SqliteViewStore:
        return await super().open(path, views)


Store = type[SqliteEventLog] | type[Views]
STORES: list[Store] = [SqliteEventLog, Views]
EARLIER = Path(__file__).with_name("earlier")
"""What states of this program from before its first release wrote."""
TODAYS = Path(event_log.__file__).with_name("009_event_log.sqlite.sql")


async def make_log(path: Path) -> None:
    async with closed_at_the_end(SqliteEventLog.open(path)) as store:
        await record(store, LOG, STATES)


async def test_a_log_is_open_in_one_place_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    async with closed_at_the_end(SqliteEventLog.open(path)) as store:
        with pytest.raises(StoreUnavailable, match="DATA_DIR"):
            await SqliteEventLog.open(path)
        await record(store, LOG)
    async with closed_at_the_end(SqliteEventLog.open(path)) as store:
        assert await stored(store) == LOG


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
    tmp_path: Path, store: Store, content: bytes
) -> None:
    path = tmp_path / "file.sqlite3"
    path.write_bytes(content)
    with pytest.raises(CorruptStore, match=str(path)):
        await store.open(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("store", STORES)
async def test_a_file_of_a_later_program_is_refused_and_left_alone(tmp_path: Path, store: Store) -> None:
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
    async with closed_at_the_end(SqliteEventLog.open(path)) as store:
        await record(store, [logged(n, CREATED, version=n) for n in range(1, 2000)])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LedgerError):
        async with closed_at_the_end(SqliteEventLog.open(path)) as store:
            await store.read(Position(0), 10_000, 2**31)
    assert path.read_bytes() == whole[: len(whole) // 2]


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM runs WHERE position = 5",
        "UPDATE ledger SET position = 4",
        "UPDATE ledger SET position = 6",
        "UPDATE ledger SET chain = zeroblob(32)",
        "UPDATE ledger SET published = 6",
        "UPDATE ledger SET published = -1",
        "UPDATE ledger SET states_position = 6",
        "UPDATE ledger SET states_position = -1",
        "DELETE FROM ledger",
    ],
)
async def test_a_log_whose_head_is_not_its_last_event_is_refused_and_left_alone(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "ledger.sqlite3"
    await make_log(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(damage)
        before = list(connection.iterdump())
    with pytest.raises(CorruptStore, match="good copy"):
        await SqliteEventLog.open(path)
    with closing(sqlite3.connect(path)) as connection:
        assert list(connection.iterdump()) == before


def limit_pages(pages: int) -> Callable[[apsw.Connection], None]:
    """SQLite's own limit on the size of a file fails as a full disk does: with SQLITE_FULL."""
    return lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").close()


async def test_a_full_disk_writes_nothing_and_says_so_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    async with closed_at_the_end(SqliteEventLog.open(path)) as store:
        await record(store, LOG, STATES)
        await store._writer.run(limit_pages(12))
        more = [logged(n, AmountDeposited(1, secrets.token_hex(500)), version=n - 2) for n in range(6, 500)]
        with pytest.raises(StoreUnavailable, match="full"):
            await record(store, more)
        assert await stored(store) == LOG
        await store._writer.run(limit_pages(1_000_000))
        await record(store, more)
        assert len(await stored(store)) == 499


@pytest.mark.parametrize(
    ("tables", "version"),
    [
        (EARLIER / "001.sqlite.sql", 1),
        (EARLIER / "001.sqlite.sql", 2),
        (EARLIER / "004.sqlite.sql", 3),
        (EARLIER / "004.sqlite.sql", 4),
        (TODAYS, 6),  # with other answers in them
        (TODAYS, 8),  # with the columns of answers in another order
    ],
    ids=lambda value: getattr(value, "name", value),
)
async def test_a_log_from_before_the_first_release_is_refused_and_left_alone(
    tmp_path: Path, tables: Path, version: int
) -> None:
    path = tmp_path / "ledger.sqlite3"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(tables.read_text())
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(CorruptStore, match=r"before its first release, .* move it away to begin anew"):
        await SqliteEventLog.open(path)
    assert path.read_bytes() == before


async def test_the_files_as_they_are_after_a_power_loss_hold_every_committed_event(tmp_path: Path) -> None:
    """A copy taken while the store is open is what a killed process leaves: file and write-ahead log."""
    path, copy = tmp_path / "ledger.sqlite3", tmp_path / "copy"
    async with closed_at_the_end(SqliteEventLog.open(path)) as store:
        await record(store, LOG, STATES)
        copy.mkdir()
        for file in tmp_path.glob("ledger.sqlite3*"):
            shutil.copy(file, copy)
    async with closed_at_the_end(SqliteEventLog.open(copy / "ledger.sqlite3")) as store:
        assert await stored(store) == LOG


@pytest.mark.parametrize("store", STORES)
async def test_files_are_for_their_user_alone_and_a_folder_that_is_there_stays_as_it_is(
    tmp_path: Path, store: Store
) -> None:
    there = tmp_path / "there"
    there.mkdir(mode=0o755)
    for folder, mode in ((there, 0o755), (tmp_path / "made", 0o700)):
        async with closed_at_the_end(store.open(folder / "file.sqlite3")):
            assert folder.stat().st_mode & 0o777 == mode
            names = [file.name for file in folder.iterdir()]
            assert sorted(names) == [
                f"file{suffix}" for suffix in (".lock", ".sqlite3", ".sqlite3-shm", ".sqlite3-wal")
            ]
            assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}


def link_to_somewhere(lock: Path) -> Path:
    somewhere = lock.with_name("diary")
    somewhere.write_text("dear diary")
    lock.symlink_to(somewhere)
    return somewhere


def second_name_of_something(lock: Path) -> Path:
    something = link_to_somewhere(lock)
    lock.unlink()
    lock.hardlink_to(something)
    return something


def another_content(lock: Path) -> Path:
    lock.write_text("dear diary")
    return lock


def queue_file(lock: Path) -> Path:
    os.mkfifo(lock)
    return lock


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("make", [link_to_somewhere, second_name_of_something, another_content, queue_file, Path.mkdir])
async def test_what_is_no_lock_file_of_ours_is_refused_and_left_alone(
    tmp_path: Path, store: Store, make: Callable[[Path], Path | None]
) -> None:
    kept = make(tmp_path / "file.lock")
    with pytest.raises(StoreUnavailable, match=r"file\.lock is no lock file"):
        await store.open(tmp_path / "file.sqlite3")
    assert kept is None or not kept.is_file() or kept.read_text() == "dear diary"


def remove(file: Path) -> None:
    file.unlink()


def replace(file: Path) -> None:
    copy = file.with_name("copy")
    shutil.copy(file, copy)
    copy.replace(file)


def remove_the_folder(file: Path) -> None:
    shutil.rmtree(file.parent)


async def append_one(store: SqliteEventLog) -> None:
    async with store.append(set(), set()) as append:
        position = append.head.position + 1
        await append.commit([logged(position, CREATED, AccountId(f"{position}"), 1)], TIME, {}, {})


@pytest.mark.parametrize("lose", [remove, replace, remove_the_folder])
@pytest.mark.parametrize("suffix", [".sqlite3", ".sqlite3-wal"])
async def test_no_commit_is_reported_whose_files_were_removed_or_replaced(
    tmp_path: Path, lose: Callable[[Path], None], suffix: str
) -> None:
    folder = tmp_path / "data"
    async with closed_at_the_end(SqliteEventLog.open(folder / "ledger.sqlite3")) as store:
        await append_one(store)
        lose(folder / f"ledger{suffix}")
        for _ in range(2):
            with pytest.raises(FilesGone, match=r"Put the files of .* back"):
                await append_one(store)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("lose", [remove, replace, remove_the_folder])
@pytest.mark.parametrize("suffix", [".sqlite3", ".sqlite3-wal", ".sqlite3-shm", ".lock"])
async def test_files_that_are_removed_or_replaced_are_missed_while_nothing_is_written(
    tmp_path: Path, store: Store, lose: Callable[[Path], None], suffix: str
) -> None:
    folder = tmp_path / "data"
    opening: Awaitable[SqliteEventLog | SqliteViewStore] = store.open(folder / "file.sqlite3")
    async with closed_at_the_end(opening) as opened, asyncio.timeout(30):
        watching = asyncio.create_task(opened.files.watch())
        await asyncio.sleep(0)
        assert not watching.done()
        lose(folder / f"file{suffix}")
        with pytest.raises(FilesGone, match=str(folder)):
            await watching


@contextmanager
def locked_by_another_program(path: Path) -> Iterator[None]:
    """It has begun to write, and does not go on."""
    program = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('BEGIN IMMEDIATE'); print(); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


async def longest_pause(during: "asyncio.Future[None]") -> float:
    """Seconds in which the event loop did nothing else."""
    longest, last = 0.0, time.monotonic()
    while not during.done():
        await asyncio.sleep(0.001)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    return longest


async def save_published(store: SqliteEventLog) -> None:
    await store.end_lease(await lead(store), Position(1))


@pytest.mark.parametrize("act", [append_one, save_published])
async def test_the_event_loop_goes_on_while_another_program_has_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[SqliteEventLog], Awaitable[None]]
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 2)
    path = tmp_path / "ledger.sqlite3"
    async with closed_at_the_end(SqliteEventLog.open(path)) as store:
        await append_one(store)
        with locked_by_another_program(path):
            waiting = asyncio.ensure_future(act(store))
            assert await longest_pause(waiting) < 1
        with pytest.raises(StoreUnavailable, match="another program has locked it"):
            await waiting
        await act(store)


async def test_a_store_is_closed_while_another_program_has_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 1)
    path = tmp_path / "ledger.sqlite3"
    store = await SqliteEventLog.open(path)
    await record(store, LOG, STATES)
    with locked_by_another_program(path):
        await store.close()
    async with closed_at_the_end(SqliteEventLog.open(path)) as store:
        assert await stored(store) == LOG


async def test_an_append_goes_on_when_another_program_gives_up_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    async with closed_at_the_end(SqliteEventLog.open(path)) as store:
        with locked_by_another_program(path):
            appending = asyncio.create_task(record(store, LOG))
            await asyncio.wait([appending], timeout=0.2)
            assert not appending.done()
        await appending


async def test_an_append_of_nothing_waits_for_the_disk_too(tmp_path: Path) -> None:
    """That it writes shows in the size of the write-ahead log: SQLite leaves out a row that stays as it is."""
    path = tmp_path / "ledger.sqlite3"
    async with closed_at_the_end(SqliteEventLog.open(path)) as store:
        await record(store, LOG)
        before = path.with_name("ledger.sqlite3-wal").stat().st_size
        await record(store, [])
        assert path.with_name("ledger.sqlite3-wal").stat().st_size > before
        assert await store.head() == len(LOG)


def test_a_file_that_cannot_be_used_is_closed_again(tmp_path: Path) -> None:
    """Python 3.13 and later complain of a connection that nobody closed."""
    path = tmp_path / "file.sqlite3"
    path.write_bytes(b"my diary, not a database\n" * 1000)
    with pytest.raises(CorruptStore) as refused:
        SqliteConnection(path)
    (half_made,) = {
        entry.locals["self"] for entry in refused.traceback if isinstance(entry.locals.get("self"), SqliteConnection)
    }
    with pytest.raises(apsw.ConnectionClosedError, match="closed"):
        half_made._connection.execute("SELECT 1")


def test_a_name_that_sqlite_cannot_take_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="UTF-8 alone"):
        SqliteConnection(tmp_path / "\udcff.sqlite3")


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_a_file_is_the_one_of_its_name_in_any_locale(tmp_path: Path, locale: str) -> None:
    """Where it is not UTF-8, Python takes the bytes of a name for other letters, or none."""
    path = tmp_path / "caf\u00e9.sqlite3"
    program = """
import sys; from pathlib import Path; from shared.platform.sqlite import SqliteConnection
SqliteConnection(Path(sys.argv[1])).run(lambda connection: connection.execute("CREATE TABLE here (one)"))
"""
    environment = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", program, path], check=True, env={**os.environ, **environment})
    assert [file.name for file in tmp_path.glob("*.sqlite3")] == [path.name]


async def test_the_connection_is_let_go_when_its_thread_is_done_however_often_who_waits_is_cancelled(
    tmp_path: Path,
) -> None:
    thread, go_on = SqliteThread(tmp_path / "file.sqlite3"), threading.Event()
    await thread.open()
    waiting = asyncio.create_task(thread.run(lambda _: go_on.wait()))
    for _ in range(3):
        await asyncio.sleep(0.01)
        waiting.cancel()
    await asyncio.wait([waiting], timeout=0.1)
    assert not waiting.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await thread.close()


async def test_a_long_page_of_large_events_lets_appends_in_between(tmp_path: Path) -> None:
    large = AmountDeposited(1, "\N{BANK}" * 1000)
    async with closed_at_the_end(SqliteEventLog.open(tmp_path / "ledger.sqlite3")) as store:
        for first in range(1, 9601, 64):
            await record(store, [logged(first + n, large, AccountId(f"{n}")) for n in range(64)])
        reading = asyncio.create_task(store.read(Position(0), ALL, 2**31))
        appends = 0
        while not reading.done():
            await append_one(store)
            appends += 1
        assert len((await reading).events) >= 9600
        assert appends > 3


async def test_views_of_an_earlier_state_are_refused(tmp_path: Path) -> None:
    """They were all in one migration, number 1."""
    path = tmp_path / "views.sqlite3"
    async with closed_at_the_end(Views.open(path)):
        pass
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    with pytest.raises(CorruptStore, match="before its first release"):
        await Views.open(path)
