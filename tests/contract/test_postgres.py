"""What only PostgreSQL can do or suffer: several command services on one log, and a server that fails."""

import asyncio
import json
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from operator import attrgetter
from typing import TypeVar
from urllib.parse import urlsplit

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from command_service.event_log import LeaseLost
from command_service.event_log.postgres import READ_CONNECTIONS_MAX, PostgresEventLog
from command_service.ledger.account import Account
from command_service.ledger.outcomes import Outcome, Receipt, Rejection
from command_service.ledger.states import decode_account
from command_service.ledger_writer import WriteRequest
from projection_service.projection import Projection
from projection_service.view_store.postgres import PostgresViewStore
from projection_service.views import VIEWS
from projection_service.views.accounts.tables import read_account, read_accounts
from projection_service.views.reserve.tables import read_reserves
from scripts.ports import free_ports
from scripts.postgres import PostgresCluster
from shared.errors import (
    CorruptStore,
    IdempotencyKeyReused,
    InvalidRequest,
    LedgerError,
    OutcomeUnknown,
    StoreUnavailable,
)
from shared.events import USD, AccountId, AmountDeposited, Position, RecordedEvent, decode_events, join_events
from shared.platform import postgres
from shared.platform.watermark import follow
from tests.conftest import running_cluster
from tests.contract.conftest import Closable, closed_at_the_end
from tests.contract.test_event_log import (
    ALL,
    LOG,
    STATES,
    TIME,
    assert_appends_go_on,
    assert_appends_go_on_as,
    lead,
    published,
    record,
    state,
    stored,
)
from tests.contract.test_ledger import Ledger, apply, fold, results, running, told_of
from tests.contract.test_sqlite_files import EARLIER
from tests.examples import (
    ALICE,
    BOB,
    CREATE,
    CREATED,
    CREATED_IN_EUR,
    DEPOSITED,
    WITHDRAWN,
    deposit,
    logged,
    recorded,
    withdraw,
)

S = TypeVar("S", bound=Closable)
T = TypeVar("T")
Open = Callable[[str], Awaitable[PostgresEventLog | PostgresViewStore]]


async def open_views(url: str) -> PostgresViewStore:
    return await PostgresViewStore.open(url, "test", list(VIEWS))


both_stores = pytest.mark.parametrize("open_store", [PostgresEventLog.open, open_views], ids=["events", "views"])


@pytest.fixture
def private_cluster() -> Iterator[PostgresCluster]:
    """A server that the test may stop."""
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def private_url(private_cluster: PostgresCluster) -> str:
    return private_cluster.url(private_cluster.create_database())


def freeze(cluster: PostgresCluster) -> None:
    cluster.send(signal.SIGSTOP)


def thaw(cluster: PostgresCluster) -> None:
    cluster.send(signal.SIGCONT)


@asynccontextmanager
async def opened(opening: Callable[[], Awaitable[S]], number: int) -> AsyncIterator[list[S]]:
    """So many of them, opened at the same moment."""
    async with AsyncExitStack() as stack:
        yield await asyncio.gather(*(stack.enter_async_context(closed_at_the_end(opening())) for _ in range(number)))


@pytest.fixture
async def stores(database_url: str) -> AsyncIterator[list[PostgresEventLog]]:
    """Two replicas' stores on one log."""
    async with opened(lambda: PostgresEventLog.open(database_url), 2) as stores:
        yield stores


@pytest.fixture
async def ledgers(stores: list[PostgresEventLog]) -> AsyncIterator[list[Ledger]]:
    """Two replicas on one log."""
    async with running(stores[0]) as one, running(stores[1]) as other:
        yield [one, other]


