"""How it was: at each position what a naive bank says after the events up to there, for ever; over every view store."""

import asyncio
from collections.abc import Awaitable, Callable
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
from projection_service.view_store import ReadRows, ViewStore
from projection_service.view_store.postgres import PostgresViewStore
from projection_service.view_store.sqlite import SqliteViewStore
from projection_service.views import VIEWS
from projection_service.views.history.explain import read_chain
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
from projection_service.views.history.periods import BEGINNING, END
from shared.chain import CHAIN_START, extend
from shared.events import USD, AccountId, RecordedEvent, Rejected, Version
from shared.platform.watermark import Peer
from tests.contract.conftest import ALL_VIEWS
from tests.examples import at
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
        self.told: list[Told] = [{"accounts": {}, "reserves": {USD: reserve(USD, 0, None)}}]

    def read(self, event: RecordedEvent, command: Command | ExpireHold) -> None:
        super().read(event, command)
        self.events.append(event)
        for account_id, version in event.streams():
            self.versions[account_id] = version
            if not isinstance(event.event, Rejected):
                self.changed[account_id] = event.time
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
                "reserves": {asset: reserve(asset, sums[asset], self.changed.get(asset)) for asset in sorted(sums)},
            }
        )

    def account_told(self, account_id: AccountId) -> Told:
        said = {"id": account_id, "asset": self.naive.asset[account_id], "version": self.versions[account_id]}
        return {**said, **self.naive.shown(account_id), "last_updated": self.changed[account_id]}

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
    reserves = {one["asset"]: one for one in await then.reserves("", 10)}
    for asset in (USD, "EUR/2", "GBP/2"):
        assert await then.reserve(asset) == reserves.get(asset, reserve(asset, 0, None))
    return {"accounts": accounts, "reserves": reserves}


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
