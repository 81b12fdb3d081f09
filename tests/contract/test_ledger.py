"""Writer, store and views together, over every store: what holds after any sequence of commands."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET, UnsetType
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from command_service import ledger_writer
from command_service.event_log import EventLog
from command_service.event_log.sqlite import SqliteEventLog
from command_service.ledger.commands import (
    Capture,
    Command,
    CreateAccount,
    Deposit,
    PlaceHold,
    Release,
    Transfer,
    Withdraw,
    command_of,
)
from command_service.ledger.outcomes import Outcome, Rejection
from command_service.ledger_writer import COMMANDS_WAITING_MAX, LedgerWriter, WriteRequest
from command_service.verify import verify
from projection_service.projection import Projection
from projection_service.view_store.sqlite import SqliteViewStore
from projection_service.views import VIEWS
from projection_service.views.accounts.tables import read_accounts
from projection_service.views.holds.tables import read_holds
from projection_service.views.reserve.tables import read_page
from shared.chain import extend
from shared.errors import IdempotencyKeyReused, LedgerError, NotReady, Overloaded, StoreUnavailable
from shared.events import (
    USD,
    AccountCreated,
    AccountId,
    HoldCaptured,
    HoldId,
    Position,
    Reason,
    RecordedEvent,
    Rejected,
    Version,
    decode_events,
    entries,
    join_events,
)
from shared.platform.watermark import Watermark
from tests.contract.conftest import OpenEventLog, closed_at_the_end
from tests.examples import ALICE, BOB, CREATE, INT64_MAX, deposit, transfer, withdraw

ALL = 2**31
LATER = "9999-12-31T23:59:59.999999Z"


@dataclass
class Ledger:
    log: EventLog
    writer: LedgerWriter
    head: Watermark

    async def events(self) -> list[RecordedEvent]:
        return decode_events(join_events((await self.log.read(Position(0), ALL, ALL)).events))


@asynccontextmanager
async def running(
    log: EventLog,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    registry: CollectorRegistry | None = None,
) -> AsyncIterator[Ledger]:
    head = Watermark(await log.head())
    writer = LedgerWriter(log, head, registry or CollectorRegistry(), now)
    task = asyncio.create_task(writer.run())
    try:
        yield Ledger(log, writer, head)
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture
async def ledger(event_log: EventLog) -> AsyncIterator[Ledger]:
    async with running(event_log) as ledger:
        yield ledger


accounts = st.sampled_from([AccountId(name) for name in ("alice", "bob", "carol")])
texts = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
"""As the HTTP face lets them in: it refuses U+0000, and so does whoever reads an event."""
amounts = st.one_of(
    st.integers(-1, 3),
    st.integers(-5, 300),
    st.sampled_from([0, INT64_MAX, INT64_MAX - 1, -INT64_MAX - 1]),
    st.integers(-(2**63), INT64_MAX),
)
hold_ids = st.sampled_from([HoldId("x"), HoldId("y")])
commands = st.one_of(
    st.builds(
        CreateAccount,
        st.text(texts, min_size=1, max_size=5),
        accounts,
        st.sampled_from([None, "USD/2", "EUR/2", "EUR/2", "BTC/8"]),
    ),
    st.builds(Deposit, accounts, amounts, st.text(texts, max_size=5)),
    st.builds(Withdraw, accounts, amounts, st.text(texts, max_size=5)),
    st.builds(Transfer, accounts, accounts, st.integers(-1, 300)),
    st.builds(PlaceHold, accounts, amounts, hold_ids, st.sampled_from([None, LATER]), st.text(texts, max_size=5)),
    st.builds(Capture, accounts, hold_ids, st.none() | amounts, st.none() | accounts),
    st.builds(Release, accounts, hold_ids),
)


def asking(command: Command, if_version: int | UnsetType, metadata: dict[str, str] | UnsetType) -> Command:
    return replace(command, if_version=if_version, metadata=metadata)


def as_recorded(command: Command) -> Command:
    command = replace(command, metadata=command.metadata or UNSET)
    return replace(command, asset=command.asset or USD) if isinstance(command, CreateAccount) else command


asking_commands = st.builds(
    asking,
    st.one_of(
        commands,
        st.builds(Transfer, accounts, accounts, st.integers(0, 9)),
        st.builds(Deposit, accounts, st.integers(1, 9)),
        st.builds(PlaceHold, accounts, st.integers(1, 9), hold_ids),
        st.builds(Capture, accounts, hold_ids),
    ),
    st.one_of(st.just(UNSET), st.just(UNSET), st.just(UNSET), st.integers(0, 4)),
    st.one_of(st.just(UNSET), st.dictionaries(st.text(texts, max_size=3), st.text(texts, max_size=3), max_size=3)),
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(before=st.lists(asking_commands, max_size=8), batch=st.lists(asking_commands, max_size=6))
def test_an_atomic_request_is_what_its_commands_come_to_one_by_one_or_nothing(
    before: list[Command], batch: list[Command]
) -> None:
    created: list[Command] = [CreateAccount("Alice", ALICE), CreateAccount("Bob", BOB)]
    asyncio.run(check_all_or_nothing([*created, *before], batch))


async def check_all_or_nothing(before: list[Command], batch: list[Command]) -> None:
    with TemporaryDirectory() as folder:
        async with (
            closed_at_the_end(SqliteEventLog.open(Path(folder) / "atomic.sqlite3")) as log,
            closed_at_the_end(SqliteEventLog.open(Path(folder) / "copy.sqlite3")) as copy,
            running(log) as atomic,
            running(copy) as one_by_one,
        ):
            for ledger in (atomic, one_by_one):
                await ledger.writer.write(WriteRequest(before))
            told = await atomic.writer.write(WriteRequest(batch, atomic=True))
            alone = [(await one_by_one.writer.write(WriteRequest([command])))[0] for command in batch]
            events, events_alone = [
                [event.event for event in (await ledger.events())[len(before) :]] for ledger in (atomic, one_by_one)
            ]
            first = next((number for number, outcome in enumerate(alone) if reason_of(outcome)), None)
            if first is None:
                assert events == events_alone
                assert [replace(one, event_id="") for one in told] == [replace(one, event_id="") for one in alone]
            else:
                assert events[first] == events_alone[first]
                assert [reason_of(outcome) for outcome in told] == [
                    reason_of(alone[first]) if number == first else LINKED for number in range(len(told))
                ]
                events_together = (await atomic.events())[len(before) :]
                assert [command_of(event) for event in events_together] == [*map(as_recorded, batch)]
            assert [outcome.position for outcome in told] == [outcome.position for outcome in alone]
            assert (await verify(log)).position == len(before) + len(batch)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    requests=st.lists(
        st.builds(WriteRequest, st.lists(commands, min_size=1, max_size=6), atomic=st.booleans()), max_size=12
    ),
    page=st.integers(1, 20),
)
def test_any_sequence_of_commands_leaves_a_ledger_that_adds_up(requests: list[WriteRequest], page: int) -> None:
    asyncio.run(check_that_it_adds_up(requests, page))


async def check_that_it_adds_up(requests: list[WriteRequest], page: int) -> None:
    with TemporaryDirectory() as folder:
        async with (
            closed_at_the_end(SqliteEventLog.open(Path(folder) / "ledger.sqlite3")) as log,
            closed_at_the_end(SqliteViewStore.open(Path(folder) / "views.sqlite3", list(VIEWS))) as views,
            running(log) as ledger,
        ):
            answers = await asyncio.gather(*map(ledger.writer.write, requests))
            events = await ledger.events()
            given_commands = [command for request in requests for command in request.commands]
            outcomes = [outcome for outcomes in answers for outcome in outcomes]
            # One event for each command, in order, without a hole.
            assert [event.position for event in events] == list(range(1, len(given_commands) + 1))
            assert [event.account_id for event in events] == [command.account_id for command in given_commands]
            balances, held = fold_with_holds(events)
            assert results(outcomes) == told_of(events)
            # The projection, in pages of any size, comes to the same.
            projection = Projection(views, list(VIEWS.values()), await views.checkpoint(), CollectorRegistry())
            for first in range(0, len(events), page):
                await apply(projection, events[first : first + page])
            stored = await read_accounts(views.read, [AccountId(name) for name in ("alice", "bob", "carol")])
            assert {account.id: account.balance for account in stored.values()} == balances
            assert {account.id: account.held for account in stored.values() if account.held} == held
            for account_id in balances:
                listed, _ = await read_holds(views.read, account_id, HoldId(""), 10)
                assert sum(hold.amount for hold in listed or ()) == held.get(account_id, 0)
            assets = {
                event.account_id: event.event.asset for event in events if isinstance(event.event, AccountCreated)
            }
            assert {account.id: account.asset for account in stored.values()} == assets
            reserves = {asset: reserve.amount for asset, reserve in (await read_page(views.read, "", 10))[0]}
            moved = [entry[:2] for event in events for entry in entries(event.account_id, event.event)]
            for amounts in (balances.items(), moved):
                sums = dict.fromkeys(["USD/2", *assets.values()], 0)
                for account_id, amount in amounts:
                    sums[assets[account_id]] += amount
                assert reserves == sums
            await verify(log)


async def apply(projection: Projection, events: list[RecordedEvent]) -> None:
    chain = extend(projection.at.chain, [event.encoded for event in events])
    await projection.apply(events, chain)


Result = tuple[Reason | None, int | None, Version | None, Position]
"""Reason, balance, version and position: without a reason a command was accepted, and without the two it was not."""


def results(outcomes: Sequence[Outcome]) -> list[Result]:
    return [
        (one.reason, None, None, one.position)
        if isinstance(one, Rejection)
        else (None, one.balance, one.version, one.position)
        for one in outcomes
    ]


def told_of(events: Sequence[RecordedEvent]) -> list[Result]:
    """What the results of the commands are whose events these are, from the first one on."""
    return [
        (one.event.reason, None, None, one.position)
        if isinstance(one.event, Rejected)
        else (None, fold(events[: number + 1])[one.account_id], one.version, one.position)
        for number, one in enumerate(events)
    ]


def reason_of(outcome: Outcome) -> Reason | None:
    return outcome.reason if isinstance(outcome, Rejection) else None


def fold(events: Sequence[RecordedEvent]) -> dict[AccountId, int]:
    """Balances."""
    return fold_with_holds(events)[0]


def fold_with_holds(events: Sequence[RecordedEvent]) -> tuple[dict[AccountId, int], dict[AccountId, int]]:
    """Balances, and what is held of them, by a fold of its own. Asserts that no balance is ever below that or over 64
    bits, and that each hold ends once, with all that was held."""
    balances: dict[AccountId, int] = {}
    holds: dict[tuple[AccountId, str], int] = {}
    versions: dict[AccountId, int] = {}
    for recorded in events:
        account_id = recorded.account_id
        for changed, version in recorded.streams():
            versions[changed] = versions.get(changed, 0) + 1
            assert version == versions[changed]
        match type(recorded.event).__name__:
            case "AccountCreated":
                balances[account_id] = 0
            case "AmountDeposited":
                balances[account_id] += recorded.event.amount  # type: ignore[union-attr, operator]
            case "AmountWithdrawn":
                balances[account_id] -= recorded.event.amount  # type: ignore[union-attr, operator]
            case "MoneyTransferred":
                balances[account_id] -= recorded.event.amount  # type: ignore[union-attr, operator]
                balances[recorded.event.to] += recorded.event.amount  # type: ignore[union-attr, operator, index]
            case "HoldPlaced":
                assert (account_id, recorded.event.hold_id) not in holds  # type: ignore[union-attr]
                holds[account_id, recorded.event.hold_id] = recorded.event.amount  # type: ignore[union-attr, assignment]
            case "HoldReleased" | "HoldCaptured":
                amount, released = recorded.event.amount, getattr(recorded.event, "released", 0)  # type: ignore[union-attr]
                assert holds.pop((account_id, recorded.event.hold_id)) == amount + released  # type: ignore[union-attr, operator]
                if isinstance(recorded.event, HoldCaptured):
                    balances[account_id] -= recorded.event.amount
                    if (to := recorded.event.to) is not None:
                        balances[to] += recorded.event.amount
        if recorded.counterpart is not None:
            assert balances[recorded.counterpart] <= INT64_MAX
        of_account = [amount for (one, _), amount in holds.items() if one == account_id]
        assert min(of_account, default=1) > 0
        assert sum(of_account) <= balances.get(account_id, 0) <= INT64_MAX
    held = {one: sum(amount for (other, _), amount in holds.items() if other == one) for one, _ in holds}
    return balances, held


async def test_commands_that_wait_together_are_one_transaction(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is alone; those that come while it is written share the next transaction."""
    transactions = 0
    append = ledger.log.append

    def counted(*arguments: object) -> object:
        nonlocal transactions
        transactions += 1
        return append(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ledger.log, "append", counted)
    await ledger.writer.write(WriteRequest([CREATE]))
    answers = await asyncio.gather(*(ledger.writer.write(WriteRequest([deposit(1)])) for _ in range(500)))
    assert [results(outcomes) for outcomes in answers] == [[(None, n, n + 1, n + 1)] for n in range(1, 501)]
    assert transactions == 2


