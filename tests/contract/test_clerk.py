"""What the clerk promises over every store: each hold that is due ends once, and nobody waits for it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest
from prometheus_client import CollectorRegistry

from command_service import clerk as clerk_module
from command_service.clerk import Clerk
from command_service.event_log import EventLog
from command_service.event_log.postgres import PostgresEventLog
from command_service.event_log.sqlite import SqliteEventLog
from command_service.ledger.account import Hold
from command_service.ledger.commands import Capture, Command, ExpireHold, PlaceHold, Release
from command_service.ledger.outcomes import Outcome, Rejection
from command_service.ledger_writer import WriteRequest
from command_service.verify import verify
from shared.errors import CorruptStore
from shared.events import HoldId, RecordedEvent, written
from shared.platform import sqlite
from tests.contract.conftest import OpenEventLog, closed_at_the_end
from tests.contract.test_ledger import Ledger, reason_of, running
from tests.examples import ALICE, CREATE, deposit

WAIT_SECONDS = 30
"""Generous: how soon the clerk comes is seen in the times of its events."""


@dataclass
class Clock:
    time: datetime = datetime(2026, 11, 23, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def in_seconds(self, seconds: float) -> str:
        return written(self.time + timedelta(seconds=seconds))


@dataclass
class Office:
    """A ledger with a clerk, whose clock stands still until the test moves it."""

    ledger: Ledger
    clerk: Clerk
    clock: Clock
    registry: CollectorRegistry
    task: "asyncio.Task[None]"
    looks: list[str | None]
    """What it has found each time."""

    async def write(self, *commands: Command) -> None:
        outcomes = await self.ledger.writer.write(WriteRequest(commands))
        assert not [outcome for outcome in outcomes if isinstance(outcome, Rejection)]

    async def expired(self) -> list[str]:
        return [event.event.hold_id for event in await self.events() if event.event.type == "hold-expired"]  # type: ignore[union-attr]

    async def events(self) -> list[RecordedEvent]:
        return await self.ledger.events()

    async def until_expired(self, number: int) -> list[str]:
        async with asyncio.timeout(WAIT_SECONDS):
            while len(expired := await self.expired()) < number:
                assert not self.task.done(), self.task
                await asyncio.sleep(0.01)
        return expired

    async def until_looked(self) -> None:
        """Until the clerk has gone through the log once more, at least."""
        before = len(self.looks)
        async with asyncio.timeout(WAIT_SECONDS):
            while len(self.looks) < before + 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    def overdue_seconds(self) -> float | None:
        return self.registry.get_sample_value("ledger_hold_overdue_seconds")


@asynccontextmanager
async def office(log: EventLog, clock: Clock | None = None) -> AsyncIterator[Office]:
    clock = clock or Clock()
    registry, looks = CollectorRegistry(), list[str | None]()
    first_expiry = log.first_expiry

    async def noted() -> str | None:
        looks.append(await first_expiry())
        return looks[-1]

    log.first_expiry = noted  # type: ignore[method-assign]
    async with running(log, clock) as ledger:
        clerk = Clerk(log, ledger.writer, registry, clock)
        task = asyncio.create_task(clerk.run())
        try:
            yield Office(ledger, clerk, clock, registry, task, looks)
        finally:
            task.cancel()
            await asyncio.wait([task])


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the tests' time's sake: their clocks stand still."""
    monkeypatch.setattr(clerk_module, "LOOK_SECONDS", 0.02)


def holds(number: int, expires_at: str | None, first: int = 0) -> Sequence[Command]:
    return [PlaceHold(ALICE, 1, HoldId(f"h-{n:05d}"), expires_at) for n in range(first, first + number)]


