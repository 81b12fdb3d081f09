"""What stands between a service and PostgreSQL, and after it: standbys, several hosts, poolers."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from command_service.event_log.postgres import PostgresEventLog
from command_service.ledger.outcomes import Outcome
from command_service.ledger_writer import WriteRequest
from scripts.postgres import PostgresCluster
from shared.errors import CorruptStore, OutcomeUnknown, StoreUnavailable
from shared.events import AccountId
from tests.contract.conftest import closed_at_the_end
from tests.contract.pooler import running_pooler
from tests.contract.test_event_log import assert_appends_go_on_as
from tests.contract.test_ledger import Ledger, results, running
from tests.contract.test_postgres import Open, both_stores, sql, until, within_a_few_tries
from tests.examples import CREATE, deposit


@asynccontextmanager
async def ledger_at(url: str) -> AsyncIterator[Ledger]:
    async with closed_at_the_end(PostgresEventLog.open(url)) as store, running(store) as ledger:
        yield ledger


async def write_in_the_end(ledger: Ledger, request: WriteRequest) -> list[Outcome]:
    """As a client does that has a key."""
    while True:
        try:
            return await ledger.writer.write(request)
        except (StoreUnavailable, OutcomeUnknown):
            await asyncio.sleep(0.1)


async def test_a_retry_is_not_answered_from_a_commit_that_the_synchronous_standby_does_not_have(
    primary: PostgresCluster, standby: PostgresCluster, impatience: None
) -> None:
    database = primary.create_database()
    url = primary.url(database)
    request = WriteRequest([CREATE, deposit(7)], "key", b"fingerprint")
    async with asyncio.timeout(60), ledger_at(url) as ledger:
        await sql(url, "ALTER SYSTEM SET synchronous_standby_names = '*'")
        await sql(url, "SELECT pg_reload_conf()")
        await until(url, "SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'")
        standby.kill()
        with pytest.raises(OutcomeUnknown, match=r"failed: no answer in time\. Retry"):
            await ledger.writer.write(request)
        # From here on the primary shows the commit to everybody.
        await sql(url, "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        await until(url, "SELECT position = 2 FROM ledger.ledger")
        for _ in range(3):
            with pytest.raises((OutcomeUnknown, StoreUnavailable)):
                await ledger.writer.write(request)
        standby.start()
        told = await write_in_the_end(ledger, request)
        assert results(told) == [(None, 0, 1, 1), (None, 7, 2, 2)]
        primary.kill()
    standby.sql("postgres", "SELECT pg_promote()")
    async with ledger_at(standby.url(database)) as ledger:
        assert await ledger.writer.write(request) == told


async def test_a_primary_that_falls_silent_is_left_for_the_one_that_took_its_place(
    primary: PostgresCluster, standby: PostgresCluster
) -> None:
    """Its system goes on taking connections, and nothing answers on them."""
    database = primary.create_database()
    address, _, _ = primary.url(database).rpartition("/")
    url = f"{address},127.0.0.1:{standby.port}/{database}?target_session_attrs=read-write"
    async with asyncio.timeout(60), ledger_at(url) as ledger:
        await ledger.writer.write(WriteRequest([CREATE]))
        await until(
            primary.url(database), "SELECT bool_and(replay_lsn = pg_current_wal_lsn()) FROM pg_stat_replication"
        )
        primary.send(signal.SIGSTOP)
        begun = asyncio.get_running_loop().time()
        depositing = asyncio.create_task(write_in_the_end(ledger, WriteRequest([deposit(7)], "key", b"fingerprint")))
        await asyncio.to_thread(standby.sql, "postgres", "SELECT pg_promote()")
        assert results(await depositing) == [(None, 7, 2, 2)]
        print(f"fail-over took {asyncio.get_running_loop().time() - begun:.1f} s")
        assert await within_a_few_tries(ledger.log.head) == 2


@both_stores
async def test_a_pooler_in_session_mode_is_as_good_as_none(cluster: PostgresCluster, open_store: Open) -> None:
    url = cluster.url(cluster.create_database())
    with running_pooler(url, "pool_mode = session") as pooled:
        for number in range(2):  # the second one gets the sessions of the first one
            async with closed_at_the_end(open_store(pooled)) as store:
                pool = store._writer if isinstance(store, PostgresEventLog) else store._pool
                async with pool.connection() as connection:
                    assert await connection.fetchval("SHOW synchronous_commit") == "on"
                    assert await connection.fetchval("SHOW statement_timeout") == "5s"
                if isinstance(store, PostgresEventLog):
                    await assert_appends_go_on_as(store, AccountId(f"account-{number}"))


@pytest.mark.parametrize(
    "settings",
    [
        "pool_mode = transaction",
        "pool_mode = session\nserver_reset_query = ''",
        "pool_mode = transaction\nignore_startup_parameters = search_path,synchronous_commit,statement_timeout",
    ],
)
async def test_a_pooler_that_gives_a_session_to_several_is_refused_and_told_what_to_do(
    cluster: PostgresCluster, settings: str
) -> None:
    url = cluster.url(cluster.create_database())

    async def open_twice() -> None:
        for _ in range(2):  # at the latest when another one gets its sessions
            async with closed_at_the_end(PostgresEventLog.open(pooled)):
                pass

    refused = pytest.raises(CorruptStore, match=r"pool_mode to session.* or connect directly")
    with running_pooler(url, settings) as pooled, refused:
        await open_twice()