async def test_each_command_sees_what_those_before_it_did_in_the_same_transaction(ledger: Ledger) -> None:
    outcomes = await ledger.writer.write(
        WriteRequest([withdraw(1), CREATE, withdraw(1), deposit(5), withdraw(3), withdraw(3), CREATE])
    )
    assert results(outcomes) == [
        ("account-not-found", None, None, 1),
        (None, 0, 2, 2),
        ("insufficient-funds", None, None, 3),
        (None, 5, 4, 4),
        (None, 2, 5, 5),
        ("insufficient-funds", None, None, 6),
        ("account-already-exists", None, None, 7),
    ]


LINKED = "linked-command-rejected"


async def test_of_an_atomic_request_nothing_takes_effect_when_one_command_is_rejected(ledger: Ledger) -> None:
    write, bob = ledger.writer.write, CreateAccount("Bob", BOB)
    await write(WriteRequest([CREATE, bob, deposit(10)]))
    told = await write(WriteRequest([transfer(4), transfer(3, ALICE, BOB), withdraw(10), deposit(1)], atomic=True))
    assert results(told) == [
        (LINKED, None, None, 4),
        (LINKED, None, None, 5),
        ("insufficient-funds", None, None, 6),
        (LINKED, None, None, 7),
    ]
    told = await write(WriteRequest([transfer(4), transfer(3, ALICE, BOB), withdraw(9), deposit(1)], atomic=True))
    assert results(told) == [(None, 6, 6, 8), (None, 1, 4, 9), (None, 0, 8, 10), (None, 1, 9, 11)]
    assert fold(await ledger.events()) == {ALICE: 1, BOB: 1}
    assert (await verify(ledger.log)).position == 11


