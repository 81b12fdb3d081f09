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

from command_service.account import (
    Account,
    Close,
    Command,
    CreateAccount,
    Deposit,
    Freeze,
    SetOverdraftLimit,
    Transfer,
    Unfreeze,
    Withdraw,
    command_of,
    decide,
)
from command_service.atomic import rejected_together
from command_service.states import NO_STATE, State, Stream, states_after, stream_of
from projection_service.views.accounts.fold import AccountView, project_account
from projection_service.views.reserve.fold import ReserveView, other_assets, project_reserves
from shared.events import EVENT_TYPES, USD, AccountId, Asset, Event, Reason, RecordedEvent, Rejected, entries
from tests.examples import INT64_MAX, recorded
from tests.unit.naive_bank import NaiveBank

OPENED = [AccountId(name) for name in ("alice", "bob", "carol")]
ACCOUNTS = st.sampled_from([*OPENED, AccountId("dave")])
UNLUCKY = st.sampled_from([AccountId("carol"), AccountId("dave")])
"""Who may be frozen and closed, so that something goes on among the others."""
AMOUNTS = st.one_of(
    st.integers(1, 12), st.integers(-1, 12), st.sampled_from([INT64_MAX, INT64_MAX - 3, -INT64_MAX - 1])
)
ASSETS = st.sampled_from([USD, USD, "EUR/2"])
LIMITS = st.one_of(st.just(0), st.integers(0, 12), st.just(INT64_MAX))


class WholeDomain(RuleBasedStateMachine):
    seen: ClassVar[set[str]] = set()
    """Types of events, and reasons, in all runs."""

    def __init__(self) -> None:
        super().__init__()
        self.naive = NaiveBank()
        self.states: dict[AccountId, State] = {}
        self.views: dict[AccountId, AccountView] = {}
        self.assets: dict[AccountId, Asset] = {}
        self.reserves: dict[Asset, ReserveView] = {}
        self.moved: Counter[Asset] = Counter()
        self.position = 0
        self.at_its_close: dict[AccountId, Account | None] = {}

    @initialize(amounts=st.tuples(*[st.integers(0, 20) for _ in OPENED]))
    def open_most(self, amounts: tuple[int, ...]) -> None:
        for account, amount in zip(OPENED, amounts, strict=True):
            self.create(account, "Alice", USD)
            self.deposit(account, amount)

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

    @rule(transfers=st.lists(st.tuples(ACCOUNTS, ACCOUNTS, AMOUNTS), min_size=1, max_size=4))
    def transfer_all_or_nothing(self, transfers: list[tuple[AccountId, AccountId, int]]) -> None:
        commands = [Transfer(*one) for one in transfers]
        events = rejected_together(commands, self.stream)
        tried = deepcopy(self.naive)
        refusals = [tried.transfer(*one) for one in transfers]
        if not any(refusals):
            assert events == []
            for one in transfers:
                self.transfer(*one)
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

    def ask(self, command: Command, refusal: str | None) -> None:
        """Decide it, write it down, and let everybody read that. `refusal` is what the naive bank said to it."""
        assert command.account_id is not None
        version, account = self.stream(command.account_id)
        event = decide(account, version, command, self.account(command.to))
        assert getattr(event, "reason", None) == refusal, event
        assert event.type.endswith("-rejected") == (refusal is not None)
        self.record(event, command)

    def record(self, event: Event, command: Command) -> None:
        assert command.account_id is not None
        self.seen.update({event.type, getattr(event, "reason", event.type)})
        self.position += 1
        version, _ = self.stream(command.account_id)
        self.read(recorded(self.position, event, command.account_id, version + 1), command)

    def read(self, event: RecordedEvent, command: Command) -> None:
        if not isinstance(event.event, Rejected):
            command = replace(command, if_version=UNSET)
        assert command_of(event) == command
        self.assets |= other_assets([event])
        for account_id, change in entries(event.account_id, event.event):
            self.moved[self.assets.get(account_id, USD)] += change
        self.states |= states_after(self.states, event)
        self.reserves |= project_reserves(self.reserves, self.assets, [event])
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
        assert {account_id: members(account, expected) for account_id, account in accounts.items()} == expected
        assert {account_id: members(view, expected) for account_id, view in self.views.items()} == expected

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
        WholeDomain, settings=settings(max_examples=200, stateful_step_count=60, deadline=None, derandomize=True)
    )
    assert WholeDomain.seen == {*EVENT_TYPES, *get_args(Reason)}
