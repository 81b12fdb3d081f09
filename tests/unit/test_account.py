"""The domain table of DESIGN.md: given (events) / when (a command) / then (one event)."""

import pytest
from msgspec.structs import replace

from command_service.ledger.account import Account, decide, evolve
from command_service.ledger.commands import (
    Capture,
    Close,
    Command,
    CreateAccount,
    ExpireHold,
    Freeze,
    PlaceHold,
    Release,
    SetOverdraftLimit,
    Unfreeze,
    command_of,
    rejected,
)
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
    DepositRejected,
    Event,
    FreezeRejected,
    HoldCaptured,
    HoldId,
    HoldPlaced,
    HoldRejected,
    HoldReleased,
    MoneyTransferred,
    OverdraftLimitRejected,
    OverdraftLimitSet,
    Rejected,
    ReleaseRejected,
    TransferRejected,
    UnfreezeRejected,
    Version,
    WithdrawalRejected,
    decode_events,
    entries,
    join_events,
)
from tests.examples import (
    ALICE,
    BOB,
    CAPTURED,
    CAPTURED_TO_BOB,
    CREATE,
    CREATED,
    CREATED_IN_EUR,
    CREATION_REJECTED,
    DEPOSITED,
    EVENTS,
    EXPIRED,
    HOLD,
    INT64_MAX,
    PLACED,
    RELEASED,
    WITHDRAWAL_REJECTED,
    WITHDRAWN,
    at,
    deposit,
    evolved,
    folded,
    hold_folded,
    logged,
    recorded,
    transfer,
    withdraw,
)

NOTHING: list[Event] = []
EMPTY: list[Event] = [CREATED]
WITH_100: list[Event] = [CREATED, DEPOSITED]
WITH_70: list[Event] = [CREATED, DEPOSITED, WITHDRAWN]
FROZEN: list[Event] = [*WITH_100, AccountFrozen("court order")]
CLOSED: list[Event] = [CREATED, AccountClosed("moved away")]
OVERDRAWN: list[Event] = [CREATED, OverdraftLimitSet(50), AmountWithdrawn(40, "rent")]
ALMOST_FULL: list[Event] = [CREATED, AmountDeposited(INT64_MAX - 99, "salary")]
FULL: list[Event] = [CREATED, AmountDeposited(INT64_MAX, "salary")]
IN_EUR: list[Event] = [CREATED_IN_EUR, DEPOSITED]
NOW = at(30)
HELD: list[Event] = [*WITH_100, PLACED]
"""60 of 100."""
HELD_FOR_A_WHILE: list[Event] = [*WITH_100, HoldPlaced(HOLD, 60, "books", at(31))]
DUE: list[Event] = [*WITH_100, HoldPlaced(HOLD, 60, "books", NOW)]
HELD_AND_FROZEN: list[Event] = [*HELD, AccountFrozen("court order")]
HELD_OF_A_LIMIT: list[Event] = [CREATED, OverdraftLimitSet(50), HoldPlaced(HOLD, 40, "books")]
REFUSED: list[Event] = [DepositRejected(5, "salary", "account-not-found")]


def deposit_rejected(amount: int, reason: str) -> Event:
    return DepositRejected(amount, "salary", reason)  # type: ignore[arg-type]  # a table reads better with str


def withdrawal_rejected(amount: int, reason: str) -> Event:
    return WithdrawalRejected(amount, "rent", reason)  # type: ignore[arg-type]


def limit(cents: int) -> Command:
    return SetOverdraftLimit(ALICE, cents)


def create_in(asset: str) -> Command:
    return CreateAccount("Alice", ALICE, asset)


def hold(amount: int, expires_at: str | None = None, hold_id: HoldId = HOLD) -> Command:
    return PlaceHold(ALICE, amount, hold_id, expires_at, "books")


