"""Named examples of accounts, events and commands, for all tests."""

from msgspec import UNSET, Raw, UnsetType

from command_service.account import Command, CreateAccount, Deposit, Withdraw
from shared.events import (
    AccountCreated,
    AccountCreationRejected,
    AccountId,
    AmountDeposited,
    AmountWithdrawn,
    CloudEvent,
    DepositRejected,
    Event,
    Position,
    RecordedEvent,
    Version,
    WithdrawalRejected,
    encode_event,
)
from shared.witness import Signer, new_key

ALICE = AccountId("alice")
BOB = AccountId("bob")
SOURCE = "/ledgers/example"
INT64_MAX = 2**63 - 1
SIGNER = Signer(SOURCE, new_key())

CREATE = CreateAccount("Alice", ALICE)
CREATED = AccountCreated("Alice")
CREATION_REJECTED = AccountCreationRejected("Alice", "account-already-exists")
DEPOSITED = AmountDeposited(100, "salary")
DEPOSIT_REJECTED = DepositRejected(0, "salary", "amount-not-positive")
WITHDRAWN = AmountWithdrawn(30, "rent")
WITHDRAWAL_REJECTED = WithdrawalRejected(1000, "rent", "insufficient-funds")

EVENTS: list[Event] = [
    CREATED,
    CREATION_REJECTED,
    DEPOSITED,
    DEPOSIT_REJECTED,
    WITHDRAWN,
    WITHDRAWAL_REJECTED,
]
"""One of each type."""


def deposit(amount: int, account_id: AccountId = ALICE) -> Command:
    return Deposit(account_id, amount, "salary")


def withdraw(amount: int, account_id: AccountId = ALICE) -> Command:
    return Withdraw(account_id, amount, "rent")


def at(second: int) -> str:
    """A time, later for a larger `second`."""
    return f"2026-01-01T00:00:{second:02d}.000000Z"


def recorded(position: int, event: Event, account_id: AccountId = ALICE, version: int | None = None) -> RecordedEvent:
    """`event` as a consumer sees it: recorded in second `position`, by default as version `position`."""
    encoded = Raw(logged(position, event, account_id, version))
    return RecordedEvent(
        Position(position), account_id, Version(version or position), SOURCE, at(position), event, encoded
    )


def cloud_event(
    position: int,
    event: Event,
    account_id: AccountId = ALICE,
    version: int | None = None,
    traceparent: str | UnsetType = UNSET,
) -> CloudEvent:
    return CloudEvent(
        id=f"event-{position}",
        source=SOURCE,
        type=event.type,
        subject=account_id,
        time=at(position % 60),
        sequence=f"{position:020d}",
        accountversion=version or position,
        commandid=f"command-{position}",
        traceparent=traceparent,
        data=event,
    )


def logged(position: int, event: Event, account_id: AccountId = ALICE, version: int | None = None) -> bytes:
    """`event` as it is in the log."""
    return encode_event(cloud_event(position, event, account_id, version))