async def test_commands_of_an_atomic_request_see_what_those_before_them_did(ledger: Ledger) -> None:
    commands = [
        replace(CREATE, if_version=0),
        replace(deposit(10), if_version=1),
        CreateAccount("Bob", BOB),
        replace(transfer(4), if_version=2),
        replace(deposit(1, BOB), if_version=2),
        replace(withdraw(5, BOB), if_version=3),
    ]
    told = await ledger.writer.write(WriteRequest(commands, atomic=True))
    assert [result[:2] for result in results(told)] == [(None, n) for n in (0, 10, 0, 6, 5, 0)]


async def test_an_atomic_request_whose_first_or_only_command_is_rejected_says_why(ledger: Ledger) -> None:
    carol = CreateAccount("Carol")
    assert results(await ledger.writer.write(WriteRequest([], atomic=True))) == []
    told = await ledger.writer.write(WriteRequest([withdraw(1), carol, CREATE], atomic=True))
    assert results(told) == [
        ("account-not-found", None, None, 1),
        (LINKED, None, None, 2),
        (LINKED, None, None, 3),
    ]
    only = await ledger.writer.write(WriteRequest([withdraw(1)], "one", atomic=True))
    assert results(only) == [("account-not-found", None, None, 4)]
    assert results(await ledger.writer.write(WriteRequest([CREATE], "two", atomic=True))) == [(None, 0, 4, 5)]
    assert (await verify(ledger.log)).position == 5