def hold_rejected(amount: int, reason: str, expires_at: str | None = None) -> Event:
    return HoldRejected(HOLD, amount, "books", reason, expires_at)  # type: ignore[arg-type]


def capture(amount: int | None = None, to: AccountId | None = None) -> Command:
    return Capture(ALICE, HOLD, amount, to)


def capture_rejected(amount: int | None, reason: str, to: AccountId | None = None) -> Event:
    return CaptureRejected(HOLD, reason, amount, to)  # type: ignore[arg-type]


def release_rejected(reason: str) -> Event:
    return ReleaseRejected(HOLD, reason)  # type: ignore[arg-type]


RELEASE = Release(ALICE, HOLD)
EXPIRE = ExpireHold(ALICE, HOLD)
ANOTHER = HoldId("order-8")
FREEZE = Freeze(ALICE, "court order")
UNFREEZE = Unfreeze(ALICE, "lifted")
CLOSE = Close(ALICE, "moved away")


def transfer_rejected(amount: int, reason: str, to: AccountId = BOB) -> Event:
    return TransferRejected(to, amount, "rent", reason)  # type: ignore[arg-type]


def decided(given: list[Event], when: Command | ExpireHold, counterpart: list[Event] = NOTHING) -> Event:
    account, hold = folded(given), hold_folded(given, when.hold_id)
    return decide(account, Version(len(given)), when, NOW, folded(counterpart), hold)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("given", "when", "then"),
    [
        (NOTHING, CREATE, CREATED),
        (EMPTY, CREATE, CREATION_REJECTED),
        (WITH_100, CREATE, CREATION_REJECTED),
        (REFUSED, CREATE, CREATED),
        (NOTHING, create_in("EUR/2"), CREATED_IN_EUR),
        (NOTHING, create_in("USD/2"), CREATED),
        (EMPTY, create_in("EUR/2"), AccountCreationRejected("Alice", "account-already-exists", "EUR/2")),
        (IN_EUR, CREATE, CREATION_REJECTED),
        (IN_EUR, deposit(1), AmountDeposited(1, "salary")),
        (IN_EUR, withdraw(100), AmountWithdrawn(100, "rent")),
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
        (FROZEN, CREATE, CREATION_REJECTED),
        (FROZEN, deposit(1), deposit_rejected(1, "account-frozen")),
        (FROZEN, deposit(0), deposit_rejected(0, "account-frozen")),
        (FROZEN, withdraw(1), withdrawal_rejected(1, "account-frozen")),
        (FROZEN, transfer(1), transfer_rejected(1, "account-frozen")),
        ([*FROZEN, AccountUnfrozen("lifted")], withdraw(100), AmountWithdrawn(100, "rent")),
        (CLOSED, CREATE, CREATION_REJECTED),
        (CLOSED, deposit(1), deposit_rejected(1, "account-closed")),
        (CLOSED, withdraw(1), withdrawal_rejected(1, "account-closed")),
        (CLOSED, transfer(1), transfer_rejected(1, "account-closed")),
        (OVERDRAWN, withdraw(10), AmountWithdrawn(10, "rent")),
        (OVERDRAWN, withdraw(11), withdrawal_rejected(11, "insufficient-funds")),
        (OVERDRAWN, deposit(100), AmountDeposited(100, "salary")),
        (NOTHING, limit(1), OverdraftLimitRejected(1, "account-not-found")),
        (EMPTY, limit(0), OverdraftLimitSet(0)),
        (EMPTY, limit(INT64_MAX), OverdraftLimitSet(INT64_MAX)),
        (FROZEN, limit(1), OverdraftLimitSet(1)),
        (CLOSED, limit(1), OverdraftLimitRejected(1, "account-closed")),
        (OVERDRAWN, limit(40), OverdraftLimitSet(40)),
        (OVERDRAWN, limit(39), OverdraftLimitRejected(39, "limit-in-use")),
        ([*OVERDRAWN, DEPOSITED], limit(0), OverdraftLimitSet(0)),
        (NOTHING, FREEZE, FreezeRejected("court order", "account-not-found")),
        (EMPTY, FREEZE, AccountFrozen("court order")),
        (FROZEN, FREEZE, FreezeRejected("court order", "account-frozen")),
        (CLOSED, FREEZE, FreezeRejected("court order", "account-closed")),
        (NOTHING, UNFREEZE, UnfreezeRejected("lifted", "account-not-found")),
        (EMPTY, UNFREEZE, UnfreezeRejected("lifted", "not-frozen")),
        (FROZEN, UNFREEZE, AccountUnfrozen("lifted")),
        (CLOSED, UNFREEZE, UnfreezeRejected("lifted", "account-closed")),
        (NOTHING, CLOSE, CloseRejected("moved away", "account-not-found")),
        (EMPTY, CLOSE, AccountClosed("moved away")),
        (WITH_100, CLOSE, CloseRejected("moved away", "balance-not-zero")),
        (OVERDRAWN, CLOSE, CloseRejected("moved away", "balance-not-zero")),
        (FROZEN, CLOSE, CloseRejected("moved away", "account-frozen")),
        (CLOSED, CLOSE, CloseRejected("moved away", "account-closed")),
        (NOTHING, hold(1), hold_rejected(1, "account-not-found")),
        (FROZEN, hold(1), hold_rejected(1, "account-frozen")),
        (CLOSED, hold(1), hold_rejected(1, "account-closed")),
        (WITH_100, hold(0), hold_rejected(0, "amount-not-positive")),
        (WITH_100, hold(-1), hold_rejected(-1, "amount-not-positive")),
        (WITH_100, hold(60), PLACED),
        (WITH_100, hold(100), HoldPlaced(HOLD, 100, "books")),
        (WITH_100, hold(101), hold_rejected(101, "insufficient-funds")),
        (WITH_100, hold(60, at(31)), HoldPlaced(HOLD, 60, "books", at(31))),
        (WITH_100, hold(60, NOW), hold_rejected(60, "expiry-not-in-the-future", NOW)),
        (WITH_100, hold(60, at(29)), hold_rejected(60, "expiry-not-in-the-future", at(29))),
        (HELD, hold(1), hold_rejected(1, "hold-already-exists")),
        (DUE, hold(1), hold_rejected(1, "hold-already-exists")),
        (HELD, hold(40, hold_id=ANOTHER), HoldPlaced(ANOTHER, 40, "books")),
        (HELD, hold(41, hold_id=ANOTHER), HoldRejected(ANOTHER, 41, "books", "insufficient-funds")),
        ([*HELD, CAPTURED], hold(60), PLACED),
        ([*HELD, RELEASED], hold(60), PLACED),
        ([*DUE, EXPIRED], hold(60), PLACED),
        (OVERDRAWN, hold(10), HoldPlaced(HOLD, 10, "books")),
        (OVERDRAWN, hold(11), hold_rejected(11, "insufficient-funds")),
        ([*FULL, OverdraftLimitSet(1)], hold(INT64_MAX), HoldPlaced(HOLD, INT64_MAX, "books")),
        (
            [*FULL, OverdraftLimitSet(1), HoldPlaced(ANOTHER, INT64_MAX, "books")],
            hold(1),
            hold_rejected(1, "balance-limit-exceeded"),
        ),
        (HELD, withdraw(40), AmountWithdrawn(40, "rent")),
        (HELD, withdraw(41), withdrawal_rejected(41, "insufficient-funds")),
        (HELD, transfer(41), transfer_rejected(41, "insufficient-funds")),
        ([*HELD, CAPTURED], withdraw(60), AmountWithdrawn(60, "rent")),
        ([*HELD, CAPTURED], withdraw(61), withdrawal_rejected(61, "insufficient-funds")),
        ([*HELD, RELEASED], withdraw(100), AmountWithdrawn(100, "rent")),
        (NOTHING, capture(), capture_rejected(None, "account-not-found")),
        (WITH_100, capture(), capture_rejected(None, "hold-not-found")),
        (WITH_100, capture(0), capture_rejected(0, "hold-not-found")),
        ([*HELD, CAPTURED], capture(), capture_rejected(None, "hold-not-found")),
        ([*HELD, RELEASED], capture(), capture_rejected(None, "hold-not-found")),
        ([*DUE, EXPIRED], capture(), capture_rejected(None, "hold-not-found")),
        (HELD, capture(), HoldCaptured(HOLD, 60, 0)),
        (HELD, capture(40), CAPTURED),
        (HELD, capture(60), HoldCaptured(HOLD, 60, 0)),
        (HELD, capture(61), capture_rejected(61, "amount-over-hold")),
        (HELD, capture(0), capture_rejected(0, "amount-not-positive")),
        (HELD, capture(-1), capture_rejected(-1, "amount-not-positive")),
        (HELD_FOR_A_WHILE, capture(), HoldCaptured(HOLD, 60, 0)),
        (DUE, capture(), capture_rejected(None, "hold-expired")),
        (HELD_AND_FROZEN, capture(), capture_rejected(None, "account-frozen")),
        (CLOSED, capture(), capture_rejected(None, "account-closed")),
        (HELD_OF_A_LIMIT, capture(), HoldCaptured(HOLD, 40, 0)),
        (NOTHING, RELEASE, release_rejected("account-not-found")),
        (WITH_100, RELEASE, release_rejected("hold-not-found")),
        ([*HELD, CAPTURED], RELEASE, release_rejected("hold-not-found")),
        (HELD, RELEASE, RELEASED),
        (HELD_FOR_A_WHILE, RELEASE, RELEASED),
        (DUE, RELEASE, release_rejected("hold-expired")),
        (HELD_AND_FROZEN, RELEASE, RELEASED),
        (CLOSED, RELEASE, release_rejected("account-closed")),
        (HELD, limit(0), OverdraftLimitSet(0)),
        (HELD_OF_A_LIMIT, limit(40), OverdraftLimitSet(40)),
        (HELD_OF_A_LIMIT, limit(39), OverdraftLimitRejected(39, "limit-in-use")),
        (HELD_OF_A_LIMIT, CLOSE, CloseRejected("moved away", "holds-open")),
        ([*HELD_OF_A_LIMIT, HoldReleased(HOLD, 40)], CLOSE, AccountClosed("moved away")),
        ([*HELD_OF_A_LIMIT, HoldCaptured(HOLD, 40, 0)], CLOSE, CloseRejected("moved away", "balance-not-zero")),
    ],
)
def test_a_command_leads_to_one_event(given: list[Event], when: Command, then: Event) -> None:
    assert decided(given, when) == then


