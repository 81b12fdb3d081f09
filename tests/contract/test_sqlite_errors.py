"""What the errors of SQLite, and of Python about it, are told as: damage, a store in trouble, or a bug of ours."""

import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import apsw
import msgspec
import pytest

from command_service.event_log.sqlite import SqliteEventLog
from command_service.ledger.states import decode_account
from projection_service.view_store import OtherViews, Read
from projection_service.view_store.kept import parts
from projection_service.view_store.sqlite import SqliteViewStore
from projection_service.views.accounts.tables import read_account
from projection_service.views.reserve.tables import read_page
from shared.errors import CorruptStore, LedgerError, StoreUnavailable
from shared.events import AccountId, Position
from shared.platform.sqlite import SqliteConnection
from shared.zstd import zstd
from tests.contract.conftest import ALL_VIEWS, closed_at_the_end
from tests.contract.test_event_log import LOG, STATES, record
from tests.contract.test_sqlite_files import STORES, Store, Views, make_log
from tests.contract.test_view_store import BEGINNING, checkpoint, put, view
from tests.examples import ALICE, DEPOSITED, logged

Use = Callable[[Path], Awaitable[object]]


async def make_views(path: Path) -> None:
    async with closed_at_the_end(Views.open(path)) as store:
        await store.commit(BEGINNING, checkpoint(1), put(view(ALICE, 1)))


async def read_states(path: Path) -> None:
    async with closed_at_the_end(SqliteEventLog.open(path)) as store:
        await store.states(AccountId(""))


async def read_view(path: Path) -> None:
    async with closed_at_the_end(Views.open(path)) as store:
        await read_account(store.read, ALICE)


async def read_view_for_fold(path: Path) -> None:
    async with closed_at_the_end(Views.open(path)) as store:
        await read_account(partial(store.read_for_fold, checkpoint(1)), ALICE)


def replace(path: Path, part: bytes, damaged: bytes) -> bytes:
    """In the file, which nobody has open: all that is in it then."""
    content = path.read_bytes()
    assert part in content
    path.write_bytes(content.replace(part, damaged))
    return path.read_bytes()


@pytest.mark.parametrize(
    ("make", "use", "text", "damaged"),
    [
        (make_log, SqliteEventLog.open, b"/ledgers/", b"/ledger\xf3/"),
        (make_log, read_states, b"alice", b"\xe1lice"),
        (make_views, Views.open, b'{"accounts"', b'{"account\xf3"'),
        (make_views, read_view, b"Alice", b"\xc1lice"),
        (make_views, read_view_for_fold, b"Alice", b"\xc1lice"),
    ],
)
async def test_a_text_that_is_none_any_more_is_damage(
    tmp_path: Path, make: Use, use: Use, text: bytes, damaged: bytes
) -> None:
    path = tmp_path / "file.sqlite3"
    await make(path)
    replace(path, text, damaged)
    with pytest.raises(CorruptStore, match=f"{path}: .*utf-8.*good copy"):
        await use(path)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize(
    ("part", "damaged"),
    [
        (b"CREATE TABLE", b"BREATE TABLE"),
        (b") STRICT", b") STR\xc9CT"),  # which SQLite quotes in what it says
        (b"-- One row", b"-\xad One row"),
        (b"-- One row", b"-- One ro\xf7"),
        (b"position INTEGER", b"pnsition INTEGER"),
        (b"position INTEGER", b"position ANTEGER"),
    ],
)
async def test_a_damaged_schema_is_refused_and_left_alone(
    tmp_path: Path, store: Store, part: bytes, damaged: bytes
) -> None:
    path = tmp_path / "file.sqlite3"
    async with closed_at_the_end(store.open(path)):
        pass
    before = replace(path, part, damaged)
    with pytest.raises(CorruptStore, match=f"{path}: .*good copy"):
        await store.open(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("store", "kind", "part"),
    [(SqliteEventLog, "TABLE", "answers"), *((Views, *part) for name in ALL_VIEWS for part in parts(name))],
)
async def test_a_part_that_is_not_there_is_damage_though_sqlite_sees_none(
    tmp_path: Path, store: Store, kind: str, part: str
) -> None:
    path = tmp_path / "file.sqlite3"
    async with closed_at_the_end(store.open(path)):
        pass
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"ALTER TABLE {part} RENAME TO another" if kind == "TABLE" else f"DROP INDEX {part}")
    with pytest.raises(CorruptStore, match="its tables are not those that this program makes"):
        await store.open(path)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("version", [0, -1])
