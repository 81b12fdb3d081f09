"""How it was: at each position what a naive bank says after the events up to there, for ever; over every view store."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from prometheus_client import CollectorRegistry

from command_service.ledger.commands import Command, ExpireHold
from projection_service.api import reacher
from projection_service.projection import Projection
from projection_service.view import AskedPast, Past
from projection_service.view_store import Read, ReadRows, ViewStore
from projection_service.view_store.postgres import PostgresViewStore
from projection_service.view_store.sqlite import SqliteViewStore
from projection_service.views import VIEWS
from projection_service.views.history import holds
from projection_service.views.history.explain import read_chain
from projection_service.views.history.holds import PIECE_INTERVALS_MAX, read_holds
from projection_service.views.history.lines import (
    COLUMNS,
    Line,
    Order,
    Place,
    Reader,
    read_ends,
    read_range,
)
from projection_service.views.history.past import past as past_of
from projection_service.views.history.past import read_accounts
from projection_service.views.history.periods import BEGINNING, END
from shared.chain import CHAIN_START, extend
from shared.events import (
    USD,
    AccountCreated,
    AccountId,
    AmountDeposited,
    Event,
    HoldCaptured,
    HoldExpired,
    HoldId,
    HoldPlaced,
    HoldReleased,
    Position,
    RecordedEvent,
    Rejected,
    Version,
)
from shared.platform.watermark import Peer
from tests.contract.conftest import ALL_VIEWS
from tests.examples import ALICE, at, recorded
from tests.unit.test_whole_domain import OPENED, WholeDomain

ACCOUNTS = [*OPENED, AccountId("dave"), AccountId("erin")]
Told = dict[str, Any]


class Remembered(WholeDomain):
    """Any commands in any order, and what is to be said of accounts and reserves after each event."""

    open_store: ClassVar[Callable[[], Awaitable[ViewStore]]]

    def __init__(self) -> None:
        super().__init__()
        self.events: list[RecordedEvent] = []
        self.versions: dict[AccountId, int] = {}
        self.changed: dict[str, str] = {}
        """When each account and each reserve was updated last."""
        self.placed: dict[tuple[str, str], str] = {}
        """When each open hold was, and maybe others."""
        self.told: list[Told] = [{"accounts": {}, "holds": {}, "reserves": {USD: reserve(USD, 0, None)}}]

    def read(self, event: RecordedEvent, command: Command | ExpireHold) -> None:
        super().read(event, command)
        self.events.append(event)
        for account_id, version in event.streams():
            self.versions[account_id] = version
            if not isinstance(event.event, Rejected):
                self.changed[account_id] = event.time
        if isinstance(event.event, HoldPlaced):
            self.placed[event.account_id, event.event.hold_id] = event.time
        sums = {USD: 0}
        for name, balance in self.naive.balance.items():
            asset = self.naive.asset[name]
            sums[asset] = sums.get(asset, 0) + balance
        for asset, amount in sums.items():
            if amount != self.told[-1]["reserves"].get(asset, {"amount": 0})["amount"]:
                self.changed[asset] = event.time
        self.told.append(
            {
                "accounts": {name: self.account_told(AccountId(name)) for name in self.naive.balance},
                "holds": {name: self.holds_told(name) for name in self.naive.balance},
                "reserves": {asset: reserve(asset, sums[asset], self.changed.get(asset)) for asset in sorted(sums)},
            }
        )

    def account_told(self, account_id: AccountId) -> Told:
        said = {"id": account_id, "asset": self.naive.asset[account_id], "version": self.versions[account_id]}
        return {**said, **self.naive.shown(account_id), "last_updated": self.changed[account_id]}

    def holds_told(self, account_id: str) -> list[Told]:
        return [
            {
                "hold_id": hold_id,
                "amount": amount,
                "expires_at": expires_at,
                "description": "",
                "placed_at": self.placed[account_id, hold_id],
            }
            for hold_id, (amount, expires_at) in sorted(self.naive.holds[account_id].items())
        ]

    def teardown(self) -> None:
        asyncio.run(self.compare())

    async def compare(self) -> None:
        """Fold the log in runs of any size; after each one, everything up to there is told as it always will be."""
        store = await type(self).open_store()
        try:
            projection = Projection(store, list(VIEWS.values()), await store.checkpoint(), CollectorRegistry())
            past = past_of(store, reacher(projection.watermark))
            sizes, begin = Random(len(self.events)), 0
            while begin < len(self.events):
                run = self.events[begin : begin + sizes.randint(1, 20)]
                await projection.apply(run, extend(projection.at.chain, [event.encoded for event in run]))
                begin += len(run)
                for position in range(begin + 1):
                    assert await told(past, at_position=position) == self.told[position]
            for position, event in enumerate(self.events, 1):
                assert await told(past, as_of=event.time) == self.told[position]
                assert await told(past, as_of=at(position).replace(".000000", ".999999")) == self.told[position]
            assert await told(past, as_of=at(0)) == self.told[0]
            for account_id in ACCOUNTS:
                await self.compare_statement(store.read, account_id, sizes)
            for event in self.events:
                chain = extend(CHAIN_START, [one.encoded for one in self.events[: event.position]])
                assert await read_chain(store.read, event.position) == chain
        finally:
            await store.close()

    async def compare_statement(self, read: ReadRows, account_id: AccountId, random: Random) -> None:
        """Of any range, in both orders, from any line on."""
        first, last = sorted(random.choices(range(1, len(self.events) + 2), k=2))
        begin, end = random.choice([at(first), BEGINNING]), random.choice([at(last), END])
        events = [
            event
            for event in self.events
            if begin <= event.time < end and account_id in [one for one, _ in event.streams()]
        ]
        range_, found = await read_range(read, account_id, begin, end)
        assert (range_.last - range_.first, range_.position) == (len(events), len(self.events))
        lines = await all_lines(read, account_id, Place(range_, range_.first), "oldest")
        assert await all_lines(read, account_id, Place(range_, range_.last), "newest") == lines[::-1]
        if lines:
            some = random.randrange(len(lines))
            place = Place(range_, Version(range_.first + some))
            assert await all_lines(read, account_id, place, "oldest") == lines[some:]
            assert await all_lines(read, account_id, place, "newest") == lines[:some][::-1]
        opening = self.told[first - 1 if begin else 0]["accounts"].get(account_id, {"balance": 0})["balance"]
        balances = [opening]
        for line, event in zip(lines, events, strict=True):
            entry = dict(zip(COLUMNS, line, strict=True))
            no_account = {"balance": 0, "held": 0, "available": 0}
            before, after = (
                self.told[position]["accounts"].get(account_id, no_account)
                for position in (event.position - 1, event.position)
            )
            assert (entry["position"], entry["time"], entry["type"]) == (event.position, event.time, event.event.type)
            assert entry["version"] == dict(event.streams())[account_id]
            assert [entry[name] for name in no_account] == [after[name] for name in no_account]
            assert entry["change"] == after["balance"] - before["balance"]
            assert entry["change_of_held"] == after["held"] - before["held"]
            for name in ("description", "reason", "hold_id"):
                assert entry[name] == getattr(event.event, name, None)
            balances.append(entry["balance"])
        assert found == await read_ends(read, account_id, range_)
        if account_id in self.naive.balance:
            assert found is not None
            ends = found.asset, found.opening_balance, found.closing_balance
            assert ends == (self.naive.asset[account_id], balances[0], balances[-1])
        else:
            assert found is None


async def all_lines(read: ReadRows, account_id: AccountId, place: Place, order: Order) -> list[Line]:
    reader, lines = Reader(read, account_id, place, order), list[Line]()
    while not reader.is_at_the_end:
        lines += await reader.next(7)
    return lines


def reserve(asset: str, amount: int, last_updated: str | None) -> Told:
    return {"asset": asset, "amount": amount, "last_updated": last_updated}


async def told(past: Past, **asked: Any) -> Told:
    then = await past(AskedPast(wait=0, **asked), Peer())
    assert then is not None
    accounts = {account_id: found for account_id in ACCOUNTS if (found := await then.account(account_id))}
    assert await then.accounts([*ACCOUNTS, AccountId("nobody")]) == accounts
    assert await then.accounts([]) == {}
    held = {account_id: await then.holds(account_id, HoldId(""), 10) for account_id in ACCOUNTS}
    holds = {account_id: some for account_id, some in held.items() if some is not None}
    reserves = {one["asset"]: one for one in await then.reserves("", 10)}
    for asset in (USD, "EUR/2", "GBP/2"):
        assert await then.reserve(asset) == reserves.get(asset, reserve(asset, 0, None))
    return {"accounts": accounts, "holds": holds, "reserves": reserves}


@pytest.mark.parametrize("on_postgresql", [False, True])
def test_what_was_is_told_as_a_naive_bank_tells_it_whatever_comes_after(
    tmp_path: Path, request: pytest.FixtureRequest, on_postgresql: bool
) -> None:
    database_url = request.getfixturevalue("database_url") if on_postgresql else None
    numbers = count()

    async def open_store() -> ViewStore:
        if database_url:
            return await PostgresViewStore.open(database_url, f"past-{next(numbers)}", ALL_VIEWS)
        return await SqliteViewStore.open(tmp_path / f"{next(numbers)}.sqlite3", ALL_VIEWS)

    Remembered.open_store = staticmethod(open_store)
    run_state_machine_as_test(
        Remembered,
        settings=settings(
            max_examples=6 if on_postgresql else 40, stateful_step_count=40, deadline=None, derandomize=True
        ),
    )


def holds_of_alice(steps: Sequence[tuple[str, type[HoldPlaced | HoldReleased]]]) -> list[RecordedEvent]:
    """A log: what begins and ends, each with its hold's id."""
    events: list[Event] = [AccountCreated("Alice"), AmountDeposited(10**9, "")]
    ends = HoldReleased, HoldExpired, lambda hold_id, amount: HoldCaptured(hold_id, amount - 1, 1)
    for number, (hold_id, type_) in enumerate(steps):
        end = ends[number % 3](HoldId(hold_id), 5)
        events.append(HoldPlaced(HoldId(hold_id), 5, "Books") if type_ is HoldPlaced else end)
    return [recorded(position, event, ALICE, position) for position, event in enumerate(events, 1)]