@pytest.mark.parametrize(
    ("given", "then"),
    [
        (DUE, EXPIRED),
        ([*DUE, AccountFrozen("court order")], EXPIRED),
        (HELD_FOR_A_WHILE, None),
        (HELD, None),
        (WITH_100, None),
        (NOTHING, None),
        ([*HELD, CAPTURED], None),
        ([*DUE, EXPIRED], None),
    ],
)
def test_a_hold_expires_when_it_is_open_and_its_time_has_come(given: list[Event], then: Event | None) -> None:
    assert decided(given, EXPIRE) == then


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
        (WITH_100, FROZEN, transfer(1), transfer_rejected(1, "counterpart-frozen")),
        (WITH_100, CLOSED, transfer(1), transfer_rejected(1, "counterpart-closed")),
        (IN_EUR, IN_EUR, transfer(100), MoneyTransferred(BOB, 100, "rent")),
        (IN_EUR, EMPTY, transfer(1), transfer_rejected(1, "asset-mismatch")),
        (WITH_100, IN_EUR, transfer(1), transfer_rejected(1, "asset-mismatch")),
        ([AccountCreated("Alice", "EUR/3"), DEPOSITED], IN_EUR, transfer(1), transfer_rejected(1, "asset-mismatch")),
        (IN_EUR, EMPTY, transfer(101), transfer_rejected(101, "insufficient-funds")),
        (IN_EUR, IN_EUR, transfer(1, ALICE), transfer_rejected(1, "same-account", ALICE)),
        (IN_EUR, NOTHING, transfer(1), transfer_rejected(1, "counterpart-not-found")),
        (IN_EUR, FROZEN, transfer(1), transfer_rejected(1, "counterpart-frozen")),
        (IN_EUR, CLOSED, transfer(1), transfer_rejected(1, "counterpart-closed")),
        (IN_EUR, FULL, transfer(1), transfer_rejected(1, "asset-mismatch")),
        (OVERDRAWN, OVERDRAWN, transfer(10), MoneyTransferred(BOB, 10, "rent")),
        (OVERDRAWN, OVERDRAWN, transfer(11), transfer_rejected(11, "insufficient-funds")),
        (HELD, EMPTY, capture(40, BOB), CAPTURED_TO_BOB),
        (HELD, HELD, capture(None, BOB), HoldCaptured(HOLD, 60, 0, BOB)),
        (NOTHING, EMPTY, capture(1, BOB), capture_rejected(1, "account-not-found", BOB)),
        (WITH_100, NOTHING, capture(1, BOB), capture_rejected(1, "hold-not-found", BOB)),
        (DUE, NOTHING, capture(1, BOB), capture_rejected(1, "hold-expired", BOB)),
        (HELD, NOTHING, capture(61, BOB), capture_rejected(61, "amount-over-hold", BOB)),
        (HELD, NOTHING, capture(None, BOB), capture_rejected(None, "counterpart-not-found", BOB)),
        (HELD, FROZEN, capture(1, BOB), capture_rejected(1, "counterpart-frozen", BOB)),
        (HELD, CLOSED, capture(1, BOB), capture_rejected(1, "counterpart-closed", BOB)),
        (HELD, FULL, capture(1, BOB), capture_rejected(1, "balance-limit-exceeded", BOB)),
        (HELD, HELD, capture(1, ALICE), capture_rejected(1, "same-account", ALICE)),
    ],
)
def test_a_transfer_and_a_capture_look_at_both_accounts(
    given: list[Event], counterpart: list[Event], when: Command, then: Event
) -> None:
    assert decided(given, when, counterpart) == then