async def test_holds_expire_when_their_time_has_come_and_the_earliest_first(event_log: EventLog) -> None:
    async with office(event_log) as at:
        await at.write(CREATE, deposit(100))
        await at.write(*holds(2, at.clock.in_seconds(20)), *holds(1, None, 2), *holds(2, at.clock.in_seconds(10), 3))
        await at.until_looked()
        assert (await at.expired(), at.clerk.status, at.overdue_seconds()) == ([], "nothing is due", 0)
        at.clock.time += timedelta(seconds=10)
        assert await at.until_expired(2) == ["h-00003", "h-00004"]
        at.clock.time += timedelta(seconds=9.999999)
        await at.until_looked()
        assert len(await at.expired()) == 2
        at.clock.time += timedelta(microseconds=1)
        assert (await at.until_expired(4))[2:] == ["h-00000", "h-00001"]
        await at.until_looked()
        assert at.clerk.status == "nothing is due"
    await verify(event_log)


async def test_what_was_due_while_nobody_was_there_expires_at_the_start(open_event_log: OpenEventLog) -> None:
    clock = Clock()
    async with open_event_log() as log, running(log, clock) as ledger:
        await ledger.writer.write(WriteRequest([CREATE, deposit(100), *holds(7, clock.in_seconds(1))]))
    clock.time += timedelta(days=400)
    async with open_event_log() as log:
        async with office(log, clock) as at:
            assert len(await at.until_expired(7)) == 7
        await verify(log)