async def test_atomic_requests_of_one_transaction_see_each_other_and_are_each_whole_or_nothing(ledger: Ledger) -> None:
    requests = [
        WriteRequest([CREATE, deposit(5)], atomic=True),
        WriteRequest([deposit(5), withdraw(11)], atomic=True),
        WriteRequest([deposit(5), withdraw(11)]),
        WriteRequest([deposit(1), withdraw(11)], atomic=True),
    ]
    first, *others = requests
    await ledger.writer.write(first)
    told = await asyncio.gather(*(ledger.writer.write(request) for request in others))
    assert [results(outcomes) for outcomes in told] == [
        [(LINKED, None, None, 3), ("insufficient-funds", None, None, 4)],
        [(None, 10, 5, 5), ("insufficient-funds", None, None, 6)],
        [(None, 11, 7, 7), (None, 0, 8, 8)],
    ]
    assert (await verify(ledger.log)).position == 8


async def test_a_retry_is_answered_as_before_whatever_the_version_is_by_then(ledger: Ledger) -> None:
    await ledger.writer.write(WriteRequest([CREATE]))
    good = WriteRequest([replace(deposit(5), if_version=1)], "good", b"a")
    late = WriteRequest([replace(deposit(5), if_version=1)], "late", b"b")
    told = [await ledger.writer.write(request) for request in (good, late)]
    assert [results(outcomes) for outcomes in told] == [[(None, 5, 2, 2)], [("version-mismatch", None, None, 3)]]
    assert [await ledger.writer.write(request) for request in (good, late)] == told
    assert await ledger.log.head() == 3