COMMANDS: list[Command] = [
    *(CREATE, deposit(1), withdraw(1), transfer(1), hold(1), capture(1), RELEASE, limit(1), FREEZE, UNFREEZE, CLOSE)
]
"""One of each type."""
INVOICE = {"invoice": "2026-117"}


def at_version(version: int, command: Command) -> Command:
    return replace(command, if_version=version)


@pytest.mark.parametrize(
    ("given", "when", "then"),
    [
        (NOTHING, at_version(0, CREATE), CREATED),
        (NOTHING, at_version(1, CREATE), AccountCreationRejected("Alice", "version-mismatch", if_version=1)),
        (REFUSED, at_version(0, CREATE), AccountCreationRejected("Alice", "version-mismatch", if_version=0)),
        (REFUSED, at_version(1, CREATE), CREATED),
        (WITH_70, at_version(3, deposit(1)), AmountDeposited(1, "salary")),
        (WITH_70, at_version(2, deposit(1)), DepositRejected(1, "salary", "version-mismatch", if_version=2)),
        (WITH_70, at_version(4, deposit(0)), DepositRejected(0, "salary", "version-mismatch", if_version=4)),
        (WITH_70, at_version(3, deposit(0)), DepositRejected(0, "salary", "amount-not-positive", if_version=3)),
        (NOTHING, at_version(0, deposit(1)), DepositRejected(1, "salary", "account-not-found", if_version=0)),
        (WITH_70, at_version(3, withdraw(1)), AmountWithdrawn(1, "rent")),
        (WITH_70, at_version(0, withdraw(1)), WithdrawalRejected(1, "rent", "version-mismatch", if_version=0)),
        (WITH_70, at_version(3, transfer(1)), MoneyTransferred(BOB, 1, "rent")),
        (WITH_70, at_version(1, transfer(1)), TransferRejected(BOB, 1, "rent", "version-mismatch", if_version=1)),
        (WITH_70, at_version(3, limit(5)), OverdraftLimitSet(5)),
        (WITH_70, at_version(9, limit(5)), OverdraftLimitRejected(5, "version-mismatch", if_version=9)),
        (WITH_70, at_version(3, FREEZE), AccountFrozen("court order")),
        (WITH_70, at_version(2, FREEZE), FreezeRejected("court order", "version-mismatch", if_version=2)),
        (FROZEN, at_version(3, UNFREEZE), AccountUnfrozen("lifted")),
        (FROZEN, at_version(2, UNFREEZE), UnfreezeRejected("lifted", "version-mismatch", if_version=2)),
        (EMPTY, at_version(1, CLOSE), AccountClosed("moved away")),
        (EMPTY, at_version(0, CLOSE), CloseRejected("moved away", "version-mismatch", if_version=0)),
        (EMPTY, replace(deposit(1), metadata=INVOICE), AmountDeposited(1, "salary", metadata=INVOICE)),
        (EMPTY, replace(deposit(1), metadata={}), AmountDeposited(1, "salary")),
        (EMPTY, replace(deposit(0), metadata={}), DepositRejected(0, "salary", "amount-not-positive")),
        (
            EMPTY,
            replace(deposit(0), metadata=INVOICE),
            DepositRejected(0, "salary", "amount-not-positive", metadata=INVOICE),
        ),
    ],
)
def test_what_a_command_names_beside_is_looked_at_and_kept(given: list[Event], when: Command, then: Event) -> None:
    assert decided(given, when, EMPTY) == then