async def test_tables_without_a_version_are_refused_and_left_alone(tmp_path: Path, store: Store, version: int) -> None:
    path = tmp_path / "file.sqlite3"
    async with closed_at_the_end(store.open(path)):
        pass
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    before = path.read_bytes()
    with pytest.raises(CorruptStore, match="good copy"):
        await store.open(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("store", STORES)
async def test_a_damaged_format_number_is_found(tmp_path: Path, store: Store) -> None:
    """The one of the schema, at 44: https://www.sqlite.org/fileformat.html#the_database_header"""
    path = tmp_path / "file.sqlite3"
    async with closed_at_the_end(store.open(path)):
        pass
    content = path.read_bytes()
    path.write_bytes(content[:47] + b"\x05" + content[48:])
    with pytest.raises(CorruptStore, match="unsupported file format"):
        await store.open(path)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize(
    ("statement", "bug"),
    [
        ("SELECT ?", apsw.BindingsError),
        ("SELECT nothing", apsw.SQLError),
        ("INSERT INTO one_row VALUES (2)", apsw.ConstraintError),
    ],
)
async def test_a_bug_is_not_told_as_trouble_of_the_store(
    tmp_path: Path, store: Store, statement: str, bug: type[apsw.Error]
) -> None:
    opening: Awaitable[SqliteEventLog | SqliteViewStore] = store.open(tmp_path / "file.sqlite3")
    async with closed_at_the_end(opening) as opened:
        execute = apsw.Connection.execute
        await opened._writer.run(execute, "CREATE TEMP TABLE one_row (one CHECK (one = 1))")
        with pytest.raises(bug):
            await opened._writer.run(execute, statement)


async def test_a_view_that_another_process_has_taken_away_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "file.sqlite3"
    async with closed_at_the_end(Views.open(path)) as one, closed_at_the_end(Views.open(path, ["accounts"])):
        for read in (one.read, partial(one.read_for_fold, BEGINNING)):
            with pytest.raises(OtherViews, match="another PROJECTION_VIEWS"):
                await read_page(read, "", 1)


@pytest.mark.parametrize(("kind", "part"), [part for name in ALL_VIEWS for part in parts(name)])
async def test_a_part_that_somebody_takes_away_is_damage(tmp_path: Path, kind: str, part: str) -> None:
    path = tmp_path / "file.sqlite3"
    async with closed_at_the_end(Views.open(path)) as store:
        with closing(apsw.Connection(str(path))) as another:
            another.execute(f"DROP {kind} {part}")
        with pytest.raises(CorruptStore, match="its tables are not those that this program makes"):
            await store.read(Read.in_both(f"SELECT 1 FROM {part}" if kind == "TABLE" else indexed(part)))


def indexed(index: str) -> str:
    table = "history_holds" if index.startswith("history") else "accounts"
    return f"SELECT 1 FROM {table} INDEXED BY {index}"


def test_a_closed_connection_is_a_bug(tmp_path: Path) -> None:
    connection = SqliteConnection(tmp_path / "file.sqlite3")
    connection.close()
    with pytest.raises(apsw.ConnectionClosedError, match="closed"):
        connection.run(apsw.Connection.execute, "SELECT 1")


@pytest.mark.parametrize(
    ("code", "told", "advice"),
    [
        (apsw.SQLITE_CORRUPT, CorruptStore, "good copy"),
        (apsw.SQLITE_CORRUPT_INDEX, CorruptStore, "good copy"),
        (apsw.SQLITE_CORRUPT_VTAB, CorruptStore, "good copy"),
        (apsw.SQLITE_NOTADB, CorruptStore, "good copy"),
        (apsw.SQLITE_IOERR_SHORT_READ, CorruptStore, "good copy"),
        (apsw.SQLITE_FULL, StoreUnavailable, "Make room"),
        (apsw.SQLITE_IOERR_FSYNC, StoreUnavailable, ""),
        (apsw.SQLITE_BUSY_SNAPSHOT, StoreUnavailable, ""),
        (apsw.SQLITE_LOCKED, StoreUnavailable, ""),
        (apsw.SQLITE_CANTOPEN_ISDIR, StoreUnavailable, "must be able to write"),
        (apsw.SQLITE_READONLY_DIRECTORY, StoreUnavailable, "must be able to write"),
    ],
)
def test_an_error_is_told_by_the_first_part_of_its_code(
    tmp_path: Path, code: int, told: type[LedgerError], advice: str
) -> None:
    """Which are SQLite's classes: https://www.sqlite.org/rescode.html#primary_result_codes_versus_extended_result_codes"""

    def fail(_: apsw.Connection) -> None:
        error = apsw.exception_for(code)
        error.args = ("as SQLite says it",)
        raise error

    with (
        closing(SqliteConnection(tmp_path / "file.sqlite3")) as connection,
        pytest.raises(told, match=f"as SQLite says it.*{advice}"),
    ):
        connection.run(fail)


async def test_what_was_changed_in_the_log_is_not_signed_and_what_comes_before_is_sent(tmp_path: Path) -> None:
    """Of a page that ends within compressed events the chain is reckoned out of them."""
    path, size = tmp_path / "ledger.sqlite3", 1_000_000
    async with closed_at_the_end(SqliteEventLog.open(path)) as store:
        await record(store, LOG[:2])
        await record(store, LOG[2:])
    with closing(sqlite3.connect(path)) as connection:
        ((packed,),) = connection.execute("SELECT events FROM runs WHERE position = ?", (len(LOG),))
        changed = zstd.compress(zstd.decompress(packed).replace(b'"amount":100', b'"amount":900', 1))
        connection.execute("UPDATE runs SET events = ? WHERE position = ?", (changed, len(LOG)))
        connection.commit()
    async with closed_at_the_end(SqliteEventLog.open(path)) as store:
        good = await store.read(Position(0), 2, size)
        for read in (store.read, store.read_packed):
            first = await read(Position(0), 3, size)
            assert first is not None
            assert first.end == good.end
            for after, limit in ((2, 1), (3, 1)):
                with pytest.raises(CorruptStore, match="good copy"):
                    await read(Position(after), limit, size)


@pytest.mark.parametrize("version", [0, -1, 2**63 - 1])
async def test_a_version_that_no_account_can_have_is_damage(tmp_path: Path, version: int) -> None:
    path = tmp_path / "ledger.sqlite3"
    async with closed_at_the_end(SqliteEventLog.open(path)) as store:
        await record(store, LOG, STATES)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE states SET version = ?", (version,))
        connection.commit()
    async with closed_at_the_end(SqliteEventLog.open(path)) as store:
        with pytest.raises(CorruptStore, match="good copy"):
            async with store.append({ALICE}, set()):
                pass


@pytest.mark.parametrize("state", [[2, 2**63], [2, -(2**63)], [2, 0, -1], [2, 0, 0, "open", None, -(2**63), 1]])
def test_a_state_that_no_account_can_have_is_damage(state: list[object]) -> None:
    with pytest.raises(CorruptStore, match="good copy"):
        decode_account(msgspec.msgpack.encode(state))


async def test_a_page_of_many_short_runs_is_sent_as_text(tmp_path: Path) -> None:
    """Clients read so many compressed parts, and no more: aiohttp 1024."""
    async with closed_at_the_end(SqliteEventLog.open(tmp_path / "ledger.sqlite3")) as store:
        for position in range(1, 521):
            await record(store, [logged(position, DEPOSITED, version=position)])
        page = await store.read_packed(Position(20), 500, 1_000_000)
        assert page is not None
        assert page.end == (await store.read(Position(0), 520, 1_000_000)).end
        assert page.body.count(zstd.compress(b"", 1)[:4]) < 1024
        assert await store.read_packed(Position(0), 10_000, 1_000_000) is None
