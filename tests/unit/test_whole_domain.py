"""Any commands in any order: the decisions, the states and the views against a second, naive bank.

To add a command: its method in `NaiveBank`, and its rule here. To add what an account has: `NaiveBank.shown`.
"""

from collections.abc import Mapping
from typing import ClassVar, get_args

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

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
from command_service.states import NO_STATE, State, decode_account, states_after
from projection_service.views.accounts.fold import AccountView, project_account
from projection_service.views.reserve.fold import ReserveView, project_reserve
from shared.events import EVENT_TYPES, AccountId, Reason, RecordedEvent, entries
from tests.examples import INT64_MAX, recorded
from tests.unit.naive_bank import NaiveBank

OPENED = [AccountId(name) for name in ("alice", "bob", "carol")]
ACCOUNTS = st.sampled_from([*OPENED, AccountId("dave")])
UNLUCKY = st.sampled_from([AccountId("carol"), AccountId("dave")])
"""Who may be frozen and closed, so that something goes on among the others."""
AMOUNTS = st.one_of(
    st.integers(1, 12), st.integers(-1, 12), st.sampled_from([INT64_MAX, INT64_MAX - 3, -INT64_MAX - 1])
)
LIMITS = st.one_of(st.integers(0, 12), st.just(INT64_MAX))


class WholeDomain(RuleBasedStateMachine):
    seen: ClassVar[set[str]] = set()
    """Types of events, and reasons, in all runs."""

    def __init__(self) -> None:
        super().__init__()
        self.naive = NaiveBank()
        self.states: dict[AccountId, State] = {}
        self.views: dict[AccountId, AccountView] = {}
        self.reserve = ReserveView(0, None)
        self.moved = 0
        self.position = 0
        self.at_its_close: dict[AccountId, Account | None] = {}

    @initialize(amounts=st.tuples(*[st.integers(0, 20) for _ in OPENED]))
    def open_most(self, amounts: tuple[int, ...]) -> None:
        for account, amount in zip(OPENED, amounts, strict=True):
            self.create(account, "Alice")
            self.deposit(account, amount)

    @rule(account=ACCOUNTS, name=st.sampled_from(["Alice", "Zoë"]))
    def create(self, account: AccountId, name: str) -> None:
        self.ask(CreateAccount(name, account), self.naive.create(account, name))

    @rule(account=ACCOUNTS, amount=AMOUNTS)
    def deposit(self, account: AccountId, amount: int) -> None:
        self.ask(Deposit(account, amount), self.naive.deposit(account, amount))

    @rule(account=ACCOUNTS, amount=AMOUNTS)
    def withdraw(self, account: AccountId, amount: int) -> None:
        self.ask(Withdraw(account, amount), self.naive.withdraw(account, amount))

    @rule(account=ACCOUNTS, to=ACCOUNTS, amount=AMOUNTS)
    def transfer(self, account: AccountId, to: AccountId, amount: int) -> None:
        before = self.reserve
        self.ask(Transfer(account, to, amount), self.naive.transfer(account, to, amount))
        assert self.reserve == before

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
        event = decide(self.account(command.account_id), command, self.account(command.to))
        assert getattr(event, "reason", None) == refusal, event
        assert event.type.endswith("-rejected") == (refusal is not None)
        self.seen.update({event.type, refusal or event.type})
        self.position += 1
        self.read(recorded(self.position, event, command.account_id), command)

    def read(self, event: RecordedEvent, command: Command) -> None:
        assert command_of(event) == command
        self.moved += sum(change for _, change in entries(event.account_id, event.event))
        self.states |= states_after(self.states, event)
        self.reserve = project_reserve(self.reserve, event)
        for account_id, version in event.streams():
            if view := project_account(self.views.get(account_id), event, account_id, version):
                self.views[account_id] = view

    def account(self, account_id: AccountId | None) -> Account | None:
        return decode_account(self.states.get(account_id, NO_STATE).account) if account_id else None

    @invariant()
    def all_say_the_same(self) -> None:
        expected = {account_id: self.naive.shown(account_id) for account_id in self.naive.balance}
        accounts = {account_id: account for account_id in self.states if (account := self.account(account_id))}
        assert {account_id: members(account, expected) for account_id, account in accounts.items()} == expected
        assert {account_id: members(view, expected) for account_id, view in self.views.items()} == expected

    @invariant()
    def money_is_neither_made_nor_lost(self) -> None:
        balances = [view.balance for view in self.views.values()]
        assert self.reserve.amount == sum(balances) == self.moved

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