@pytest.mark.parametrize("given", [NOTHING, REFUSED, EMPTY, WITH_70, FROZEN, CLOSED, FULL, HELD], ids=len)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_another_version_is_a_reason_before_all_others_and_the_right_one_is_none(
    given: list[Event], command: Command
) -> None:
    version = len(given)
    for other in {0, 1, version - 1, version + 1, INT64_MAX} - {-1, version}:
        event = decided(given, at_version(other, command), EMPTY)
        assert event == replace(rejected(command, "version-mismatch"), if_version=other)
    plain = decided(given, command, EMPTY)
    asked = {"if_version": version} if isinstance(plain, Rejected) else {}
    assert decided(given, at_version(version, command), EMPTY) == replace(plain, **asked)


@pytest.mark.parametrize("given", [NOTHING, WITH_70, FROZEN, HELD])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_metadata_change_no_decision_and_are_kept_in_its_event(given: list[Event], command: Command) -> None:
    plain = decided(given, command, EMPTY)
    event = decided(given, replace(command, metadata=INVOICE), EMPTY)
    assert event == replace(plain, metadata=INVOICE) != plain


REJECTIONS = [event for event in EVENTS if isinstance(event, Rejected)]


@pytest.mark.parametrize("rejection", REJECTIONS)
def test_a_rejection_holds_all_that_was_asked(rejection: Rejected) -> None:
    asked = replace(rejection, if_version=7, metadata=INVOICE)
    assert rejected(command_of(recorded(7, asked)), asked.reason) == asked  # type: ignore[arg-type, attr-defined]


