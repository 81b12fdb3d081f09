"""A rebuild beside views in use, step by step; over every view store."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from projection_service.feed import PAGE_EVENTS_MAX, FeedUnavailable, Page
from projection_service.projection import ForeignLedger, OtherHistory, Projection
from projection_service.rebuild import run
from projection_service.rebuild.run import Contradiction, rebuild
from projection_service.view_store import Change, Checkpoint, OtherViews, Read, ViewStore
from projection_service.view_store.beside import Beside, NoViews, QueriesInTheWay, RebuildUnderWay
from projection_service.view_store.beside_postgres import PostgresBeside, open_postgres
from projection_service.view_store.beside_sqlite import SqliteBeside, open_sqlite
from projection_service.view_store.kept import encode_numbers, last_number, parts
from projection_service.view_store.postgres import PostgresViewStore
from projection_service.view_store.sqlite import SqliteViewStore
from projection_service.views import VIEWS
from projection_service.views.accounts.tables import read_account
from projection_service.views.history.tables import read_history
from projection_service.views.reserve.tables import read_reserves
from shared.errors import CorruptStore, StoreUnavailable
from shared.events import USD, HoldId, HoldPlaced, Position, RecordedEvent, Version
from shared.witness import Signer, new_key
from tests.contract.conftest import ChangeViews, OpenViewStore
from tests.contract.test_projection import Ledger, fold, projection_on
from tests.examples import ALICE, CREATED, DEPOSITED, INT64_MAX, SIGNER, SOURCE, WITHDRAWN, recorded

LOG = [
    recorded(1, CREATED),
    *(recorded(position, DEPOSITED) for position in range(2, 12)),
    recorded(12, HoldPlaced(HoldId("order-7"), 50, "")),
    recorded(13, WITHDRAWN),
]
READ_NAMES = Read(
    sqlite="SELECT name FROM sqlite_schema",
    postgres="SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace",
)
OpenBeside = Callable[[], AbstractAsyncContextManager[Beside]]


class Pages(Ledger):
    """Of two events each."""

    async def read(self, after: Position, wait_seconds: float = 0, events_max: int = PAGE_EVENTS_MAX) -> Page:
        return await super().read(after, wait_seconds, min(2, events_max))


async def asked(ledger: Ledger, times: int) -> None:
    for _ in range(times):
        await ledger.asked.get()


class Said(list[str]):
    def say(self, sentence: str) -> None:
        self.append(sentence)

    def moved(self, position: Position, target: Position) -> None:
        pass

    def __str__(self) -> str:
        return "\n".join(self)


@pytest.fixture
def open_beside(request: pytest.FixtureRequest, open_view_store: OpenViewStore, tmp_path: Path) -> OpenBeside:
    """Beside what `open_view_store` opens."""
    if "sqlite" in request.node.callspec.id:
        return lambda: open_sqlite(tmp_path / "views.sqlite3", "test")
    url = request.getfixturevalue("database_url")
    return lambda: open_postgres(url, "test")


async def build(
    open_beside: OpenBeside, ledger: Ledger, *views: str, key: bytes | None = None, anew: bool = False
) -> Said:
    said = Said()
    async with open_beside() as beside:
        await rebuild(beside, ledger, VIEWS, views or list(VIEWS), key, anew, said)
    return said


async def fill(open_view_store: OpenViewStore, log: Sequence[RecordedEvent] = LOG, *names: str) -> None:
    async with open_view_store(*names) as store:
        views = [VIEWS[name] for name in names or VIEWS]
        key = SIGNER.public_key
        await fold(Projection(store, views, await store.checkpoint(), CollectorRegistry(), key), log)


async def check(store: ViewStore, log: Sequence[RecordedEvent] = LOG) -> None:
    """All of it is there, and is the fold of `log`."""
    names = {name for (name,) in await store.read(READ_NAMES)}
    assert {part for view in VIEWS for _, part in parts(view)} <= names
    events = [event.event for event in log]
    balance = events.count(DEPOSITED) * DEPOSITED.amount - events.count(WITHDRAWN) * WITHDRAWN.amount
    account, position = await read_account(store.read, ALICE)
    assert account is not None
    assert (account.balance, account.version, position) == (balance, len(log), len(log))
    assert (await read_reserves(store.read, [])).by_asset[USD].amount == balance
    history, _ = await read_history(store.read, ALICE, Version(0), 1000, Position(len(log)))
    assert history == [bytes(event.encoded) for event in log]


async def test_new_views_take_the_place_of_old_ones_and_what_was_wrong_is_told(
    open_view_store: OpenViewStore, open_beside: OpenBeside, change_views: ChangeViews
) -> None:
    await fill(open_view_store)
    async with open_view_store() as store:
        said = await build(open_beside, Pages(LOG))
        assert f"those in use were right: {', '.join(VIEWS)}" in said
        await change_views("UPDATE accounts SET balance = 77")
        await change_views("DELETE FROM history WHERE version = 4")
        await change_views("UPDATE history_holds SET ended = 13, fork = 12")
        await change_views("INSERT INTO holds VALUES ('bob', '\x1b[31m', 5, NULL, '', '')")
        said = await build(open_beside, Pages(LOG))
        balance = 10 * DEPOSITED.amount - WITHDRAWN.amount
        told = "in use had 1 rows that are not what the ledger says"
        assert f"accounts {told}: 'alice': balance 77 is now {balance}" in str(said)
        assert f"history {told}: 8 was missing" in str(said)
        assert f"history_holds {told}: 'alice', 'order-7', 12: ended 13 is now None, fork 12 is now {2**62}" in str(
            said
        )
        assert rf"holds {told}: 'bob', '\x1b[31m' is not there now" in str(said)
        # The one that was open all the time.
        await check(store)
        projection = await projection_on(store)
        await fold(projection, [recorded(14, DEPOSITED)])
        assert (await read_account(store.read, ALICE))[1] == 14
    async with open_view_store() as store:
        await check(store, [*LOG, recorded(14, DEPOSITED)])


async def test_what_was_read_of_old_tables_is_not_written_to_new_ones(
    open_view_store: OpenViewStore, open_beside: OpenBeside, change_views: ChangeViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service has worked out the next state from a wrong one, and commits it after the switch."""
    await fill(open_view_store, LOG[:9])
    await change_views("UPDATE accounts SET balance = 77")
    async with open_view_store() as store:
        projection = await projection_on(store)
        commit, at_the_commit, go_on = store.commit, asyncio.Event(), asyncio.Event()

        async def wait_and_commit(expected: Checkpoint, moved: Checkpoint, changes: Sequence[Change]) -> None:
            at_the_commit.set()
            await go_on.wait()
            await commit(expected, moved, changes)

        monkeypatch.setattr(store, "commit", wait_and_commit)
        folding = asyncio.create_task(fold(projection, LOG[9:]))
        await at_the_commit.wait()
        await build(open_beside, Pages(LOG))
        go_on.set()
        await folding
        assert projection.position == 9
        await check(store, LOG[:9])
        await fold(projection, LOG[9:])
        await check(store)