async def test_a_hold_that_has_ended_leads_to_no_event(event_log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even when the clerk comes for it: it was captured after the clerk had found it."""
    clock = Clock()
    due_holds = event_log.due_holds
    async with running(event_log, clock) as ledger:
        await ledger.writer.write(WriteRequest([CREATE, deposit(100), *holds(3, clock.in_seconds(10))]))
        later = (await due_holds(("", ALICE, HoldId("")), clock.in_seconds(10), 10))[:2]
        ends: list[Command] = [Capture(ALICE, HoldId("h-00000")), Release(ALICE, HoldId("h-00001"))]
        await ledger.writer.write(WriteRequest(ends))
    clock.time += timedelta(seconds=10)

    async def as_found(*args: object) -> object:
        return [*later, *await due_holds(*args)] if (found := await due_holds(*args)) else found  # type: ignore[arg-type]

    monkeypatch.setattr(event_log, "due_holds", as_found)
    async with office(event_log, clock) as at:
        assert await at.until_expired(1) == ["h-00002"]
        await at.until_looked()
        assert len(await at.events()) == 2 + 3 + 2 + 1
    await verify(event_log)


async def test_who_comes_for_what_has_ended_asks_the_writer_once_a_look(
    event_log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    gone = [(clock.in_seconds(-1), ALICE, HoldId(f"h-{n}")) for n in range(3)]
    appends = 0
    append = event_log.append

    def counted(*args: Any) -> Any:
        nonlocal appends
        appends += 1
        return append(*args)

    async def found(*_: object) -> object:
        return gone

    async def first() -> str:
        return gone[0][0]

    monkeypatch.setattr(event_log, "append", counted)
    monkeypatch.setattr(event_log, "due_holds", found)
    monkeypatch.setattr(event_log, "first_expiry", first)
    async with office(event_log, clock) as at:
        await at.until_looked()
        assert 1 <= appends <= len(at.looks)
        assert await at.events() == []


async def test_when_nothing_is_due_nothing_is_written(event_log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    async with office(event_log) as at:
        await at.write(CREATE, deposit(100), *holds(3, at.clock.in_seconds(10)), *holds(3, None, 3))

        def forbidden(*_: object) -> None:
            raise AssertionError("the clerk has something to write")

        monkeypatch.setattr(event_log, "append", forbidden)
        monkeypatch.setattr(event_log, "lead_clerk", forbidden)
        await at.until_looked()
        assert not at.task.done()


async def test_many_are_expired_in_pages_and_others_are_heard_in_between(
    event_log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clerk_module, "PAGE_HOLDS_MAX", 10)
    async with office(event_log) as at:
        await at.write(CREATE, deposit(1000), *holds(500, at.clock.in_seconds(10)), *holds(1, None, 500))
        pages, write = list[int](), at.ledger.writer.write

        async def counted(request: WriteRequest) -> list[Outcome]:
            if type(request.commands[0]) is ExpireHold:
                pages.append(len(request.commands))
            return await write(request)

        monkeypatch.setattr(at.ledger.writer, "write", counted)
        at.clock.time += timedelta(seconds=15)
        await at.until_expired(10)
        overdue: set[float | None] = set()
        while len(await at.expired()) < 500:
            await at.write(deposit(1))
            overdue.add(at.overdue_seconds())
        assert {5} <= overdue <= {5, 0}
        assert len(await at.expired()) == len(set(await at.expired())) == 500
        assert pages == [10] * 50
    await verify(event_log)


async def test_a_clock_that_goes_back_makes_nothing_due_again(event_log: EventLog) -> None:
    async with office(event_log) as at:
        await at.write(CREATE, deposit(100), *holds(1, at.clock.in_seconds(10)), *holds(1, at.clock.in_seconds(30), 1))
        at.clock.time += timedelta(seconds=20)
        await at.write(deposit(1))
        await at.until_expired(1)
        at.clock.time -= timedelta(seconds=19)
        last = (await at.events())[-1].time
        # The ledger's time is what counts, and stands at that of its last event.
        outcomes = await at.ledger.writer.write(
            WriteRequest([PlaceHold(ALICE, 1, HoldId("late"), at.clock.in_seconds(5))])
        )
        assert list(map(reason_of, outcomes)) == ["expiry-not-in-the-future"]
        await at.until_looked()
        assert (await at.events())[-1].time == last
        at.clock.time += timedelta(seconds=29)
        assert await at.until_expired(2) == ["h-00000", "h-00001"]
    await verify(event_log)


async def test_what_is_due_by_the_last_events_time_expires_though_the_clock_is_behind(event_log: EventLog) -> None:
    clock = Clock()
    async with running(event_log, clock) as ledger:
        await ledger.writer.write(WriteRequest([CREATE, deposit(100), *holds(1, clock.in_seconds(10))]))
        clock.time += timedelta(seconds=10)
        await ledger.writer.write(WriteRequest([deposit(1)]))
    clock.time -= timedelta(seconds=5)
    async with office(event_log, clock) as at:
        await at.until_expired(1)
    await verify(event_log)


async def test_clerks_of_several_replicas_expire_each_hold_once(database_url: str) -> None:
    clock = Clock()
    async with (
        closed_at_the_end(PostgresEventLog.open(database_url)) as one,
        closed_at_the_end(PostgresEventLog.open(database_url)) as other,
        office(one, clock) as first,
        office(other, clock) as second,
    ):
        await first.write(CREATE, deposit(5000), *holds(3000, clock.in_seconds(10)))
        clock.time += timedelta(seconds=10)
        assert len(set(await first.until_expired(3000))) == 3000
        await asyncio.gather(first.until_looked(), second.until_looked())
        assert len(await second.expired()) == 3000
        await verify(one)


async def test_a_store_that_is_away_for_a_while_holds_no_hold_up_for_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.1)
    path = tmp_path / "ledger.sqlite3"
    async with closed_at_the_end(SqliteEventLog.open(path)) as log, office(log) as at:
        await at.write(CREATE, deposit(100), *holds(3, at.clock.in_seconds(10)))
        with closing(apsw.Connection(str(path))) as another:
            another.execute("BEGIN IMMEDIATE")
            at.clock.time += timedelta(seconds=14)
            async with asyncio.timeout(WAIT_SECONDS):
                while not at.clerk.status.startswith("cannot expire holds"):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert at.overdue_seconds() == 4
            assert await at.expired() == []
        assert len(await at.until_expired(3)) == 3


async def test_an_expiry_that_is_no_time_ends_the_service(event_log: EventLog) -> None:
    """As a bit that has changed may make of it."""
    async with office(event_log) as at:
        async with event_log.append(set(), set()) as append:
            await append.commit([], append.time, {}, {}, {(ALICE, HoldId("h")): Hold(1, "2026-11-2$")})
        with pytest.raises(CorruptStore, match=r"expires at '2026-11-2\$'"):
            async with asyncio.timeout(WAIT_SECONDS):
                await at.task
