"""What a command costs must not grow with its account's history, with the number of accounts, or with the log."""

from pathlib import Path

import apsw
import asyncpg
import pytest

from command_service.event_log import EventLog, recent_states
from command_service.event_log.postgres import PostgresEventLog
from command_service.event_log.runs import RUN_EVENTS_MAX
from command_service.event_log.sqlite import SqliteEventLog
from command_service.ledger.commands import Capture, CreateAccount, PlaceHold
from command_service.ledger_writer import WriteRequest
from shared.events import AccountId, HoldId
from tests.contract.conftest import closed_at_the_end
from tests.contract.test_ledger import Ledger, running
from tests.examples import ALICE, CREATE, HOLD, deposit

MANY = 3_000


async def statements_of(ledger: Ledger, request: WriteRequest) -> list[str]:
    """What the database is asked for this request, with the values left out."""
    statements: list[str] = []
    match ledger.log:
        case SqliteEventLog(_writer=thread):

            def trace(_: object, statement: str, __: object) -> bool:
                statements.append(statement)
                return True

            await thread.run(apsw.Connection.set_exec_trace, trace)
            await ledger.writer.write(request)
            await thread.run(apsw.Connection.set_exec_trace, None)
        case PostgresEventLog(_writer=pool):

            def log(query: asyncpg.connection.LoggedQuery) -> None:
                statements.append(query.query)

            async with pool.connection() as connection:
                connection.add_query_logger(log)
            await ledger.writer.write(request)
            async with pool.connection() as connection:
                connection.remove_query_logger(log)
    return [" ".join(statement.split()[:3]) for statement in statements]


async def test_a_deposit_takes_as_many_statements_after_many_events_and_accounts_as_before(
    event_log: EventLog,
) -> None:
    async with running(event_log) as ledger:
        await ledger.writer.write(WriteRequest([CREATE]))
        before = await statements_of(ledger, WriteRequest([deposit(1)], "first", b"1"))
        await ledger.writer.write(WriteRequest([deposit(1)] * MANY))
        await ledger.writer.write(WriteRequest([CreateAccount("Bob", AccountId(f"{n}")) for n in range(MANY)]))
        after = await statements_of(ledger, WriteRequest([deposit(1)], "second", b"2"))
    assert after == before
    assert (before.count("COMMIT"), sum(statement.startswith("BEGIN") for statement in before)) == (1, 1)
    assert len(before) <= 10


async def test_a_hold_takes_as_many_statements_beside_many_as_alone(event_log: EventLog) -> None:
    request = WriteRequest([PlaceHold(ALICE, 1, HoldId("one"), "9999-01-01T00:00:00.000000Z"), Capture(ALICE, HOLD)])
    async with running(event_log) as ledger:
        await ledger.writer.write(WriteRequest([CREATE, deposit(10 * MANY), PlaceHold(ALICE, 1, HOLD)]))
        before = await statements_of(ledger, request)
        await ledger.writer.write(
            WriteRequest([*(PlaceHold(ALICE, 1, HoldId(f"h-{n}")) for n in range(MANY)), PlaceHold(ALICE, 1, HOLD)])
        )
        await ledger.writer.write(WriteRequest([Capture(ALICE, HoldId("one"))]))
        after = await statements_of(ledger, request)
        without = await statements_of(ledger, WriteRequest([deposit(1)]))
        assert after == before
        # Who names no hold asks for none.
        assert len(before) - len(without) == (2 if isinstance(event_log, PostgresEventLog) else 3)
        assert not any("hold" in statement for statement in without)


async def test_many_commands_take_as_many_statements_on_postgresql_as_one(database_url: str) -> None:
    async with closed_at_the_end(PostgresEventLog.open(database_url)) as store, running(store) as ledger:
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
        closed_at_the_end(SqliteEventLog.open(tmp_path / "ledger.sqlite3")) as store,
        running(store) as ledger,
    ):
        await ledger.writer.write(WriteRequest([CREATE]))
        one = await statements_of(ledger, WriteRequest([deposit(1)]))
        many = await statements_of(ledger, WriteRequest([deposit(1)] * 300))
        other = [CreateAccount("Bob", AccountId(f"{n}")) for n in range(300)]
        spread = await statements_of(ledger, WriteRequest(other))
        runs = -(-300 // RUN_EVENTS_MAX)
        assert len(many) - len(one) == runs - 1
        # One more: the accounts that are not in memory are asked for, all at once.
        assert len(spread) - len(one) == runs - 1 + 1
        assert all(asked.count("COMMIT") == 1 for asked in (one, many, spread))
        async with store.append({ALICE}, set()) as append:
            assert append.head.position == 602


async def test_states_are_written_as_often_as_they_must_be_and_what_waits_stays_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, batch = 1000, 50
    monkeypatch.setattr(recent_states, "SWEEP_EVENTS", sweep)
    async with (
        closed_at_the_end(SqliteEventLog.open(tmp_path / "ledger.sqlite3")) as store,
        running(store) as ledger,
    ):

        async def rows_written(accounts: int) -> int:
            """In the transactions of so many events as there are in three sweeps."""
            written = 0
            for first in range(0, 3 * sweep, batch):
                ids = [AccountId(f"{number % accounts}") for number in range(first, first + batch)]
                statements = await statements_of(ledger, WriteRequest([deposit(1, id_) for id_ in ids]))
                written += statements.count("REPLACE INTO states")
                position = store._writer.connection.run(
                    lambda connection: connection.execute("SELECT states_position FROM ledger").get
                )
                assert ledger.head.position - position <= 2 * sweep + batch
                assert len(store._recent.all()) <= 2 * sweep + batch
            return written

        # Each account once a sweep, however many events it has; never more rows than events.
        assert await rows_written(10) in (20, 30)
        assert await rows_written(MANY) <= 3 * sweep
        assert await rows_written(10) <= MANY + 30