async def fold(store: ViewStore, events: list[RecordedEvent], run: int) -> None:
    projection = Projection(store, list(VIEWS.values()), await store.checkpoint(), CollectorRegistry())
    for begin in range(0, len(events), run):
        some = events[begin : begin + run]
        await projection.apply(some, extend(projection.at.chain, [event.encoded for event in some]))


async def test_pages_of_open_holds_have_each_that_was_open_then_once_and_in_order(
    view_store: ViewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though they are looked up in many pieces, some meanwhile end, and an id has been several holds'."""
    monkeypatch.setattr(holds, "PIECE_INTERVALS_MAX", 7)
    monkeypatch.setattr(holds, "PIECE_HOLDS_MAX", 3)
    random, open_now = Random(1), set[str]()
    steps: list[tuple[str, type[HoldPlaced | HoldReleased]]] = []
    opened: list[list[str]] = [[], [], []]
    for _ in range(400):
        hold_id = f"h-{random.randrange(60)}"
        steps.append((hold_id, HoldReleased if hold_id in open_now else HoldPlaced))
        open_now ^= {hold_id}
        opened.append(sorted(open_now))
    events = holds_of_alice(steps)
    await fold(view_store, events[:300], 23)
    rest = iter(events[300:])

    async def read(read: Read, *parameters: object) -> Sequence[Sequence[Any]]:
        """Something happens between each two pieces."""
        if event := next(rest, None):
            await fold(view_store, [event], 1)
        return await view_store.read(read, *parameters)

    for position in [*range(300, 1, -37), *range(2, len(events) + 1, 3)]:
        if position > 300:
            await fold(view_store, list(rest), 23)
        size, found, after = random.randint(1, 20), list[str](), HoldId("")
        while page := await read_holds(read, ALICE, Position(position), after, size):
            ids = [str(hold["hold_id"]) for hold in page]
            assert len(page) == min(size, len(opened[position]) - len(found))
            found, after = found + ids, HoldId(ids[-1])
        assert found == opened[position]


async def test_a_page_of_accounts_of_the_past_is_searched_for_in_two_statements(view_store: ViewStore) -> None:
    ids = [AccountId(f"account-{number}") for number in range(100)]
    events = [recorded(position, AccountCreated("Alice"), name, 1) for position, name in enumerate(ids, 1)]
    events += [recorded(100 + position, AmountDeposited(7, ""), name, 2) for position, name in enumerate(ids, 1)]
    await fold(view_store, events, 200)
    statements = 0

    async def read(read: Read, *parameters: object) -> Sequence[Sequence[Any]]:
        nonlocal statements
        statements += 1
        return await view_store.read(read, *parameters)

    for at_position, found in ((0, {}), (30, dict.fromkeys(ids[:30], 0)), (130, dict.fromkeys(ids, 0))):
        found |= dict.fromkeys(ids[: max(0, at_position - 100)], 7)
        pieces = [piece async for piece in read_accounts(read, ids, Position(at_position))]
        assert {account.id: account.balance for piece in pieces for account in piece} == found
    assert statements == 3 * 2


@pytest.mark.parametrize("placed_first", [True, False])
async def test_holds_that_were_not_open_then_are_not_looked_at(view_store: ViewStore, placed_first: bool) -> None:
    """Whether all were open at once, or each had ended before the next one was placed."""
    ids = [f"h-{number:04}" for number in range(1500)]
    begins = [(hold_id, HoldPlaced) for hold_id in ids]
    ends = [(hold_id, HoldReleased) for hold_id in ids]
    pairs = [step for both in zip(begins, ends, strict=True) for step in both]
    await fold(view_store, events := holds_of_alice([*begins, *ends] if placed_first else pairs), 1000)
    looked_at = 0

    async def read(read: Read, *parameters: object) -> Sequence[Sequence[Any]]:
        nonlocal looked_at
        rows = await view_store.read(read, *parameters)
        looked_at += len(rows)
        assert len(rows) <= PIECE_INTERVALS_MAX
        return rows

    for position in [2, 3, 4, 5, 1000, 1501, 1502, 1503, len(events) - 1, len(events)]:
        open_then = (min(position - 2, len(events) - position)) if placed_first else position % 2
        looked_at = 0
        found = await read_holds(read, ALICE, Position(position), HoldId(""), 100)
        assert found is not None
        assert len(found) == min(100, open_then)
        assert looked_at <= open_then + 100 + 10