@asynccontextmanager
async def raw_connection(url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def sql(url: str, statement: str) -> list[tuple[object, ...]]:
    """By the hand of an administrator."""
    async with raw_connection(url) as connection:
        return [tuple(row) for row in await connection.fetch(statement)]


async def until(url: str, statement: str) -> None:
    """Wait until its answer is true."""
    async with asyncio.timeout(30), raw_connection(url) as connection:
        while True:
            if await connection.fetchval(statement):
                return
            await asyncio.sleep(0.01)


async def contents(url: str) -> dict[str, list[tuple[object, ...]]]:
    """Every table, every row."""
    tables = await sql(url, "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND oid >= 16384")
    return {str(table): await sql(url, f"SELECT row::text FROM {table} AS row ORDER BY 1") for (table,) in tables}


async def within_a_few_tries(call: Callable[[], Awaitable[T]]) -> T:
    """Each connection that broke unnoticed costs one at most."""
    for _ in range(READ_CONNECTIONS_MAX):
        with suppress(StoreUnavailable):
            return await call()
    return await call()


async def record_after(trouble: Awaitable[object], store: PostgresEventLog, events: Sequence[bytes]) -> None:
    """The trouble comes while the append is open."""
    async with store.append({ALICE, BOB}, set()) as append:
        await trouble
        await append.commit(events, TIME, STATES, {})


async def append_run(store: PostgresEventLog, account_id: AccountId, number: int, pause: float = 0) -> list[bytes]:
    """Deposits of 1 that go on from what the append finds."""
    async with store.append({account_id}, set()) as append:
        before = append.states.get(account_id) or state(0, Account(0))
        version, account = before.version, decode_account(before.account)
        # Whoever reads a state as it was before the lock was had reads another balance than version.
        assert account is not None
        assert account.balance == version
        await asyncio.sleep(pause)
        run = [logged(append.head.position + n, DEPOSITED, account_id, version + n) for n in range(1, number + 1)]
        last = state(version + number, Account(version + number))
        await append.commit(run, TIME, {account_id: last}, {})
    return run


async def page_through(store: PostgresEventLog, writing: "asyncio.Future[list[None]]", page: int) -> list[bytes]:
    """What a reader has seen that goes on from the last position it saw, until nothing more comes."""
    seen: list[bytes] = []
    while True:
        last_look = writing.done()
        events = (await store.read(Position(len(seen)), page, ALL)).events
        seen += events
        if last_look and not events:
            return seen


async def look_up_to_head(store: PostgresEventLog, writing: "asyncio.Future[list[None]]") -> None:
    while not writing.done():
        head = await store.head()
        assert positions((await store.read(Position(0), head, ALL)).events) == list(range(1, head + 1))


def positions(events: Sequence[bytes]) -> list[int]:
    return [event.position for event in decode_events(join_events(list(events)))]


async def test_positions_become_visible_in_order_and_without_a_hole(database_url: str) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    committed: dict[int, bytes] = {}

    async def write(store: PostgresEventLog) -> None:
        for _ in range(25):
            account_id, number, pause = chance.choice([ALICE, BOB]), chance.randint(1, 4), chance.random() / 100
            end = chance.randrange(6)
            if end == 0:
                async with store.append({account_id}, set()):
                    await asyncio.sleep(pause)
            elif end == 1:
                with suppress(ZeroDivisionError):
                    async with store.append({account_id}, set()):
                        await asyncio.sleep(pause)
                        raise ZeroDivisionError
            else:
                run = await append_run(store, account_id, number, pause)
                committed.update(zip(positions(run), run, strict=True))

    async with asyncio.timeout(60), opened(lambda: PostgresEventLog.open(database_url), 6) as stores:
        *writers, one, other = stores
        writing = asyncio.gather(*(write(store) for store in writers))
        _, seen, seen_alone, _ = await asyncio.gather(
            writing, page_through(one, writing, 3), page_through(other, writing, 1), look_up_to_head(other, writing)
        )
        assert positions(seen) == sorted(committed) == list(range(1, len(committed) + 1))
        assert seen == seen_alone == [committed[position] for position in sorted(committed)]
        assert seen == await stored(writers[0])


async def test_appends_wait_for_whoever_has_the_lock_and_then_go_on(
    database_url: str, stores: list[PostgresEventLog]
) -> None:
    async with asyncio.timeout(30), raw_connection(database_url) as holder:
        async with holder.transaction():
            await holder.execute("SELECT position FROM ledger.ledger FOR UPDATE")
            appending = [asyncio.create_task(append_run(store, ALICE, 2)) for store in stores]
            await until(database_url, "SELECT count(*) = 2 FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            assert await stored(stores[0]) == []
        runs = await asyncio.gather(*appending)
    assert sorted(await stored(stores[0])) == sorted(event for run in runs for event in run)
    for number, store in enumerate(stores):
        await assert_appends_go_on_as(store, AccountId(f"after-{number}"))


async def test_an_append_that_waits_too_long_gives_up_and_writes_nothing(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "LOCK_SECONDS", 1)
    async with asyncio.timeout(30), closed_at_the_end(PostgresEventLog.open(database_url)) as store:
        async with raw_connection(database_url) as holder, holder.transaction():
            await holder.execute("SELECT position FROM ledger.ledger FOR UPDATE")
            with pytest.raises(StoreUnavailable, match="lock"):
                await record(store, LOG)
        await assert_appends_go_on(store)


async def test_replicas_that_open_an_empty_database_at_the_same_moment_make_its_tables_once(database_url: str) -> None:
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        logs, views = await asyncio.gather(
            stack.enter_async_context(opened(lambda: PostgresEventLog.open(database_url), 5)),
            stack.enter_async_context(opened(lambda: open_views(database_url), 5)),
        )
        assert len({log.source for log in logs}) == 1
        assert {(await store.checkpoint()).position for store in views} == {0}
        assert await sql(database_url, "SELECT source FROM ledger.ledger") == [(logs[0].source,)]
        for table, number in (("ledger.migrations", 5), ("projection_test.migrations", 3)):
            assert await sql(database_url, f"SELECT number FROM {table}") == [(number,)]


async def test_what_two_replicas_decide_at_once_is_one_ledger_that_adds_up(ledgers: list[Ledger]) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    ids = [ALICE, BOB, AccountId("carol")]
    for account_id in ids:
        await ledgers[0].writer.write(WriteRequest([deposit(1, account_id), CREATE, deposit(5)]))

    async def ask(ledger: Ledger) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for _ in range(25):
            commands = [
                chance.choice([deposit, withdraw, withdraw])(chance.randint(0, 9), chance.choice(ids))
                for _ in range(chance.randint(1, 3))
            ]
            outcomes += await ledger.writer.write(WriteRequest(commands))
        return outcomes

    async with asyncio.timeout(60):
        answers = await asyncio.gather(*(ask(ledger) for ledger in ledgers * 2))
    one, other = ledgers
    events = await one.events()
    assert events == await other.events()
    assert [event.position for event in events] == list(range(1, len(events) + 1))
    outcomes = [outcome for answer in answers for outcome in answer]
    # That asserts, too, that versions go on and that no balance is below zero.
    assert results(sorted(outcomes, key=attrgetter("position"))) == told_of(events)[9:]
    for outcome in outcomes:
        assert isinstance(outcome, Receipt | Rejection)
        assert outcome.account_id == events[outcome.position - 1].account_id


async def test_a_replica_decides_on_what_the_other_has_recorded(ledgers: list[Ledger]) -> None:
    one, other = (ledger.writer for ledger in ledgers)
    await one.write(WriteRequest([CREATE, deposit(10)]))
    told = []
    for writer, command in ((other, withdraw(10)), (one, withdraw(10)), (other, deposit(3)), (one, withdraw(3))):
        told += await writer.write(WriteRequest([command]))
    assert results(told) == [
        (None, 0, 3, 3),
        ("insufficient-funds", None, None, 4),
        (None, 3, 5, 5),
        (None, 0, 6, 6),
    ]


async def test_a_key_sent_to_two_replicas_at_the_same_moment_is_answered_once(ledgers: list[Ledger]) -> None:
    one, other = ledgers
    await one.writer.write(WriteRequest([CREATE]))
    for number in range(20):
        request = WriteRequest([deposit(1), withdraw(100)], f"key-{number}", b"fingerprint")
        before = await one.log.head()
        answer, same = await asyncio.gather(one.writer.write(request), other.writer.write(request))
        assert answer == same
        assert [outcome.position for outcome in answer] == [before + 1, before + 2]
        assert await one.log.head() == before + 2


async def test_a_key_belongs_to_one_request_on_every_replica(ledgers: list[Ledger]) -> None:
    one, other = ledgers
    await one.writer.write(WriteRequest([CREATE], "key", b"fingerprint"))
    with pytest.raises(IdempotencyKeyReused):
        await other.writer.write(WriteRequest([deposit(1)], "key", b"another"))
    assert await one.log.head() == 1


EXPIRE = "UPDATE ledger.relay SET leased_until = now() - interval '1 second'"
CLOCK_SET_BACK = "UPDATE ledger.relay SET leased_until = now() + interval '1 hour'"


async def test_one_replica_has_the_lease_until_it_ends_it(stores: list[PostgresEventLog]) -> None:
    one, other = stores
    lease = await lead(one)
    assert [await store.acquire_lease() for store in stores] == [None, None]
    await one.end_lease(lease, Position(3))
    taken = await lead(other)
    assert taken.published == 3
    assert taken.token > lease.token
    assert [await store.acquire_lease() for store in stores] == [None, None]


@pytest.mark.parametrize("loss", [EXPIRE, CLOCK_SET_BACK], ids=["expired", "clock set back"])
async def test_who_lost_the_lease_moves_nothing_any_more(
    database_url: str, stores: list[PostgresEventLog], loss: str
) -> None:
    one, other = stores
    lost = await lead(one)
    await one.save_published(lost, Position(2))
    await sql(database_url, loss)
    lease = await lead(other)
    assert lease.published == 2
    assert lease.token > lost.token
    await other.save_published(lease, Position(4))
    relay = await sql(database_url, "SELECT * FROM ledger.relay")
    with pytest.raises(LeaseLost):
        await one.save_published(lost, Position(3))
    await one.end_lease(lost, Position(3))
    assert await sql(database_url, "SELECT * FROM ledger.relay") == relay
    assert await one.acquire_lease() is None
    await other.end_lease(lease, Position(5))
    assert await published(one) == 5


async def test_one_of_many_gets_a_lease_that_has_expired(database_url: str) -> None:
    async with opened(lambda: PostgresEventLog.open(database_url), 5) as stores:
        await lead(stores[0])
        await sql(database_url, EXPIRE)
        leases = await asyncio.gather(*(store.acquire_lease() for store in stores))
    assert Counter(lease and lease.token for lease in leases) == {2: 1, None: 4}


async def test_a_moved_cursor_prolongs_the_lease(database_url: str, stores: list[PostgresEventLog]) -> None:
    one, other = stores
    lease = await lead(one)
    await sql(database_url, EXPIRE)  # and nobody was there to take it
    await one.save_published(lease, Position(1))
    assert await other.acquire_lease() is None
    before = await sql(database_url, "SELECT leased_until FROM ledger.relay")
    await one.save_published(lease, Position(1))
    assert await sql(database_url, "SELECT leased_until FROM ledger.relay") > before


async def test_a_process_that_stops_in_an_append_loses_it_and_the_others_go_on(
    stores: list[PostgresEventLog],
) -> None:
    """Its connection stays open, as that of a frozen process does."""
    one, other = stores
    await record(one, LOG[:1])
    async with asyncio.timeout(30):
        with pytest.raises(LedgerError):
            await record_after(assert_appends_go_on(other), one, LOG[1:])
    assert len(await stored(other)) == 2
    for number, store in enumerate(stores):
        await assert_appends_go_on_as(store, AccountId(f"after-{number}"))


@pytest.mark.parametrize("stop", [PostgresCluster.stop, PostgresCluster.kill])
async def test_a_database_that_was_down_has_all_that_was_committed_and_is_used_again(
    private_cluster: PostgresCluster, private_url: str, stop: Callable[[PostgresCluster], None]
) -> None:
    async with (
        asyncio.timeout(30),
        closed_at_the_end(PostgresEventLog.open(private_url)) as store,
        closed_at_the_end(open_views(private_url)) as views,
    ):
        await record(store, LOG, STATES)
        stop(private_cluster)
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await store.head()
            with pytest.raises(StoreUnavailable):
                await record(store, [logged(6, CREATED)])
            with pytest.raises(StoreUnavailable):
                await views.checkpoint()
        private_cluster.start()
        assert await within_a_few_tries(lambda: stored(store)) == LOG
        assert (await within_a_few_tries(views.checkpoint)).position == 0
        await within_a_few_tries(lambda: assert_appends_go_on(store))


@pytest.mark.parametrize("stop", [PostgresCluster.stop, PostgresCluster.kill])
async def test_a_database_that_was_down_while_nobody_asked_is_used_again(
    private_cluster: PostgresCluster, private_url: str, stop: Callable[[PostgresCluster], None]
) -> None:
    async with asyncio.timeout(30), closed_at_the_end(PostgresEventLog.open(private_url)) as store:
        await record(store, LOG)
        await asyncio.gather(*(store.head() for _ in range(2 * READ_CONNECTIONS_MAX)))
        stop(private_cluster)
        private_cluster.start()
        assert await within_a_few_tries(lambda: stored(store)) == LOG
        await within_a_few_tries(lambda: assert_appends_go_on(store))


async def test_a_database_that_went_down_in_an_append_has_nothing_of_it(
    private_cluster: PostgresCluster, private_url: str
) -> None:
    async with asyncio.timeout(30), closed_at_the_end(PostgresEventLog.open(private_url)) as store:
        await record(store, LOG[:2])
        with pytest.raises(StoreUnavailable):
            await record_after(asyncio.to_thread(private_cluster.kill), store, LOG[2:])
        private_cluster.start()
        assert await within_a_few_tries(lambda: stored(store)) == LOG[:2]


async def test_a_database_that_falls_silent_is_unavailable_until_it_answers_again(
    private_cluster: PostgresCluster, private_url: str, impatience: None
) -> None:
    async with asyncio.timeout(30), closed_at_the_end(PostgresEventLog.open(private_url)) as store:
        await record(store, LOG[:2])
        with pytest.raises(StoreUnavailable):
            await record_after(asyncio.to_thread(freeze, private_cluster), store, LOG[2:])
        for _ in range(2):  # over a connection that was there, and over a new one
            with pytest.raises(StoreUnavailable):
                await store.head()
        with pytest.raises(StoreUnavailable):
            await record(store, LOG[2:])
        with pytest.raises(StoreUnavailable):
            await PostgresEventLog.open(private_url)
        thaw(private_cluster)
        assert await within_a_few_tries(lambda: stored(store)) == LOG[:2]
        await within_a_few_tries(lambda: assert_appends_go_on(store))


@pytest.mark.parametrize(
    ("end", "begin"), [(PostgresCluster.kill, PostgresCluster.start), (freeze, thaw)], ids=["killed", "frozen"]
)
async def test_a_commit_whose_answer_is_lost_is_unknown_until_its_key_is_sent_again(
    private_cluster: PostgresCluster,
    private_url: str,
    impatience: None,
    end: Callable[[PostgresCluster], None],
    begin: Callable[[PostgresCluster], None],
) -> None:
    """A server that waits for a standby that is not there: the commit is on its disk, and it doesn't say so."""
    request = WriteRequest([CREATE, deposit(7)], "key", b"fingerprint")
    async with (
        asyncio.timeout(30),
        closed_at_the_end(PostgresEventLog.open(private_url)) as store,
        running(store) as ledger,
    ):
        await sql(private_url, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        private_cluster.stop()
        private_cluster.start()
        await within_a_few_tries(store.head)
        writing = ledger.writer.write(request)
        await until(private_url, "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        end(private_cluster)
        with pytest.raises(OutcomeUnknown, match=r"failed: [^.].*Idempotency-Key"):
            await writing
        begin(private_cluster)
        await sql(private_url, "ALTER SYSTEM RESET synchronous_standby_names")
        await sql(private_url, "SELECT pg_reload_conf()")
        told = await within_a_few_tries(lambda: ledger.writer.write(request))
        assert results(told) == [(None, 0, 1, 1), (None, 7, 2, 2)]
        assert fold(await ledger.events()) == {ALICE: 7}


def no_server(url: str) -> str:
    return url.replace(f":{urlsplit(url).port}/", f":{free_ports(1)[0]}/")


def another_password(url: str) -> str:
    return url.replace(f":{urlsplit(url).password}@", ":not-the-password@")


def another_scheme(url: str) -> str:
    return url.replace("postgresql:", "postgresql+asyncpg:")


def no_database(url: str) -> str:
    return f"{url}_not_there"


@both_stores
@pytest.mark.parametrize("wrong", [no_server, another_password, another_scheme, no_database])
async def test_a_url_that_leads_nowhere_is_refused_without_telling_the_password(
    database_url: str, open_store: Open, wrong: Callable[[str], str]
) -> None:
    url = wrong(database_url)
    assert url != database_url
    with pytest.raises(StoreUnavailable) as refused:
        await open_store(url)
    assert str(urlsplit(url).password) not in str(refused.value)


CANNOT_BE_HELD = (AccountId("\0"), AccountId("\ud800"))


async def test_a_value_that_the_database_cannot_hold_is_the_askers_mistake_and_costs_no_connection(
    database_url: str,
) -> None:
    backends = "SELECT array_agg(pid ORDER BY pid) FROM pg_stat_activity WHERE application_name LIKE 'counting-house%'"
    async with closed_at_the_end(open_views(database_url)) as views:
        await read_account(views.read, ALICE)
        before = await sql(database_url, backends)
        for account_id in CANNOT_BE_HELD:
            with pytest.raises(InvalidRequest, match="PostgreSQL cannot hold it"):
                await read_account(views.read, account_id)
        await read_account(views.read, ALICE)
        assert await sql(database_url, backends) == before


async def test_a_value_that_the_database_cannot_hold_does_not_keep_the_lock(database_url: str) -> None:
    async with closed_at_the_end(PostgresEventLog.open(database_url)) as store:
        for account_id in CANNOT_BE_HELD:
            with pytest.raises(InvalidRequest, match="PostgreSQL cannot hold it"):
                async with store.append({account_id}, set()):
                    pass
        await assert_appends_go_on(store)


@both_stores
async def test_a_database_of_another_encoding_is_refused_and_left_alone(
    database_url: str, open_store: Open, cluster: PostgresCluster
) -> None:
    name = f"{urlsplit(database_url).path[1:]}_latin1"
    await sql(database_url, f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    before = await contents(cluster.url(name))
    with pytest.raises(CorruptStore, match="UTF8"):
        await open_store(cluster.url(name))
    assert await contents(cluster.url(name)) == before


@both_stores
async def test_a_schema_of_a_later_program_is_refused_and_left_alone(database_url: str, open_store: Open) -> None:
    async with closed_at_the_end(open_store(database_url)):
        ((schema,),) = await sql(database_url, "SELECT schemaname FROM pg_tables WHERE tablename = 'migrations'")
    await sql(database_url, f"INSERT INTO {schema}.migrations VALUES (99)")
    before = await contents(database_url)
    with pytest.raises(CorruptStore, match="update the program"):
        await open_store(database_url)
    assert await contents(database_url) == before


async def test_a_commit_waits_for_the_disk_whatever_the_database_says(database_url: str) -> None:
    """No test here can take the power away."""
    await sql(database_url, f"ALTER DATABASE {urlsplit(database_url).path[1:]} SET synchronous_commit = off")
    assert await sql(database_url, "SHOW synchronous_commit") == [("off",)]
    async with (
        closed_at_the_end(PostgresEventLog.open(database_url)) as store,
        closed_at_the_end(open_views(database_url)) as views,
    ):
        for pool in (store._writer, store._reader, views._pool):
            async with pool.connection() as connection:
                assert await connection.fetchval("SHOW synchronous_commit") == "on"


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM ledger.runs WHERE position = 5",
        "DELETE FROM ledger.ledger",
        "UPDATE ledger.ledger SET position = position - 1",
        "UPDATE ledger.ledger SET position = position + 1",
        "UPDATE ledger.relay SET published = 6",
        "UPDATE ledger.relay SET published = -1",
        "DELETE FROM ledger.relay",
    ],
)
async def test_a_log_whose_head_is_not_its_last_event_is_refused(database_url: str, damage: str) -> None:
    async with closed_at_the_end(PostgresEventLog.open(database_url)) as store:
        await record(store, LOG, STATES)
    await sql(database_url, damage)
    before = await contents(database_url)
    with pytest.raises(CorruptStore, match="good copy"):
        await PostgresEventLog.open(database_url)
    assert await contents(database_url) == before


async def test_a_log_from_before_the_first_release_is_refused_and_left_alone(database_url: str) -> None:
    async with raw_connection(database_url) as connection:
        await connection.execute((EARLIER / "001.postgres.sql").read_text())
    before = await contents(database_url)
    with pytest.raises(CorruptStore, match=r"before its first release, .* move it away to begin anew"):
        await PostgresEventLog.open(database_url)
    assert await contents(database_url) == before


async def test_a_database_shows_people_every_event_with_its_position(database_url: str) -> None:
    """Whatever is in its texts, and whether its run has several or is its own."""
    texts = [
        "line\nbreak",
        "\r\n\t\b\x01\x1f\x7f\x85\u2028",
        'quote " \\ \\n \\\\u0041',
        "Zoë 🏦",
        "a,b{c}'d'%s$1",
        "",
        "null",
    ]
    log = [logged(n, AmountDeposited(n, texts[n % len(texts)]), ALICE if n % 3 else BOB) for n in range(1, 301)]
    async with closed_at_the_end(PostgresEventLog.open(database_url)) as store:
        for first, last in ((0, 1), (1, 2), (2, 250), (250, 300)):
            await record(store, log[first:last])
    assert await sql(database_url, "SELECT count(*) FROM ledger.runs") == [(5,)]
    shown = await sql(database_url, "SELECT position, event::text FROM ledger.events ORDER BY position")
    assert [(position, json.loads(str(event))) for position, event in shown] == [
        (position, json.loads(event)) for position, event in enumerate(log, 1)
    ]
    asked = (
        "SELECT array_agg(position ORDER BY position) FROM ledger.events WHERE event -> 'data' ->> 'description' = $1"
    )
    async with raw_connection(database_url) as connection:
        for number, text in enumerate(texts):
            assert await connection.fetchval(asked, text) == [n for n in range(1, 301) if n % len(texts) == number]


EVENTS = [recorded(1, CREATED, ALICE, 1), recorded(2, CREATED_IN_EUR, BOB, 1)] + [
    recorded(position, DEPOSITED if version % 2 == 0 else WITHDRAWN, account_id, version)
    for version in range(2, 42)
    for position, account_id in ((2 * version - 1, ALICE), (2 * version, BOB))
]


async def projection(views: PostgresViewStore) -> Projection:
    return Projection(views, list(VIEWS.values()), await views.checkpoint(), CollectorRegistry())


async def apply_all(projection: Projection, page: int) -> None:
    while projection.position < len(EVENTS):
        await apply(projection, EVENTS[projection.position : projection.position + page])


async def assert_folded_once(views: PostgresViewStore, events: Sequence[RecordedEvent]) -> None:
    balances = fold(events)
    reserves, accounts = await read_reserves(views.read, ["EUR/2"]), await read_accounts(views.read, [ALICE, BOB])
    sums = {USD: balances.get(ALICE, 0)} | ({"EUR/2": balances[BOB]} if BOB in balances else {})
    assert reserves.position == len(events)
    assert {asset: reserve.amount for asset, reserve in reserves.by_asset.items()} == sums
    assert {account.id: account.balance for account in accounts.values()} == balances
    assert {id_: account.version for id_, account in accounts.items()} == Counter(event.account_id for event in events)


async def test_replicas_that_share_views_apply_each_event_once(database_url: str) -> None:
    async with asyncio.timeout(60), opened(lambda: open_views(database_url), 3) as views:
        replicas = [await projection(store) for store in views]
        await asyncio.gather(*(apply_all(replica, page) for replica, page in zip(replicas, (1, 2, 3), strict=True)))
        for replica, store in zip(replicas, views, strict=True):
            assert replica.position == replica.watermark.position == len(EVENTS)
            await assert_folded_once(store, EVENTS)


async def test_a_replica_that_comes_late_takes_up_what_the_other_has_applied(database_url: str) -> None:
    async with opened(lambda: open_views(database_url), 2) as views:
        one, other = [await projection(store) for store in views]
        await apply(one, EVENTS[:10])
        await apply(other, EVENTS[:4])
        assert (one.position, other.position, other.watermark.position) == (10, 10, 10)
        await apply(other, EVENTS[10:12])
        assert (await one.refresh(), one.position, one.source) == (12, 12, EVENTS[0].source)
        await assert_folded_once(views[0], EVENTS[:12])


async def test_a_reader_on_one_replica_is_woken_by_what_another_applies(database_url: str) -> None:
    async with asyncio.timeout(60), opened(lambda: open_views(database_url), 2) as views:
        one, other = [await projection(store) for store in views]
        following = asyncio.create_task(follow(other.refresh, other.watermark))
        waiting = asyncio.create_task(other.watermark.reach(Position(5), 30))
        await apply(one, EVENTS[:5])
        assert await waiting
        assert other.position == 5
        assert not following.done()
        following.cancel()
        await asyncio.wait([following])


async def test_projections_of_different_names_have_views_of_their_own(database_url: str) -> None:
    async with (
        closed_at_the_end(PostgresViewStore.open(database_url, "one", list(VIEWS))) as views,
        closed_at_the_end(PostgresViewStore.open(database_url, "other", list(VIEWS))) as other_views,
    ):
        one, other = await projection(views), await projection(other_views)
        await apply(one, EVENTS)
        assert await other.refresh() == 0
        await assert_folded_once(other_views, [])
        await apply(other, EVENTS[:9])
        await assert_folded_once(views, EVENTS)
        await assert_folded_once(other_views, EVENTS[:9])


async def test_views_of_an_earlier_state_are_refused_and_left_alone(database_url: str) -> None:
    """They were all in one migration, number 1."""
    async with closed_at_the_end(open_views(database_url)):
        pass
    await sql(database_url, "UPDATE projection_test.migrations SET number = 1")
    before = await contents(database_url)
    with pytest.raises(CorruptStore, match="before its first release"):
        await open_views(database_url)
    assert await contents(database_url) == before
