"""The domain table of DESIGN.md: given (events) / when (a command) / then (one event)."""

import pytest

from command_service.account import Account, Command, decide, evolve
from shared.events import (
    AccountCreated,
    AccountId,
    AmountDeposited,
    AmountWithdrawn,
    DepositRejected,
    Event,
    MoneyTransferred,
    TransferRejected,
    WithdrawalRejected,
    entries,
)
from tests.examples import (
    ALICE,
    BOB,
    CREATE,
    CREATED,
    CREATION_REJECTED,
    DEPOSIT_REJECTED,
    DEPOSITED,
    EVENTS,
    INT64_MAX,
    TRANSFER_REJECTED,
    WITHDRAWAL_REJECTED,
    WITHDRAWN,
    deposit,
    folded,
    transfer,
    withdraw,
)

NOTHING: list[Event] = []
EMPTY: list[Event] = [CREATED]
WITH_100: list[Event] = [CREATED, DEPOSITED]
WITH_70: list[Event] = [CREATED, DEPOSITED, WITHDRAWN]
ALMOST_FULL: list[Event] = [CREATED, AmountDeposited(INT64_MAX - 99, "salary")]
FULL: list[Event] = [CREATED, AmountDeposited(INT64_MAX, "salary")]
REFUSED: list[Event] = [DepositRejected(5, "salary", "account-not-found")]


def deposit_rejected(amount: int, reason: str) -> Event:
    return DepositRejected(amount, "salary", reason)  # type: ignore[arg-type]  # a table reads better with str


def withdrawal_rejected(amount: int, reason: str) -> Event:
    return WithdrawalRejected(amount, "rent", reason)  # type: ignore[arg-type]


def transfer_rejected(amount: int, reason: str, to: AccountId = BOB) -> Event:
    return TransferRejected(to, amount, "rent", reason)  # type: ignore[arg-type]


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
    assert decide(folded(given), when) == then


@pytest.mark.parametrize(
    ("given", "counterpart", "when", "then"),
    [
        (WITH_100, EMPTY, transfer(1), MoneyTransferred(BOB, 1, "rent")),
        (WITH_100, EMPTY, transfer(100), MoneyTransferred(BOB, 100, "rent")),
        (WITH_100, WITH_100, transfer(100), MoneyTransferred(BOB, 100, "rent")),
        (FULL, EMPTY, transfer(INT64_MAX), MoneyTransferred(BOB, INT64_MAX, "rent")),
        (NOTHING, EMPTY, transfer(1), transfer_rejected(1, "account-not-found")),
        (NOTHING, NOTHING, transfer(0), transfer_rejected(0, "account-not-found")),
        (WITH_100, EMPTY, transfer(0), transfer_rejected(0, "amount-not-positive")),
        (WITH_100, EMPTY, transfer(-1), transfer_rejected(-1, "amount-not-positive")),
        (WITH_100, NOTHING, transfer(1), transfer_rejected(1, "counterpart-not-found")),
        (WITH_100, REFUSED, transfer(1), transfer_rejected(1, "counterpart-not-found")),
        (WITH_100, WITH_100, transfer(1, ALICE), transfer_rejected(1, "same-account", ALICE)),
        (WITH_100, EMPTY, transfer(101), transfer_rejected(101, "insufficient-funds")),
        (
            WITH_100,
            [CREATED, AmountDeposited(INT64_MAX - 99, "salary")],
            transfer(99),
            MoneyTransferred(BOB, 99, "rent"),
        ),
        (WITH_100, FULL, transfer(1), transfer_rejected(1, "balance-limit-exceeded")),
    ],
)
def test_a_transfer_looks_at_both_accounts(
    given: list[Event], counterpart: list[Event], when: Command, then: Event
) -> None:
    assert decide(folded(given), when, folded(counterpart)) == then


@pytest.mark.parametrize("event", EVENTS)
def test_what_goes_from_one_account_to_another_is_neither_made_nor_lost(event: Event) -> None:
    moved = entries(ALICE, event)
    if len(moved) > 1:
        assert [account_id for account_id, _ in moved] == [ALICE, BOB]
        assert sum(change for _, change in moved) == 0


@pytest.mark.parametrize(
    ("before", "event", "after"),
    [
        (None, AccountCreated("Alice"), Account("Alice", 0)),
        (Account("Alice", 100), AmountDeposited(5, "salary"), Account("Alice", 105)),
        (Account("Alice", 100), AmountWithdrawn(100, "rent"), Account("Alice", 0)),
        (Account("Alice", 100), MoneyTransferred(BOB, 30, "rent"), Account("Alice", 70)),
        (Account("Alice", INT64_MAX - 1), AmountDeposited(1, "salary"), Account("Alice", INT64_MAX)),
    ],
)
def test_an_accepted_event_changes_the_account(before: Account | None, event: Event, after: Account) -> None:
    assert evolve(before, event, dict(entries(ALICE, event)).get(ALICE, 0)) == after


@pytest.mark.parametrize("account", [None, Account("Alice", 100)])
@pytest.mark.parametrize("rejection", [CREATION_REJECTED, DEPOSIT_REJECTED, WITHDRAWAL_REJECTED, TRANSFER_REJECTED])
def test_a_rejection_changes_nothing(account: Account | None, rejection: Event) -> None:
    assert not entries(ALICE, rejection)
    assert evolve(account, rejection, 0) == account


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("account", [None, Account("Alice", 100)])
def test_evolve_never_fails(account: Account | None, event: Event) -> None:
    for _, change in entries(ALICE, event) or [(ALICE, 0)]:
        evolve(account, event, change)
