"""Any commands in any order: the decisions, the states and the views against a second, naive bank.

To add a command: its method in `NaiveBank`, and its rule here. To add what an account has: `NaiveBank.shown`.
"""

from collections import Counter
from collections.abc import Mapping
from copy import deepcopy
from typing import ClassVar, get_args

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from msgspec import UNSET
from msgspec.structs import replace

from command_service.ledger.account import Account, Hold, decide, hold_after
from command_service.ledger.atomic import rejected_together
from command_service.ledger.commands import (
    Capture,
    Close,
    Command,
    CreateAccount,
    Deposit,
    ExpireHold,
    Freeze,
    PlaceHold,
    Release,
    SetOverdraftLimit,
    Transfer,
    Unfreeze,
    Withdraw,
    command_of,
)
from command_service.ledger.states import NO_STATE, HoldKey, State, Stream, hold_key_of, states_after, stream_of
from projection_service.views.accounts.fold import AccountView, project_account
from projection_service.views.reserve.fold import ReserveView, other_assets, project_reserves, reserves_after
from shared.events import (
    EVENT_TYPES,
    USD,
    AccountId,
    Asset,
    Event,
    HoldCaptured,
    HoldId,
    Reason,
    RecordedEvent,
    Rejected,
    entries,
)
from tests.examples import INT64_MAX, at, recorded
from tests.unit.naive_bank import NaiveBank

OPENED = [AccountId(name) for name in ("alice", "bob", "carol")]
ACCOUNTS = st.sampled_from([*OPENED, AccountId("dave")])
UNLUCKY = st.sampled_from([AccountId("carol"), AccountId("dave")])
"""Who may be frozen and closed, so that something goes on among the others."""
HOLDS = st.sampled_from([HoldId("order-7"), HoldId("order-8")])
AMOUNTS = st.one_of(
    st.integers(1, 12), st.integers(-1, 12), st.sampled_from([INT64_MAX, INT64_MAX - 3, -INT64_MAX - 1])
)
ASSETS = st.sampled_from([USD, USD, "EUR/2"])
LIMITS = st.one_of(st.just(0), st.integers(0, 12), st.just(INT64_MAX))