class Killed(BaseException):
    """Nobody expects it."""


KILLS = ["open_new", "both", "hold", "switch", "after the switch", "remove_new"]


@pytest.mark.parametrize("stage", KILLS)
@pytest.mark.parametrize("store_type", ["sqlite", "postgres"])
async def test_a_rebuild_that_ends_at_any_step_leaves_whole_views_and_is_gone_on_with(
    stage: str, request: pytest.FixtureRequest, store_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store: Callable[[], Awaitable[SqliteViewStore | PostgresViewStore]]
    open_beside: OpenBeside
    if store_type == "sqlite":
        path = tmp_path / "views.sqlite3"
        open_store, open_beside = lambda: SqliteViewStore.open(path, list(VIEWS)), lambda: open_sqlite(path, "test")
    else:
        url = request.getfixturevalue("database_url")
        open_store = lambda: PostgresViewStore.open(url, "test", list(VIEWS))  # noqa: E731
        open_beside = lambda: open_postgres(url, "test")  # noqa: E731
    store = await open_store()
    await fold(await projection_on(store), LOG)
    with monkeypatch.context() as patch:
        for beside in (SqliteBeside, PostgresBeside):
            _kill_at(patch, beside, stage)
        with pytest.raises(Killed):
            await build(open_beside, Pages(LOG))
    await check(store)
    await build(open_beside, Pages(LOG))
    await check(store)
    await fold(await projection_on(store), [recorded(14, DEPOSITED)])
    await store.close()
    store = await open_store()
    await check(store, [*LOG, recorded(14, DEPOSITED)])
    await store.close()


def _kill_at(patch: pytest.MonkeyPatch, beside: type[Any], stage: str) -> None:
    if stage == "after the switch":
        _fail_after(patch, beside, Killed())
    else:

        def killed(*_: object) -> None:
            raise Killed

        patch.setattr(beside, stage, killed)


def _fail_after(patch: pytest.MonkeyPatch, beside: type[Any], error: BaseException) -> None:
    switch = beside.switch

    async def switch_and_fail(self: Beside, views: Sequence[str], kept: str) -> None:
        await switch(self, views, kept)
        raise error

    patch.setattr(beside, "switch", switch_and_fail)


async def test_a_rebuild_goes_on_where_it_was_interrupted_unless_it_is_told_to_begin_anew(
    open_view_store: OpenViewStore, open_beside: OpenBeside
) -> None:
    await fill(open_view_store)
    for anew, words in ((False, "going on from position"), (True, "building")):
        ledger = Pages(LOG)
        building = asyncio.create_task(build(open_beside, ledger))
        await asked(ledger, 6)
        building.cancel()
        await asyncio.wait([building])
        said = await build(open_beside, Pages(LOG), anew=anew)
        assert words in str(said)
        assert ("going on" in str(said)) != anew


async def test_what_is_left_of_another_ledger_or_another_past_is_not_gone_on_with(
    open_view_store: OpenViewStore, open_beside: OpenBeside
) -> None:
    await fill(open_view_store)
    for other in (
        [replace(event, source="https://elsewhere.example") for event in LOG[:5]],
        [*LOG[:4], recorded(5, WITHDRAWN)],
    ):
        async with open_beside() as beside:
            store = await beside.open_new(list(VIEWS))
            await fold(await projection_on(store), other)
            await store.close()
        said = await build(open_beside, Pages(LOG))
        assert "of no use" in str(said)
        async with open_view_store() as store:
            await check(store)


async def test_what_is_left_with_other_views_is_not_gone_on_with(
    open_view_store: OpenViewStore, open_beside: OpenBeside
) -> None:
    await fill(open_view_store)
    async with open_beside() as beside:
        store = await beside.open_new(["holds"])
        await fold(Projection(store, [VIEWS["holds"]], await store.checkpoint(), CollectorRegistry()), LOG[:5])
        await store.close()
    assert "of no use" in str(await build(open_beside, Pages(LOG)))
    async with open_view_store() as store:
        await check(store)


async def test_a_ledger_with_another_key_builds_nothing(
    open_view_store: OpenViewStore, open_beside: OpenBeside
) -> None:
    await fill(open_view_store)
    for ledger, key in ((Pages(LOG, Signer(SOURCE, new_key())), None), (Pages(LOG), bytes(32))):
        with pytest.raises(FeedUnavailable, match="the feed signs with the key"):
            await build(open_beside, ledger, key=key)
    async with open_view_store() as store:
        await check(store)


@pytest.mark.parametrize(
    ("log", "error"),
    [
        (LOG[:5], ForeignLedger),
        ([*LOG[:4], recorded(5, WITHDRAWN), *LOG[5:]], OtherHistory),
        ([*LOG[:4], recorded(5, WITHDRAWN), *LOG[5:], recorded(14, DEPOSITED)], OtherHistory),
    ],
    ids=["an older copy", "one that went on otherwise", "one that is further by now"],
)
async def test_a_ledger_with_another_past_builds_nothing(
    open_view_store: OpenViewStore, open_beside: OpenBeside, log: list[RecordedEvent], error: type[CorruptStore]
) -> None:
    await fill(open_view_store)
    with pytest.raises(error):
        await build(open_beside, Pages(log))
    async with open_view_store() as store:
        await check(store)


async def test_who_interrupts_a_long_comparison_does_not_wait_for_its_end(tmp_path: Path) -> None:
    """PostgreSQL's is cut off with its connection."""
    path = tmp_path / "views.sqlite3"
    await (await SqliteViewStore.open(path, ["holds"])).close()
    async with open_sqlite(path, "test") as beside:
        await (await beside.open_new(["holds"])).close()
        async with beside.both() as both:
            endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
            reading = asyncio.create_task(both.rows(endless))
            await asyncio.sleep(0.1)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert await both.rows("SELECT count(*) FROM holds") == [(0,)]


async def test_there_is_one_rebuild_at_a_time(open_view_store: OpenViewStore, open_beside: OpenBeside) -> None:
    await fill(open_view_store)
    async with open_beside():
        with pytest.raises(RebuildUnderWay, match="Wait for its end"):
            await build(open_beside, Pages(LOG))
    await build(open_beside, Pages(LOG))


async def test_where_there_are_no_views_nothing_is_made(
    open_view_store: OpenViewStore, open_beside: OpenBeside
) -> None:
    for _ in range(2):
        with pytest.raises(NoViews, match="start the service"):
            await build(open_beside, Pages(LOG))
    async with open_view_store() as store:
        assert (await store.checkpoint()).position == 0
    await build(open_beside, Pages(LOG))
    async with open_view_store() as store:
        await fold(await projection_on(store), LOG)
        await check(store)


async def test_views_that_were_not_kept_are_built_and_the_others_stay(
    open_view_store: OpenViewStore, open_beside: OpenBeside, change_views: ChangeViews
) -> None:
    await fill(open_view_store, LOG, "accounts", "reserve")
    missing = sorted(VIEWS.keys() - {"accounts", "reserve"})
    async with open_view_store("accounts", "reserve") as before:
        with pytest.raises(OtherViews, match=f"rebuild --views {','.join(missing)}"):
            async with open_view_store():
                pass
        await build(open_beside, Pages(LOG), *missing)
        with pytest.raises(OtherViews, match="opened or rebuilt them"):
            await before.checkpoint()
    async with open_view_store() as store:
        await check(store)


async def test_each_view_can_be_built_alone_and_all_of_it_is_there(
    open_view_store: OpenViewStore, open_beside: OpenBeside
) -> None:
    await fill(open_view_store)
    for name in VIEWS:
        await build(open_beside, Pages(LOG), name)
        async with open_view_store() as store:
            await check(store)


@pytest.mark.parametrize(("view", "tables"), [("reserve", ["reserve_assets", "reserve"]), ("accounts", ["accounts"])])
async def test_a_view_in_an_earlier_form_is_replaced(
    open_view_store: OpenViewStore, open_beside: OpenBeside, change_views: ChangeViews, view: str, tables: list[str]
) -> None:
    await fill(open_view_store)
    for table in tables:
        await change_views(f"DROP TABLE {table}")
    await change_views(f"CREATE TABLE {view} (amount integer)")
    earlier = {name: last_number(name, "sqlite") for name in VIEWS} | {view: 1}
    await change_views(f"UPDATE checkpoint SET views = '{encode_numbers(earlier)}'")
    with pytest.raises(OtherViews, match=rf"without {view},.* rebuild --views {view}"):
        async with open_view_store():
            pass
    said = await build(open_beside, Pages(LOG), view)
    assert f"were right: {view}" not in str(said)
    async with open_view_store() as store:
        await check(store)


async def test_a_switch_whose_answer_was_lost_is_one(
    open_view_store: OpenViewStore, open_beside: OpenBeside, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(open_view_store)
    for beside in (SqliteBeside, PostgresBeside):
        _fail_after(monkeypatch, beside, StoreUnavailable("the connection broke"))
    assert "in use from position 13 on" in str(await build(open_beside, Pages(LOG)))


async def test_views_that_were_folded_in_other_runs_are_no_different(
    open_view_store: OpenViewStore, open_beside: OpenBeside
) -> None:
    log = [recorded(1, CREATED), *(recorded(position, DEPOSITED) for position in range(2, 500))]
    await fill(open_view_store, log)
    assert f"those in use were right: {', '.join(VIEWS)}" in await build(open_beside, Pages(log))


async def test_views_that_would_not_add_up_are_not_put_in_use(
    open_view_store: OpenViewStore, open_beside: OpenBeside, change_views: ChangeViews
) -> None:
    """Those that stay are wrong."""
    await fill(open_view_store)
    await change_views(f"UPDATE accounts SET balance = {INT64_MAX}, held = 51, version = version + 1")
    reserve = 10 * DEPOSITED.amount - WITHDRAWN.amount
    with pytest.raises(Contradiction) as found:
        await build(open_beside, Pages(LOG), "holds")
    assert f"the balances in 'USD/2' sum up to {INT64_MAX}, and the reserve is {reserve}" in str(found.value)
    assert "'alice' has 51 held, and open holds of 50" in str(found.value)
    assert "'alice' has 51 held, and at the end of its history open holds of 50" in str(found.value)
    assert "'alice' is at version 14, and its history ends with 13" in str(found.value)
    await change_views("UPDATE accounts SET version = version - 1")
    await change_views(f"UPDATE reserve SET amount = {INT64_MAX}")
    with pytest.raises(Contradiction) as found:
        await build(open_beside, Pages(LOG), "holds")
    ends = f"'alice' has {INT64_MAX} and 51 held, and at the end of its history {reserve} and 50"
    assert ends in str(found.value)
    assert f"the reserve of 'USD/2' is {INT64_MAX}, and at the end of its history {reserve}" in str(found.value)
    await build(open_beside, Pages(LOG))
    async with open_view_store() as store:
        await check(store)


async def test_it_comes_to_an_end_while_events_keep_coming(
    open_view_store: OpenViewStore, open_beside: OpenBeside
) -> None:
    """Whenever the views in use have been reached, they move on by more than a page."""
    log = [recorded(1, CREATED), *(recorded(position, DEPOSITED) for position in range(2, 500))]
    await fill(open_view_store, log[:10])
    async with open_view_store() as store:
        projection = await projection_on(store)

        class Busy(Pages):
            async def read(self, after: Position, wait_seconds: float = 0, events_max: int = PAGE_EVENTS_MAX) -> Page:
                page = await super().read(after, wait_seconds, events_max)
                if events_max and after == projection.position:
                    await fold(projection, log[projection.position : projection.position + 3])
                return page

        await build(open_beside, Busy(log))
        assert 10 < projection.position < 40
        await fold(projection, log[projection.position :])
        assert projection.position < len(log), "it has not noticed the switch"
        await fold(projection, log[projection.position :])
        await check(store, log)


async def test_views_that_are_put_back_are_waited_for(
    open_view_store: OpenViewStore, open_beside: OpenBeside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "PATIENCE_SECONDS", 0.2)
    await fill(open_view_store, LOG[:5])
    async with open_beside() as beside:
        store = await beside.open_new(list(VIEWS))
        await fold(await projection_on(store), LOG[:9])
        await store.close()
    with pytest.raises(StoreUnavailable, match=r"put back to 5, and the new ones are at 9. Start the service"):
        await build(open_beside, Pages(LOG))
    monkeypatch.setattr(run, "PATIENCE_SECONDS", 30)
    async with open_view_store() as store:
        building = asyncio.create_task(build(open_beside, Pages(LOG)))
        await asyncio.sleep(0.1)
        await fold(await projection_on(store), LOG[5:])
        await building
        await check(store)


async def test_a_feed_that_is_away_for_a_while_is_waited_for(
    open_view_store: OpenViewStore, open_beside: OpenBeside
) -> None:
    await fill(open_view_store)
    ledger = Pages(LOG)
    building = asyncio.create_task(build(open_beside, ledger))
    await asked(ledger, 4)
    ledger.is_away = True
    await asyncio.sleep(0.1)
    ledger.is_away = False
    assert "waiting: the feed is away" in await building


async def test_a_service_with_other_views_meanwhile_ends_it(
    open_view_store: OpenViewStore, open_beside: OpenBeside
) -> None:
    await fill(open_view_store)
    ledger = Pages(LOG)
    building = asyncio.create_task(build(open_beside, ledger))
    await asked(ledger, 4)
    async with open_view_store("accounts", "reserve"):
        with pytest.raises(OtherViews, match="have become others meanwhile"):
            await building
    async with open_view_store("accounts", "reserve") as store:
        assert (await read_account(store.read, ALICE))[1] == 13


async def test_queries_that_keep_the_tables_are_waited_for_and_hold_nobody_up(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only PostgreSQL has to take the tables from them."""
    log = [*LOG, recorded(14, DEPOSITED)]
    store = await PostgresViewStore.open(database_url, "test", list(VIEWS))
    await fold(await projection_on(store), LOG)
    reader = await asyncpg.connect(database_url, server_settings={"search_path": "projection_test"})
    try:
        async with reader.transaction():
            await reader.fetch("SELECT * FROM history")
            monkeypatch.setattr(run, "PATIENCE_SECONDS", 0.2)
            with pytest.raises(QueriesInTheWay):
                await build(lambda: open_postgres(database_url, "test"), Pages(log))
            monkeypatch.setattr(run, "PATIENCE_SECONDS", 30)
            building = asyncio.create_task(build(lambda: open_postgres(database_url, "test"), Pages(log)))
            for _ in range(100):
                await check(store)
                await asyncio.sleep(0.01)
            await fold(await projection_on(store), log[13:])
            assert not building.done()
        assert "waiting: queries have kept the tables" in str(await building)
        await check(store, log)
    finally:
        await reader.close()
        await store.close()


async def test_who_could_read_the_old_tables_can_read_the_new(database_url: str) -> None:
    store = await PostgresViewStore.open(database_url, "test", list(VIEWS))
    await fold(await projection_on(store), LOG)
    connection = await asyncpg.connect(database_url, server_settings={"search_path": "projection_test"})
    try:
        await connection.execute('CREATE ROLE "an Analyst"; GRANT SELECT ON accounts TO "an Analyst" WITH GRANT OPTION')
        await connection.execute("GRANT SELECT ON history TO PUBLIC")
        read = "SELECT relname, relacl::text FROM pg_class WHERE relacl IS NOT NULL AND relnamespace = $1::regnamespace"
        before = sorted(map(tuple, await connection.fetch(read, "projection_test")))
        await build(lambda: open_postgres(database_url, "test"), Pages(LOG))
        assert sorted(map(tuple, await connection.fetch(read, "projection_test"))) == before
        assert await connection.fetchval("SELECT obj_description('accounts'::regclass)") is not None
        await connection.execute("CREATE VIEW rich AS SELECT * FROM accounts WHERE balance > 0")
        with pytest.raises(Exception, match="view rich depends on table accounts") as error:
            await build(lambda: open_postgres(database_url, "test"), Pages(LOG))
        assert "Drop it, and make it again" in str(error.value)
        await check(store)
    finally:
        await connection.execute('DROP VIEW IF EXISTS rich; DROP OWNED BY "an Analyst"; DROP ROLE "an Analyst"')
        await connection.close()
        await store.close()
