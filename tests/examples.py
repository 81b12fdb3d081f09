"""Named examples of accounts, events and commands, for all tests."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import reduce

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from command_service.ledger.account import Account, Hold, evolve, hold_after
from command_service.ledger.commands import Command, CreateAccount, Deposit, Transfer, Withdraw
from shared.events import (
    AccountClosed,
    AccountCreated,
    AccountCreationRejected,
    AccountFrozen,
    AccountId,
    AccountUnfrozen,
    AmountDeposited,
    AmountWithdrawn,
    CaptureRejected,
    CloseRejected,
    CloudEvent,
    DepositRejected,
    Event,
    FreezeRejected,
    HoldCaptured,
    HoldExpired,
    HoldId,
    HoldPlaced,
    HoldRejected,
    HoldReleased,
    MoneyTransferred,
    OverdraftLimitRejected,
    OverdraftLimitSet,
    RecordedEvent,
    Rejected,
    ReleaseRejected,
    TransferRejected,
    UnfreezeRejected,
    WithdrawalRejected,
    decode_events,
    encode_event,
    entries,
    join_events,
    written,
)
from shared.witness import Signer, new_key

ALICE = AccountId("alice")
BOB = AccountId("bob")
HOLD = HoldId("order-7")
EXPIRES_AT = "2026-01-02T00:00:00.000000Z"
SOURCE = "/ledgers/example"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
INT64_MAX = 2**63 - 1
SIGNER = Signer(SOURCE, new_key())

CREATE = CreateAccount("Alice", ALICE)
CREATED = AccountCreated("Alice")
CREATED_IN_EUR = AccountCreated("Alice", "EUR/2")
CREATION_REJECTED = AccountCreationRejected("Alice", "account-already-exists")
DEPOSITED = AmountDeposited(100, "salary")
DEPOSIT_REJECTED = DepositRejected(0, "salary", "amount-not-positive")
WITHDRAWN = AmountWithdrawn(30, "rent")
WITHDRAWAL_REJECTED = WithdrawalRejected(1000, "rent", "insufficient-funds")
TRANSFERRED = MoneyTransferred(BOB, 30, "rent")
PLACED = HoldPlaced(HOLD, 60, "books")
CAPTURED = HoldCaptured(HOLD, 40, 20)
CAPTURED_TO_BOB = HoldCaptured(HOLD, 40, 20, BOB)
RELEASED = HoldReleased(HOLD, 60)
EXPIRED = HoldExpired(HOLD, 60)
TRANSFER_REJECTED = TransferRejected(BOB, 1000, "rent", "insufficient-funds")

EVENTS: list[Event] = [
    CREATED,
    CREATION_REJECTED,
    DEPOSITED,
    DEPOSIT_REJECTED,
    WITHDRAWN,
    WITHDRAWAL_REJECTED,
    TRANSFERRED,
    TRANSFER_REJECTED,
    PLACED,
    HoldRejected(HOLD, 1000, "books", "insufficient-funds"),
    CAPTURED_TO_BOB,
    CaptureRejected(HOLD, "hold-not-found"),
    RELEASED,
    ReleaseRejected(HOLD, "hold-not-found"),
    EXPIRED,
    OverdraftLimitSet(50),
    OverdraftLimitRejected(0, "limit-in-use"),
    AccountFrozen("court order"),
    FreezeRejected("court order", "account-frozen"),
    AccountUnfrozen("lifted"),
    UnfreezeRejected("lifted", "not-frozen"),
    AccountClosed("moved away"),
    CloseRejected("moved away", "balance-not-zero"),
]
"""One of each type."""
IN_TWO_STREAMS = [TRANSFERRED, CAPTURED_TO_BOB]

MORE_EVENTS: list[Event] = [
    AmountDeposited(INT64_MAX, 'Zoë 🏦 "quoted" \\ \n\t\x1f\x7f'),
    AmountWithdrawn(1, ""),
    DepositRejected(-(2**63), "", "account-not-found"),
    DepositRejected(1, "", "balance-limit-exceeded"),
    WithdrawalRejected(1, "", "account-closed"),
    TransferRejected(BOB, 1, "", "counterpart-closed"),
    TransferRejected(BOB, 1, "", "counterpart-frozen"),
    TransferRejected(BOB, 1, "", "counterpart-not-found"),
    TransferRejected(ALICE, 1, "", "same-account"),
    TransferRejected(BOB, 1, "", "asset-mismatch"),
    TransferRejected(BOB, 1, "", "linked-command-rejected", metadata={"invoice": "2026-117"}),
    HoldPlaced(HOLD, 1, "", EXPIRES_AT),
    HoldRejected(HOLD, 1, "", "hold-already-exists"),
    HoldRejected(HOLD, 1, "", "expiry-not-in-the-future", EXPIRES_AT),
    CAPTURED,
    CaptureRejected(HOLD, "hold-expired", 40),
    CaptureRejected(HOLD, "amount-over-hold", 61, BOB),
    CloseRejected("", "holds-open"),
    CREATED_IN_EUR,
    AccountCreationRejected("Alice", "version-mismatch", "EUR/2", if_version=3, metadata={"": "\x7f", "ß": ""}),
    *(replace(event, metadata={"corrects": "7"}) for event in EVENTS),
    *(replace(event, if_version=3) for event in EVENTS if isinstance(event, Rejected)),
]
"""What these do not show: every other reason, and members that may be missing."""


def deposit(amount: int, account_id: AccountId = ALICE) -> Command:
    return Deposit(account_id, amount, "salary")


def withdraw(amount: int, account_id: AccountId = ALICE) -> Command:
    return Withdraw(account_id, amount, "rent")


def transfer(amount: int, to: AccountId = BOB, account_id: AccountId = ALICE) -> Command:
    return Transfer(account_id, to, amount, "rent")


def evolved(account: Account | None, event: Event, account_id: AccountId = ALICE) -> Account | None:
    """The account after `event`, which it is the subject of."""
    changes = {moved: change for moved, *change in entries(account_id, event)}
    return evolve(account, event, *changes.get(account_id, (0, 0)))


def folded(events: Iterable[Event]) -> Account | None:
    """The account after `events`, which it is the subject of."""
    return reduce(evolved, events, None)


def hold_folded(events: Iterable[Event], hold_id: HoldId | None = HOLD) -> Hold | None:
    """The open hold `hold_id` after the events of its account."""
    named = [event for event in events if getattr(event, "hold_id", None) == hold_id]
    return reduce(hold_after, named, None)


def at(second: int) -> str:
    """A time, later for a larger `second`."""
    return written(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second))


def recorded(
    position: int,
    event: Event,
    account_id: AccountId = ALICE,
    version: int | None = None,
    counterpart_version: int | None = None,
) -> RecordedEvent:
    """`event` as a consumer sees it: recorded in second `position`, by default as version `position`."""
    event_of = cloud_event(position, event, account_id, version, counterpart_version=counterpart_version)
    (event_read,) = decode_events(join_events([encode_event(event_of)]))
    return event_read


def cloud_event(
    position: int,
    event: Event,
    account_id: AccountId = ALICE,
    version: int | None = None,
    traceparent: str | UnsetType = UNSET,
    counterpart_version: int | None = None,
) -> CloudEvent:
    to = event.to if isinstance(event, MoneyTransferred | HoldCaptured) else None
    return CloudEvent(
        id=f"event-{position}",
        source=SOURCE,
        type=event.type,
        subject=account_id,
        time=at(position),
        sequence=f"{position:020d}",
        accountversion=version or position,
        counterpart=to or UNSET,
        counterpartversion=(counterpart_version or position) if to else UNSET,
        commandid=f"command-{position}",
        traceparent=traceparent,
        data=event,
    )


def log_of(events: Iterable[tuple[AccountId, Event]]) -> list[CloudEvent]:
    """A log of `events`, each with the account that it is of: positions and versions as a ledger gives them."""
    versions: Counter[AccountId] = Counter()
    log = []
    for position, (account_id, event) in enumerate(events, 1):
        first, *second = [account_id, *(other for other, _, _ in entries(account_id, event)[1:])]
        versions.update([first, *second])
        to = versions[second[0]] if second else None
        log.append(cloud_event(position, event, first, versions[first], counterpart_version=to))
    return log


def logged(position: int, event: Event, account_id: AccountId = ALICE, version: int | None = None) -> bytes:
    """`event` as it is in the log."""
    return encode_event(cloud_event(position, event, account_id, version))