async def test_an_account_without_an_id_of_its_own_has_no_version_yet(ledger: Ledger) -> None:
    commands = [CreateAccount("Carol", if_version=0), CreateAccount("Carol", if_version=1)]
    told = await ledger.writer.write(WriteRequest(commands))
    assert results(told) == [(None, 0, 1, 1), ("version-mismatch", None, None, 2)]
    assert [event.version for event in await ledger.events()] == [1, 1]


async def test_a_full_queue_refuses_more_and_records_nothing_of_it(ledger: Ledger) -> None:
    full = [ledger.writer.write(WriteRequest([deposit(1)] * 10_000)) for _ in range(COMMANDS_WAITING_MAX // 10_000)]
    with pytest.raises(Overloaded) as refused:
        await ledger.writer.write(WriteRequest([deposit(1)]))
    assert int(refused.value.headers["Retry-After"]) > 0
    await asyncio.gather(*full)
    assert await ledger.log.head() == COMMANDS_WAITING_MAX
    await ledger.writer.write(WriteRequest([deposit(1)]))


@contextmanager
def each_append(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, trouble: Callable[[Any], None]) -> Iterator[list[int]]:
    """Lets `trouble` at every append before the writer has it; how many there were."""
    begin, number = ledger.log.append, [0]

    @asynccontextmanager
    async def troubled(*arguments: Any) -> AsyncIterator[object]:
        async with begin(*arguments) as append:
            number[0] += 1
            trouble(append)
            yield append

    with monkeypatch.context() as patch:
        patch.setattr(ledger.log, "append", troubled)
        yield number


async def until(is_so: Callable[[], object]) -> None:
    while True:
        if is_so():
            return
        await asyncio.sleep(0.01)


def refuse(_: object) -> None:
    raise StoreUnavailable("the disk is full")


def forget_answers(append: Any) -> None:
    append.answers = {}


async def test_an_append_that_fails_answers_everybody_and_the_next_one_goes_on(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ledger.writer.write(WriteRequest([CREATE, deposit(10)]))
    with each_append(ledger, monkeypatch, refuse):
        answers = await asyncio.gather(
            *(ledger.writer.write(WriteRequest([deposit(1)])) for _ in range(3)), return_exceptions=True
        )
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 3
    assert await ledger.log.head() == 2
    assert ledger.head.position == 2
    assert results(await ledger.writer.write(WriteRequest([withdraw(10)]))) == [(None, 0, 3, 3)]


async def test_a_bug_ends_the_writer_and_is_not_answered_as_a_trouble_that_passes(
    event_log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decided on answers that are not what the store has."""
    head = Watermark(await event_log.head())
    writer = LedgerWriter(event_log, head, CollectorRegistry())
    ledger = Ledger(event_log, writer, head)
    async with asyncio.timeout(30):
        task = asyncio.create_task(writer.run())
        await writer.write(WriteRequest([CREATE], "key"))
        with each_append(ledger, monkeypatch, forget_answers), pytest.raises(LedgerError) as told:
            await writer.write(WriteRequest([deposit(1)], "key"))
        assert told.value.status == 500
        with pytest.raises(ValueError, match=r"\S"):
            await task
    assert await event_log.head() == 1


async def test_after_a_failed_append_the_writer_is_not_ready_until_one_succeeds_and_tries_by_itself(
    event_log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = CollectorRegistry()

    def metric(name: str) -> float | None:
        return registry.get_sample_value(name)

    async with running(event_log, registry=registry) as ledger, asyncio.timeout(30):
        await ledger.writer.write(WriteRequest([CREATE]))
        ledger.writer.check_ready()
        assert (metric("ledger_append_failures_total"), metric("ledger_appending")) == (0, 1)
        with each_append(ledger, monkeypatch, refuse) as number:
            with pytest.raises(StoreUnavailable):
                await ledger.writer.write(WriteRequest([deposit(1)]))
            with pytest.raises(NotReady, match="the disk is full"):
                ledger.writer.check_ready()
            await until(lambda: number[0] == 3)
            assert metric("ledger_append_failures_total") == 3
            assert metric("ledger_appending") == 0
        await until(lambda: metric("ledger_appending"))
        ledger.writer.check_ready()
        assert await event_log.head() == 1


async def test_those_who_come_without_end_do_not_keep_the_others_waiting(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody new in every turn of the event loop, too few and too small to fill a transaction."""
    monkeypatch.setattr(ledger_writer, "TRANSACTION_COMMANDS_MAX", 10**9)
    monkeypatch.setattr(ledger_writer, "COMMANDS_WAITING_MAX", 10**9)
    first = ledger.writer.write(WriteRequest([CREATE]))
    others: list[asyncio.Future[list[Outcome]]] = []
    async with asyncio.timeout(30):
        while not first.done():
            others.append(ledger.writer.write(WriteRequest([deposit(1)])))
            await asyncio.sleep(0)
    await asyncio.gather(*others)


async def test_nobody_hears_of_an_event_before_it_is_on_disk(ledger: Ledger) -> None:
    await ledger.writer.write(WriteRequest([CREATE]))

    async def hear(position: int) -> None:
        await ledger.head.reach(Position(position), 30)
        assert await ledger.log.head() >= position

    async def ask() -> None:
        (outcome,) = await ledger.writer.write(WriteRequest([deposit(1)]))
        assert await ledger.log.head() >= outcome.position

    async with asyncio.TaskGroup() as group:
        for position in range(2, 52):
            group.create_task(hear(position))
            group.create_task(ask())


async def test_a_caller_that_gives_up_does_not_stop_the_others(ledger: Ledger) -> None:
    await ledger.writer.write(WriteRequest([CREATE]))
    asked = [ledger.writer.write(WriteRequest([deposit(1)])) for _ in range(10)]
    await asyncio.sleep(0)
    for task in asked[::2]:
        task.cancel()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(answer, list) for answer in answers) == 5
    told = await ledger.writer.write(WriteRequest([withdraw(1, BOB), deposit(1, ALICE)]))
    assert results(told) == [("account-not-found", None, None, 12), (None, 11, 12, 13)]


async def test_a_key_is_remembered_by_another_writer_on_the_same_log(open_event_log: OpenEventLog) -> None:
    request = WriteRequest([CREATE, withdraw(1)], "key", b"fingerprint")
    async with open_event_log() as log, running(log) as ledger:
        first = await ledger.writer.write(request)
    async with open_event_log() as log, running(log) as ledger:
        assert await ledger.writer.write(request) == first
        assert await log.head() == 2


async def test_the_key_of_a_request_without_commands_is_kept(ledger: Ledger) -> None:
    for _ in range(2):
        assert await ledger.writer.write(WriteRequest([], "key", b"fingerprint")) == []
    with pytest.raises(IdempotencyKeyReused):
        await ledger.writer.write(WriteRequest([CREATE], "key", b"another"))
    assert await ledger.log.head() == 0


async def test_a_clock_that_goes_back_changes_no_order_and_no_balance_and_no_time_in_the_log(
    open_event_log: OpenEventLog,
) -> None:
    """Not even when the service starts again in between: the log itself knows its last time."""
    noon = datetime(2026, 11, 23, 12, tzinfo=UTC)
    clock = iter([noon, noon - timedelta(hours=1), noon + timedelta(hours=1), noon, noon, noon + timedelta(hours=2)])
    for commands in ((CREATE, deposit(5), withdraw(2)), (withdraw(4), deposit(1), deposit(1))):
        async with open_event_log() as log, running(log, clock.__next__) as ledger:
            for command in commands:
                await ledger.writer.write(WriteRequest([command]))
            events = await ledger.events()
    assert [event.position for event in events] == [1, 2, 3, 4, 5, 6]
    assert [event.time[11:13] for event in events] == ["12", "12", "13", "13", "13", "14"]
    assert fold(events) == {ALICE: 5}


async def test_what_has_no_events_leaves_the_time_in_the_log_as_it_is(event_log: EventLog) -> None:
    """Neither a key that is only answered again, nor a clock that is far ahead meanwhile."""
    noon = datetime(2026, 11, 23, 12, tzinfo=UTC)
    clock = iter([noon, noon + timedelta(days=1000), noon + timedelta(hours=1)])
    async with running(event_log, clock.__next__) as ledger:
        for request in (WriteRequest([CREATE], "key"), WriteRequest([CREATE], "key"), WriteRequest([deposit(5)])):
            await ledger.writer.write(request)
        assert [event.time[11:13] for event in await ledger.events()] == ["12", "13"]
