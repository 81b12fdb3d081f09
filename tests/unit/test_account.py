"""The domain table of DESIGN.md: given (events) / when (a command) / then (one event)."""

from functools import reduce

import pytest

from command_service.account import Account, Command, decide, evolve
from shared.events import (
    AccountCreated,
    AmountDeposited,
    AmountWithdrawn,
    DepositRejected,
    Event,
    WithdrawalRejected,
)
from tests.examples import (
    CREATE,
    CREATED,
    CREATION_REJECTED,
    DEPOSIT_REJECTED,
    DEPOSITED,
    EVENTS,
    INT64_MAX,
    WITHDRAWAL_REJECTED,
    WITHDRAWN,
    deposit,
    withdraw,
)

NOTHING: list[Event] = []
EMPTY: list[Event] = [CREATED]
WITH_100: list[Event] = [CREATED, DEPOSITED]
WITH_70: list[Event] = [CREATED, DEPOSITED, WITHDRAWN]
FULL: list[Event] = [CREATED, AmountDeposited(INT64_MAX, "salary")]
REFUSED: list[Event] = [DepositRejected(5, "salary", "account-not-found")]


def deposit_rejected(amount: int, reason: str) -> Event:
    return DepositRejected(amount, "salary", reason)  # type: ignore[arg-type]  # a table reads better with str


def withdrawal_rejected(amount: int, reason: str) -> Event:
    return WithdrawalRejected(amount, "rent", reason)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "when", "then"),
    [
        (NOTHING, CREATE, CREATED),
        (EMPTY, CREATE, CREATION_REJECTED),
        (WITH_100, CREATE, CREATION_REJECTED),
        (REFUSED, CREATE, CREATED),
        (NOTHING, deposit(1), deposit_rejected(1, "account-not-found")),
        (NOTHING, deposit(0), deposit_rejected(0, "account-not-found")),
        (REFUSED, deposit(1), deposit_rejected(1, "account-not-found")),
        ([*REFUSED, CREATED], deposit(1), AmountDeposited(1, "salary")),
        (EMPTY, deposit(1), AmountDeposited(1, "salary")),
        (EMPTY, deposit(0), deposit_rejected(0, "amount-not-positive")),
        (EMPTY, deposit(-1), deposit_rejected(-1, "amount-not-positive")),
        (EMPTY, deposit(-INT64_MAX - 1), deposit_rejected(-INT64_MAX - 1, "amount-not-positive")),
        (EMPTY, deposit(INT64_MAX), AmountDeposited(INT64_MAX, "salary")),
        (EMPTY, deposit(INT64_MAX + 1), deposit_rejected(INT64_MAX + 1, "balance-limit-exceeded")),
        (WITH_100, deposit(INT64_MAX - 100), AmountDeposited(INT64_MAX - 100, "salary")),
        (WITH_100, deposit(INT64_MAX - 99), deposit_rejected(INT64_MAX - 99, "balance-limit-exceeded")),
        (FULL, deposit(1), deposit_rejected(1, "balance-limit-exceeded")),
        (FULL, deposit(0), deposit_rejected(0, "amount-not-positive")),
        (NOTHING, withdraw(1), withdrawal_rejected(1, "account-not-found")),
        (NOTHING, withdraw(-1), withdrawal_rejected(-1, "account-not-found")),
        (EMPTY, withdraw(1), withdrawal_rejected(1, "insufficient-funds")),
        (WITH_100, withdraw(0), withdrawal_rejected(0, "amount-not-positive")),
        (WITH_100, withdraw(-1), withdrawal_rejected(-1, "amount-not-positive")),
        (WITH_100, withdraw(1), AmountWithdrawn(1, "rent")),
        (WITH_100, withdraw(100), AmountWithdrawn(100, "rent")),
        (WITH_100, withdraw(101), withdrawal_rejected(101, "insufficient-funds")),
        (WITH_70, withdraw(70), AmountWithdrawn(70, "rent")),
        (WITH_70, withdraw(71), withdrawal_rejected(71, "insufficient-funds")),
        ([*WITH_100, WITHDRAWAL_REJECTED], withdraw(100), AmountWithdrawn(100, "rent")),
        (FULL, withdraw(INT64_MAX), AmountWithdrawn(INT64_MAX, "rent")),
    ],
)
def test_a_command_leads_to_one_event(given: list[Event], when: Command, then: Event) -> None:
    account = reduce(evolve, given, None)
    assert decide(account, when) == then


@pytest.mark.parametrize(
    ("before", "event", "after"),
    [
        (None, AccountCreated("Alice"), Account("Alice", 0)),
        (Account("Alice", 100), AmountDeposited(5, "salary"), Account("Alice", 105)),
        (Account("Alice", 100), AmountWithdrawn(100, "rent"), Account("Alice", 0)),
        (Account("Alice", INT64_MAX - 1), AmountDeposited(1, "salary"), Account("Alice", INT64_MAX)),
    ],
)
def test_an_accepted_event_changes_the_account(before: Account | None, event: Event, after: Account) -> None:
    assert evolve(before, event) == after


@pytest.mark.parametrize("account", [None, Account("Alice", 100)])
@pytest.mark.parametrize("rejection", [CREATION_REJECTED, DEPOSIT_REJECTED, WITHDRAWAL_REJECTED])
def test_a_rejection_changes_nothing(account: Account | None, rejection: Event) -> None:
    assert evolve(account, rejection) == account


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("account", [None, Account("Alice", 100)])
def test_evolve_never_fails(account: Account | None, event: Event) -> None:
    evolve(account, event)
