"""What a command costs must not grow with its account's history, with the number of accounts, or with the log."""

from pathlib import Path

import asyncpg
import pytest

from command_service.account import CreateAccount
from command_service.event_store import EventStore, Stream, sqlite, sqlite_streams
from command_service.event_store.postgres import PostgresEventStore
from command_service.event_store.sqlite import RUN_EVENTS, SqliteEventStore
from command_service.ledger_writer import WriteRequest
from shared.events import AccountId, Version
from tests.contract.conftest import closed_at_the_end
from tests.contract.test_event_store import encoded, record
from tests.contract.test_ledger import Ledger, running
from tests.examples import ALICE, CREATE, DEPOSITED, deposit, logged

MANY = 3_000


async def statements_of(ledger: Ledger, request: WriteRequest) -> list[str]:
    """What the database is asked for this request, with the values left out."""
    statements: list[str] = []
    match ledger.store:
        case SqliteEventStore(_writer=thread):
            await thread.run(lambda connection: connection.set_trace_callback(statements.append))
            await ledger.writer.write(request)
            await thread.run(lambda connection: connection.set_trace_callback(None))
        case PostgresEventStore(_writer=pool):

            def log(query: asyncpg.connection.LoggedQuery) -> None:
                statements.append(query.query)

            async with pool.connection() as connection:
                connection.add_query_logger(log)
            await ledger.writer.write(request)
            async with pool.connection() as connection:
                connection.remove_query_logger(log)
    return [" ".join(statement.split()[:3]) for statement in statements]


async def test_a_deposit_takes_as_many_statements_after_many_events_and_accounts_as_before(
    event_store: EventStore,
) -> None:
    async with running(event_store) as ledger:
        await ledger.writer.write(WriteRequest([CREATE]))
        before = await statements_of(ledger, WriteRequest([deposit(1)], "first", b"1"))
        await ledger.writer.write(WriteRequest([deposit(1)] * MANY))
        await ledger.writer.write(WriteRequest([CreateAccount("Bob", AccountId(f"{n}")) for n in range(MANY)]))
        after = await statements_of(ledger, WriteRequest([deposit(1)], "second", b"2"))
    assert after == before
    assert (before.count("COMMIT"), sum(statement.startswith("BEGIN") for statement in before)) == (1, 1)
    assert len(before) <= 10


async def test_many_commands_take_as_many_statements_on_postgresql_as_one(database_url: str) -> None:
    async with closed_at_the_end(PostgresEventStore.open(database_url)) as store, running(store) as ledger:
        await ledger.writer.write(WriteRequest([CREATE]))
        one = await statements_of(ledger, WriteRequest([deposit(1)]))
        many = await statements_of(ledger, WriteRequest([deposit(1)] * 100))
        spread = await statements_of(
            ledger, WriteRequest([CreateAccount("Bob", AccountId(f"{n}")) for n in range(100)])
        )
    assert one == many == spread
    assert len(one) == 4


async def test_many_commands_take_one_transaction_and_a_row_for_each_run_of_events(tmp_path: Path) -> None:
    async with (
        closed_at_the_end(SqliteEventStore.open(tmp_path / "ledger.sqlite3")) as store,
        running(store) as ledger,
    ):
        await ledger.writer.write(WriteRequest([CREATE]))
        one = await statements_of(ledger, WriteRequest([deposit(1)]))
        many = await statements_of(ledger, WriteRequest([deposit(1)] * 100))
        other = [CreateAccount("Bob", AccountId(f"{n}")) for n in range(100)]
        spread = await statements_of(ledger, WriteRequest(other))
        runs = -(-100 // RUN_EVENTS)
        assert len(many) - len(one) == runs - 1
        # One more: the accounts that are not in memory are asked for, all at once.
        assert len(spread) - len(one) == runs - 1 + 1
        assert all(asked.count("COMMIT") == 1 for asked in (one, many, spread))
        async with store.append({ALICE}, set()) as append:
            assert append.head == 202


async def test_the_way_back_through_a_long_stream_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "RUN_EVENTS", 1)
    monkeypatch.setattr(sqlite_streams, "STRIDE", 4)
    async with closed_at_the_end(SqliteEventStore.open(tmp_path / "ledger.sqlite3")) as store:
        log = [logged(position, DEPOSITED, ALICE, position) for position in range(1, MANY + 1)]
        await record(store, log, {ALICE: Stream(Version(MANY), None)})
        statements: list[str] = []
        await store._reader.run(lambda connection: connection.set_trace_callback(statements.append))
        for after in range(0, MANY, 7):
            statements.clear()
            assert await store.read_stream(ALICE, Version(after), 1, 1_000_000) == encoded(log[after : after + 1])
            # Three strides of each size, and 4⁶ is more than there are events.
            assert len(statements) <= 3 * 6 + 1


async def test_streams_are_written_as_often_as_they_must_be_and_what_waits_stays_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, batch = 1000, 50
    monkeypatch.setattr(sqlite_streams, "SWEEP_EVENTS", sweep)
    async with (
        closed_at_the_end(SqliteEventStore.open(tmp_path / "ledger.sqlite3")) as store,
        running(store) as ledger,
    ):

        async def rows_written(accounts: int) -> int:
            """In the transactions of so many events as there are in three sweeps."""
            written = 0
            for first in range(0, 3 * sweep, batch):
                ids = [AccountId(f"{number % accounts}") for number in range(first, first + batch)]
                statements = await statements_of(ledger, WriteRequest([deposit(1, id_) for id_ in ids]))
                written += statements.count("INSERT INTO streams")
                (position,) = store._writer.connection.run(
                    lambda connection: connection.execute("SELECT streams_position FROM ledger").fetchone()
                )
                assert ledger.head.position - position <= 2 * sweep + batch
                assert len(store._recent.ends) <= 2 * sweep + batch
            return written

        # Each account once a sweep, however many events it has; never more rows than events.
        assert await rows_written(10) in (20, 30)
        assert await rows_written(MANY) <= 3 * sweep
        assert await rows_written(10) <= MANY + 30
