"""The account aggregate: which commands there are, what each one does, and what an event changes. Pure."""

from typing import Annotated, ClassVar, assert_never

from msgspec import Meta

from shared.events import (
    ACCOUNT_ID_PATTERN,
    ACCOUNT_ID_RULE,
    INT64_MAX,
    AccountCreated,
    AccountCreationRejected,
    AccountId,
    Amount,
    AmountDeposited,
    AmountWithdrawn,
    DepositRejected,
    Description,
    Event,
    MoneyTransferred,
    Name,
    Reason,
    RecordedEvent,
    TransferRejected,
    Value,
    WithdrawalRejected,
)

BALANCE_MAX = INT64_MAX

NamedAccount = Annotated[
    AccountId,
    Meta(
        min_length=1,
        description=ACCOUNT_ID_RULE,
        examples=["alice"],
        # For readers of the schema. The edge checks it: msgspec takes three times as long for it.
        extra_json_schema={"pattern": ACCOUNT_ID_PATTERN},
    ),
]
NewName = Annotated[Name, Meta(min_length=1)]


class OfOneAccount(Value, frozen=True):
    """A command that names no second account."""

    to: ClassVar[None] = None


class CreateAccount(OfOneAccount, frozen=True, tag="create-account", forbid_unknown_fields=True):
    """Create an account. Without `account_id` it is given a UUIDv7."""

    name: NewName
    account_id: NamedAccount | None = None


class Deposit(OfOneAccount, frozen=True, tag="deposit", forbid_unknown_fields=True):
    """Deposit. The amount may be anything: the decision is the account's, not the parser's."""

    account_id: NamedAccount
    amount: Amount
    description: Description = ""


class Withdraw(OfOneAccount, frozen=True, tag="withdraw", forbid_unknown_fields=True):
    """Withdraw. The amount may be anything, as in a deposit."""

    account_id: NamedAccount
    amount: Amount
    description: Description = ""


class Transfer(Value, frozen=True, tag="transfer", forbid_unknown_fields=True):
    """Transfer to another account. The amount may be anything, as in a deposit."""

    account_id: NamedAccount
    to: NamedAccount
    amount: Amount
    description: Description = ""


Command = CreateAccount | Deposit | Withdraw | Transfer


class Account(Value, frozen=True, array_like=True, tag=1):
    """`tag` is the number of its format, of which the log keeps states: another form of it gets another number."""

    name: str
    balance: int
    """In cents, never below zero, never over `BALANCE_MAX`."""


def decide(account: Account | None, command: Command, counterpart: Account | None = None) -> Event:
    """The one event that `command` leads to.

    `account` is the one that it names first, `counterpart` the other one; None while there is no such account.
    """
    match command:
        case Deposit():
            if reason := _deposit_refusal(account, command.amount):
                return DepositRejected(command.amount, command.description, reason)
            return AmountDeposited(command.amount, command.description)
        case Withdraw():
            if reason := _withdrawal_refusal(account, command.amount):
                return WithdrawalRejected(command.amount, command.description, reason)
            return AmountWithdrawn(command.amount, command.description)
        case Transfer():
            if reason := _transfer_refusal(account, command, counterpart):
                return TransferRejected(command.to, command.amount, command.description, reason)
            return MoneyTransferred(command.to, command.amount, command.description)
        case CreateAccount():
            if account is not None:
                return AccountCreationRejected(command.name, "account-already-exists")
            return AccountCreated(command.name)
        case _:
            assert_never(command)


def _deposit_refusal(account: Account | None, amount: int) -> Reason | None:
    if account is None:
        return "account-not-found"
    if amount <= 0:
        return "amount-not-positive"
    if account.balance + amount > BALANCE_MAX:
        return "balance-limit-exceeded"
    return None


def _withdrawal_refusal(account: Account | None, amount: int) -> Reason | None:
    if account is None:
        return "account-not-found"
    if amount <= 0:
        return "amount-not-positive"
    if amount > account.balance:
        return "insufficient-funds"
    return None


def _transfer_refusal(account: Account | None, command: Transfer, counterpart: Account | None) -> Reason | None:
    if reason := _withdrawal_refusal(account, command.amount):
        return reason
    if command.to == command.account_id:
        return "same-account"
    if counterpart is None:
        return "counterpart-not-found"
    if counterpart.balance + command.amount > BALANCE_MAX:
        return "balance-limit-exceeded"
    return None


def evolve(account: Account | None, event: Event, change: int) -> Account | None:
    """The account after `event`, which changes its balance by so many cents: see `entries`. A rejection by none."""
    if account is None:
        return Account(event.name, 0) if isinstance(event, AccountCreated) else None
    return Account(account.name, account.balance + change) if change else account


def command_of(recorded: RecordedEvent) -> Command:
    """The command that led to `recorded`."""
    account_id = recorded.account_id
    match recorded.event:
        case AmountDeposited() | DepositRejected() as event:
            return Deposit(account_id, event.amount, event.description)
        case AmountWithdrawn() | WithdrawalRejected() as event:
            return Withdraw(account_id, event.amount, event.description)
        case MoneyTransferred() | TransferRejected() as event:
            return Transfer(account_id, event.to, event.amount, event.description)
        case AccountCreated() | AccountCreationRejected() as event:
            return CreateAccount(event.name, account_id)
        case _:
            assert_never(recorded.event)