class WholeDomain(RuleBasedStateMachine):
    types: ClassVar[set[str]] = set()
    reasons: ClassVar[set[str]] = set()
    """What there was of both in all runs: a hold's end and a refusal may have the same name."""

    def __init__(self) -> None:
        super().__init__()
        self.naive = NaiveBank()
        self.states: dict[AccountId, State] = {}
        self.views: dict[AccountId, AccountView] = {}
        self.holds: dict[HoldKey, Hold] = {}
        self.assets: dict[AccountId, Asset] = {}
        self.reserves: dict[Asset, ReserveView] = {}
        self.moved: Counter[Asset] = Counter()
        self.position = 0
        self.at_its_close: dict[AccountId, Account | None] = {}

    @initialize(amounts=st.tuples(*[st.integers(0, 20) for _ in OPENED]), carols=st.sampled_from([USD, "EUR/2"]))
    def open_most(self, amounts: tuple[int, ...], carols: Asset) -> None:
        for account, amount in zip(OPENED, amounts, strict=True):
            self.create(account, "Alice", carols if account == "carol" else USD)
            self.deposit(account, amount if account != "carol" else amount // 15)

    @rule(account=ACCOUNTS, name=st.sampled_from(["Alice", "Zoë"]), asset=ASSETS)
    def create(self, account: AccountId, name: str, asset: Asset) -> None:
        self.ask(CreateAccount(name, account, asset), self.naive.create(account, name, asset))

    @rule(account=ACCOUNTS, amount=AMOUNTS)
    def deposit(self, account: AccountId, amount: int) -> None:
        self.ask(Deposit(account, amount), self.naive.deposit(account, amount))

    @rule(account=ACCOUNTS, amount=AMOUNTS)
    def withdraw(self, account: AccountId, amount: int) -> None:
        self.ask(Withdraw(account, amount), self.naive.withdraw(account, amount))

    @rule(account=ACCOUNTS, to=ACCOUNTS, amount=AMOUNTS)
    def transfer(self, account: AccountId, to: AccountId, amount: int) -> None:
        before = dict(self.reserves)
        self.ask(Transfer(account, to, amount), self.naive.transfer(account, to, amount))
        assert self.reserves == before

    @rule(account=ACCOUNTS, hold=HOLDS, amount=AMOUNTS, seconds=st.one_of(st.none(), st.integers(0, 9)))
    def hold(self, account: AccountId, hold: HoldId, amount: int, seconds: int | None) -> None:
        expires_at = None if seconds is None else at(self.position + 1 + seconds)
        refusal = self.naive.hold(account, hold, amount, expires_at, self.now)
        self.ask(PlaceHold(account, amount, hold, expires_at), refusal)

    @rule(account=ACCOUNTS, hold=HOLDS, amount=st.one_of(st.none(), AMOUNTS), to=st.one_of(st.none(), ACCOUNTS))
    def capture(self, account: AccountId, hold: HoldId, amount: int | None, to: AccountId | None) -> None:
        self.ask(Capture(account, hold, amount, to), self.naive.capture(account, hold, amount, to, self.now))

    @rule(account=ACCOUNTS, hold=HOLDS)
    def release(self, account: AccountId, hold: HoldId) -> None:
        self.ask(Release(account, hold), self.naive.release(account, hold, self.now))

    @rule(account=ACCOUNTS, hold=HOLDS)
    def expire(self, account: AccountId, hold: HoldId) -> None:
        command = ExpireHold(account, hold)
        version, state = self.stream(account)
        event = decide(state, version, command, self.now, None, self.holds.get((account, hold)))
        assert (event is not None) == self.naive.expire(account, hold, self.now)
        if event is not None:
            self.record(event, command)

    @rule(
        parts=st.lists(
            st.one_of(st.tuples(ACCOUNTS, ACCOUNTS, AMOUNTS), st.tuples(ACCOUNTS, HOLDS)), min_size=1, max_size=4
        )
    )
    def all_or_nothing(self, parts: list[tuple[AccountId, AccountId, int] | tuple[AccountId, HoldId]]) -> None:
        """Transfers, and captures of all that is held, out of the bank."""
        commands = [Transfer(*one) if len(one) == 3 else Capture(*one) for one in parts]
        events = rejected_together(commands, self.now, self.stream, self.holds.get)
        tried = deepcopy(self.naive)
        refusals = [
            tried.transfer(*one) if len(one) == 3 else tried.capture(*one, None, None, self.now) for one in parts
        ]
        if not any(refusals):
            assert events == []
            now = self.now
            for one, command in zip(parts, commands, strict=True):
                done = self.naive
                done.transfer(*one) if len(one) == 3 else done.capture(*one, None, None, now)
                self.ask(command, None, now)
            return
        for number, (command, event) in enumerate(zip(commands, events, strict=True)):
            is_first = not any(refusals[:number]) and refusals[number]
            assert getattr(event, "reason", None) == (refusals[number] if is_first else "linked-command-rejected")
            self.record(event, command)

    @rule(account=ACCOUNTS, ahead=st.sampled_from([0, 0, 1, -1]), amount=AMOUNTS)
    def deposit_at_a_version(self, account: AccountId, ahead: int, amount: int) -> None:
        version = max(0, self.stream(account)[0] + ahead)
        is_other = version != self.stream(account)[0]
        refusal = "version-mismatch" if is_other else self.naive.deposit(account, amount)
        self.ask(Deposit(account, amount, if_version=version), refusal)

    @rule(account=ACCOUNTS, limit=LIMITS)
    def set_limit(self, account: AccountId, limit: int) -> None:
        self.ask(SetOverdraftLimit(account, limit), self.naive.set_limit(account, limit))

    @rule(account=UNLUCKY)
    def freeze(self, account: AccountId) -> None:
        self.ask(Freeze(account), self.naive.freeze(account))

    @rule(account=ACCOUNTS)
    def unfreeze(self, account: AccountId) -> None:
        self.ask(Unfreeze(account), self.naive.unfreeze(account))

    @rule(account=UNLUCKY)
    def close(self, account: AccountId) -> None:
        self.ask(Close(account), self.naive.close(account))
        if account in self.naive.closed:
            self.at_its_close.setdefault(account, self.account(account))

    @property
    def now(self) -> str:
        """When the next event will be."""
        return at(self.position + 1)

    @rule(account=UNLUCKY, hold=HOLDS)
    def hold_of_a_limit_and_close(self, account: AccountId, hold: HoldId) -> None:
        self.set_limit(account, 5)
        self.hold(account, hold, 1, None)
        self.close(account)

    def ask(self, command: Command, refusal: str | None, now: str | None = None) -> None:
        """Decide it, write it down, and let everybody read that. `refusal` is what the naive bank said to it."""
        assert command.account_id is not None
        version, account = self.stream(command.account_id)
        hold = self.holds.get(hold_key_of(command)) if command.names_hold else None
        event = decide(account, version, command, now or self.now, self.account(command.to), hold)
        assert event is not None
        assert getattr(event, "reason", None) == refusal, event
        assert event.type.endswith("-rejected") == (refusal is not None)
        self.record(event, command)

    def record(self, event: Event, command: Command | ExpireHold) -> None:
        assert command.account_id is not None
        self.types.add(event.type)
        if isinstance(event, Rejected):
            self.reasons.add(event.reason)
        self.position += 1
        version, _ = self.stream(command.account_id)
        to = [self.stream(other)[0] + 1 for other, _, _ in entries(command.account_id, event)[1:]]
        self.read(recorded(self.position, event, command.account_id, version + 1, *to), command)

    def read(self, event: RecordedEvent, command: Command | ExpireHold) -> None:
        if not isinstance(event.event, Rejected):
            command = replace(command, if_version=UNSET)
        if isinstance(command, Capture) and isinstance(event.event, HoldCaptured):
            command = replace(command, amount=event.event.amount)
        assert command_of(event) == command
        self.assets |= other_assets([event])
        for account_id, change, _ in entries(event.account_id, event.event):
            self.moved[self.assets.get(account_id, USD)] += change
        self.states |= states_after(self.states, event)
        if command.names_hold:
            key = hold_key_of(command)
            if hold := hold_after(self.holds.pop(key, None), event.event):
                self.holds[key] = hold
        self.reserves |= project_reserves(reserves_after(self.reserves, self.assets, [event]))
        for account_id, version in event.streams():
            if view := project_account(self.views.get(account_id), event, account_id, version):
                self.views[account_id] = view

    def account(self, account_id: AccountId | None) -> Account | None:
        return self.stream(account_id)[1] if account_id else None

    def stream(self, account_id: AccountId) -> Stream:
        return stream_of(self.states.get(account_id, NO_STATE))

    @invariant()
    def all_say_the_same(self) -> None:
        expected = {account_id: self.naive.shown(account_id) for account_id in self.naive.balance}
        accounts = {account_id: account for account_id in self.states if (account := self.account(account_id))}
        # No decision depends on a name.
        decided = {
            account_id: {name: value for name, value in shown.items() if name != "name"}
            for account_id, shown in expected.items()
        }
        assert {account_id: members(account, decided) for account_id, account in accounts.items()} == decided
        assert {account_id: members(view, expected) for account_id, view in self.views.items()} == expected

    @invariant()
    def the_same_holds_are_open(self) -> None:
        holds = {(account, hold): one for account, some in self.naive.holds.items() for hold, one in some.items()}
        assert {key: (hold.amount, hold.expires_at) for key, hold in self.holds.items()} == holds

    @invariant()
    def money_is_neither_made_nor_lost(self) -> None:
        balances: Counter[Asset] = Counter()
        for view in self.views.values():
            assert view.asset == self.naive.asset[view.id]
            balances[view.asset] += view.balance
        assert Counter({asset: reserve.amount for asset, reserve in self.reserves.items()}) == balances == self.moved

    @invariant()
    def no_balance_is_out_of_its_bounds(self) -> None:
        for view in self.views.values():
            assert -view.overdraft_limit <= view.balance <= INT64_MAX
            assert view.held >= 0
            assert view.available >= 0

    @invariant()
    def what_is_closed_never_changes(self) -> None:
        for account_id, account in self.at_its_close.items():
            assert self.account(account_id) == account


def members(account: object, expected: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    """What of `account` the naive bank speaks of."""
    names = {name for shown in expected.values() for name in shown}
    return {name: getattr(account, name) for name in names}


def test_any_commands_in_any_order_are_decided_as_a_naive_bank_does() -> None:
    run_state_machine_as_test(
        WholeDomain, settings=settings(max_examples=350, stateful_step_count=60, deadline=None, derandomize=True)
    )
    assert WholeDomain.types == {*EVENT_TYPES}
    assert WholeDomain.reasons == {*get_args(Reason)}