@pytest.mark.parametrize("asset", [None, "USD/2", "".join(["USD", "/2"]), "EUR/2"])
@pytest.mark.parametrize("account", [None, Account(0)])
def test_an_account_in_usd_is_written_without_its_asset_however_it_was_asked_for(
    account: Account | None, asset: str | None
) -> None:
    """And the command that led to it, worked out again, leads to the same bytes."""
    event = decide(account, Version(0), CreateAccount("Alice", ALICE, asset), NOW)
    assert event is not None
    written = logged(1, event)
    assert (b"asset" in written) == (asset == "EUR/2")
    (read,) = decode_events(join_events([written]))
    assert decide(account, Version(0), command_of(read), NOW) == read.event


@pytest.mark.parametrize("event", EVENTS)
def test_what_goes_from_one_account_to_another_is_neither_made_nor_lost(event: Event) -> None:
    moved = entries(ALICE, event)
    if len(moved) > 1:
        assert [account_id for account_id, _, _ in moved] == [ALICE, BOB]
        assert sum(change for _, change, _ in moved) == 0


@pytest.mark.parametrize(
    ("before", "event", "after"),
    [
        (None, AccountCreated("Alice"), Account(0)),
        (None, AccountCreated("Alice", "EUR/2"), Account(0, asset="EUR/2")),
        (Account(1, 2, asset="EUR/2"), AmountDeposited(5, "salary"), Account(6, 2, asset="EUR/2")),
        (Account(asset="EUR/2"), OverdraftLimitSet(5), Account(0, 5, asset="EUR/2")),
        (Account(asset="EUR/2"), AccountFrozen("court order"), Account(0, 0, "frozen", "EUR/2")),
        (Account(100), AmountDeposited(5, "salary"), Account(105)),
        (Account(100), AmountWithdrawn(100, "rent"), Account(0)),
        (Account(100), MoneyTransferred(BOB, 30, "rent"), Account(70)),
        (Account(10, 50), AmountWithdrawn(30, "rent"), Account(-20, 50)),
        (Account(-20, 50), OverdraftLimitSet(20), Account(-20, 20)),
        (Account(5, 50), AccountFrozen("court order"), Account(5, 50, "frozen")),
        (Account(5, 50, "frozen"), AccountUnfrozen("lifted"), Account(5, 50)),
        (Account(100), PLACED, Account(100, 0, "open", None, 60, 1)),
        (Account(100, 0, "open", None, 5, 1), PLACED, Account(100, 0, "open", None, 65, 2)),
        (Account(100, 9, "open", None, 65, 2), CAPTURED, Account(60, 9, "open", None, 5, 1)),
        (Account(100, 0, "frozen", None, 65, 2), RELEASED, Account(100, 0, "frozen", None, 5, 1)),
        (Account(100, 0, "open", None, 60, 1), EXPIRED, Account(100)),
        (Account(100, 0, "open", None, 60, 1), DEPOSITED, Account(200, 0, "open", None, 60, 1)),
        (
            Account(100, 0, "open", None, 60, 1),
            AccountFrozen("x"),
            Account(100, 0, "frozen", None, 60, 1),
        ),
        (Account(0, 50), AccountClosed("moved away"), Account(0, 50, "closed")),
        (Account(INT64_MAX - 1), AmountDeposited(1, "salary"), Account(INT64_MAX)),
    ],
)
def test_an_accepted_event_changes_the_account(before: Account | None, event: Event, after: Account) -> None:
    assert evolved(before, event) == after


@pytest.mark.parametrize("account", [None, Account(100)])
@pytest.mark.parametrize("rejection", REJECTIONS)
def test_a_rejection_changes_nothing(account: Account | None, rejection: Event) -> None:
    assert not entries(ALICE, rejection)
    assert evolve(account, rejection, 0, 0) == account


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("account", [None, Account(100)])
def test_evolve_never_fails(account: Account | None, event: Event) -> None:
    for _, change, change_of_held in entries(ALICE, event) or [(ALICE, 0, 0)]:
        evolve(account, event, change, change_of_held)
