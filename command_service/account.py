"""The account aggregate: which commands there are, what each one does, and what an event changes. Pure."""

from typing import Annotated, ClassVar, assert_never

from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import replace

from shared.events import (
    ACCOUNT_ID_PATTERN,
    ACCOUNT_ID_RULE,
    INT64_MAX,
    USD,
    AccountClosed,
    AccountCreated,
    AccountCreationRejected,
    AccountFrozen,
    AccountId,
    AccountUnfrozen,
    Amount,
    AmountDeposited,
    AmountWithdrawn,
    Asset,
    CaptureRejected,
    CloseRejected,
    DepositRejected,
    Description,
    Event,
    ExpiresAt,
    FreezeRejected,
    HoldCaptured,
    HoldExpired,
    HoldId,
    HoldPlaced,
    HoldRejected,
    HoldReleased,
    IfVersion,
    Limit,
    Metadata,
    MoneyTransferred,
    Name,
    OverdraftLimitRejected,
    OverdraftLimitSet,
    Reason,
    RecordedEvent,
    Rejected,
    ReleaseRejected,
    Status,
    TransferRejected,
    UnfreezeRejected,
    Value,
    Version,
    WithdrawalRejected,
    status_after,
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
NamedHold = Annotated[
    HoldId,
    Meta(
        min_length=1,
        description=ACCOUNT_ID_RULE,
        examples=["order-1865"],
        extra_json_schema={"pattern": ACCOUNT_ID_PATTERN},
    ),
]
NewName = Annotated[Name, Meta(min_length=1)]


class Asked(Value, frozen=True, kw_only=True):
    """What every command may carry."""

    if_version: IfVersion | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET


class OfNoHold(Asked, frozen=True):
    """A command that names no hold."""

    names_hold: ClassVar[bool] = False
    hold_id: ClassVar[None] = None


class OfHold(Asked, frozen=True):
    """A command that names one, or is given an id for it."""

    names_hold: ClassVar[bool] = True


class OfOneAccount(OfNoHold, frozen=True):
    """A command that names no second account either."""

    to: ClassVar[None] = None


class CreateAccount(OfOneAccount, frozen=True, tag="create-account", forbid_unknown_fields=True):
    """Create an account. Without `account_id` it is given a UUIDv7, without `asset` the one of DEFAULT_ASSET."""

    name: NewName
    account_id: NamedAccount | None = None
    asset: Asset | None = None
    """The default is put in where commands come in; to `decide`, None is USD/2."""


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


class Transfer(OfNoHold, frozen=True, tag="transfer", forbid_unknown_fields=True):
    """Transfer to another account. The amount may be anything, as in a deposit."""

    account_id: NamedAccount
    to: NamedAccount
    amount: Amount
    description: Description = ""


class PlaceHold(OfHold, frozen=True, tag="hold", forbid_unknown_fields=True):
    """Hold an amount for a later capture. Without `hold_id` the hold is given a UUIDv7; the amount may be anything, as
    in a deposit."""

    to: ClassVar[None] = None

    account_id: NamedAccount
    amount: Amount
    hold_id: NamedHold | None = None
    expires_at: ExpiresAt | None = None
    """As an event's time is written: the edge reads what the client wrote."""
    description: Description = ""


class Capture(OfHold, frozen=True, tag="capture", forbid_unknown_fields=True):
    """Capture a hold: out of the bank, or `to` another account. Without `amount` all that is held; of less, the rest
    is released."""

    account_id: NamedAccount
    hold_id: NamedHold
    amount: Amount | None = None
    to: NamedAccount | None = None


class Release(OfHold, frozen=True, tag="release", forbid_unknown_fields=True):
    """Release a hold."""

    to: ClassVar[None] = None

    account_id: NamedAccount
    hold_id: NamedHold


class ExpireHold(OfHold, frozen=True):
    """Of the clerk's: clients can't send it."""

    to: ClassVar[None] = None

    account_id: AccountId
    hold_id: HoldId


class SetOverdraftLimit(OfOneAccount, frozen=True, tag="set-overdraft-limit", forbid_unknown_fields=True):
    """Set how far below zero the balance may go."""

    account_id: NamedAccount
    limit: Limit


class Freeze(OfOneAccount, frozen=True, tag="freeze", forbid_unknown_fields=True):
    """Freeze an account: it moves no money in or out until it is unfrozen."""

    account_id: NamedAccount
    description: Description = ""


class Unfreeze(OfOneAccount, frozen=True, tag="unfreeze", forbid_unknown_fields=True):
    """Unfreeze an account."""

    account_id: NamedAccount
    description: Description = ""


class Close(OfOneAccount, frozen=True, tag="close", forbid_unknown_fields=True):
    """Close an account for ever. Its balance has to be 0, and none of its holds open."""

    account_id: NamedAccount
    description: Description = ""


Command = (
    CreateAccount
    | Deposit
    | Withdraw
    | Transfer
    | PlaceHold
    | Capture
    | Release
    | SetOverdraftLimit
    | Freeze
    | Unfreeze
    | Close
)
"""What a client can ask for."""


class Account(Value, frozen=True, array_like=True, tag=1):
    """`tag` is the number of its format, of which the log keeps states: another form of it gets another number."""

    name: str
    balance: int = 0
    """In cents, never below `-overdraft_limit`, never over `BALANCE_MAX`."""
    overdraft_limit: int = 0
    status: Status = "open"
    asset: Asset | None = None
    """None is USD/2: most states are smaller by its name."""
    held: int = 0
    """The sum of its open holds, in cents; never over `BALANCE_MAX`."""
    holds: int = 0
    """How many there are."""

    @property
    def available(self) -> int:
        """What can go out of it or be held, in cents; never below 0."""
        return self.balance - self.held + self.overdraft_limit


class Hold(Value, frozen=True):
    """An open hold. `expires_at` is written as an event's time is."""

    amount: int
    expires_at: str | None = None

    def is_due(self, time: str) -> bool:
        return self.expires_at is not None and self.expires_at <= time


def decide(
    account: Account | None,
    version: Version,
    command: Command | ExpireHold,
    time: str,
    counterpart: Account | None = None,
    hold: Hold | None = None,
) -> Event | None:
    """The one event that `command` leads to at `time`, which will be the event's. None when the clerk comes for a hold
    that has ended already, and for nothing else.

    `account` is the one that it names first, at `version`; `counterpart` the other one, None while there is no such
    account; `hold` is the account's open one with the id that it names, if there is one.
    """
    if command.if_version is not UNSET and command.if_version != version:
        return rejected(command, "version-mismatch")
    metadata = command.metadata or UNSET
    match command:
        case Deposit():
            if reason := _deposit_refusal(account, command.amount):
                return rejected(command, reason)
            return AmountDeposited(command.amount, command.description, metadata=metadata)
        case Withdraw():
            if reason := _withdrawal_refusal(account, command.amount):
                return rejected(command, reason)
            return AmountWithdrawn(command.amount, command.description, metadata=metadata)
        case Transfer():
            if reason := _transfer_refusal(account, command, counterpart):
                return rejected(command, reason)
            return MoneyTransferred(command.to, command.amount, command.description, metadata=metadata)
        case PlaceHold():
            assert command.hold_id is not None
            if reason := _hold_refusal(account, command, time, hold):
                return rejected(command, reason)
            return HoldPlaced(
                command.hold_id, command.amount, command.description, command.expires_at, metadata=metadata
            )
        case Capture():
            if reason := _capture_refusal(account, command, time, counterpart, hold):
                return rejected(command, reason)
            assert hold is not None
            amount = hold.amount if command.amount is None else command.amount
            return HoldCaptured(command.hold_id, amount, hold.amount - amount, command.to, metadata=metadata)
        case Release():
            if reason := _release_refusal(account, time, hold):
                return rejected(command, reason)
            assert hold is not None
            return HoldReleased(command.hold_id, hold.amount, metadata=metadata)
        case ExpireHold():
            return HoldExpired(command.hold_id, hold.amount) if hold and hold.is_due(time) else None
        case CreateAccount():
            if account is not None:
                return rejected(command, "account-already-exists")
            return AccountCreated(command.name, _asset(command), metadata=metadata)
        case SetOverdraftLimit():
            if reason := _limit_refusal(account, command.limit):
                return rejected(command, reason)
            return OverdraftLimitSet(command.limit, metadata=metadata)
        case Freeze():
            if reason := _not_open(account):
                return rejected(command, reason)
            return AccountFrozen(command.description, metadata=metadata)
        case Unfreeze():
            if reason := _unfreeze_refusal(account):
                return rejected(command, reason)
            return AccountUnfrozen(command.description, metadata=metadata)
        case Close():
            if reason := _close_refusal(account):
                return rejected(command, reason)
            return AccountClosed(command.description, metadata=metadata)
        case _:
            assert_never(command)


def rejected(command: Command | ExpireHold, reason: Reason) -> Event:
    """The event of `command` when it is rejected: all that was asked, and why it was refused."""
    if_version, metadata = command.if_version, command.metadata or UNSET
    match command:
        case Deposit():
            return DepositRejected(
                command.amount, command.description, reason, if_version=if_version, metadata=metadata
            )
        case Withdraw():
            return WithdrawalRejected(
                command.amount, command.description, reason, if_version=if_version, metadata=metadata
            )
        case Transfer():
            return TransferRejected(
                command.to, command.amount, command.description, reason, if_version=if_version, metadata=metadata
            )
        case PlaceHold():
            assert command.hold_id is not None
            return HoldRejected(
                *(command.hold_id, command.amount, command.description, reason, command.expires_at),
                if_version=if_version,
                metadata=metadata,
            )
        case Capture():
            return CaptureRejected(
                command.hold_id, reason, command.amount, command.to, if_version=if_version, metadata=metadata
            )
        case Release():
            return ReleaseRejected(command.hold_id, reason, if_version=if_version, metadata=metadata)
        case CreateAccount():
            return AccountCreationRejected(
                command.name, reason, _asset(command), if_version=if_version, metadata=metadata
            )
        case SetOverdraftLimit():
            return OverdraftLimitRejected(command.limit, reason, if_version=if_version, metadata=metadata)
        case Freeze():
            return FreezeRejected(command.description, reason, if_version=if_version, metadata=metadata)
        case Unfreeze():
            return UnfreezeRejected(command.description, reason, if_version=if_version, metadata=metadata)
        case Close():
            return CloseRejected(command.description, reason, if_version=if_version, metadata=metadata)
        case ExpireHold():
            raise ValueError("the clerk's command is never rejected: it leads to no event when there is nothing to do")
        case _:
            assert_never(command)


def _asset(command: CreateAccount) -> Asset:
    """`USD` is the constant itself: it is left out where the event is written."""
    return USD if command.asset in (None, USD) else command.asset


def _not_open(account: Account | None) -> Reason | None:
    if account is None:
        return "account-not-found"
    if account.status == "closed":
        return "account-closed"
    return "account-frozen" if account.status == "frozen" else None


def _deposit_refusal(account: Account | None, amount: int) -> Reason | None:
    if account is None or account.status != "open":
        return _not_open(account)
    if amount <= 0:
        return "amount-not-positive"
    if account.balance + amount > BALANCE_MAX:
        return "balance-limit-exceeded"
    return None


def _withdrawal_refusal(account: Account | None, amount: int) -> Reason | None:
    if account is None or account.status != "open":
        return _not_open(account)
    if amount <= 0:
        return "amount-not-positive"
    if amount > account.available:
        return "insufficient-funds"
    return None


def _transfer_refusal(account: Account | None, command: Transfer, counterpart: Account | None) -> Reason | None:
    if reason := _withdrawal_refusal(account, command.amount):
        return reason
    assert account is not None
    return _counterpart_refusal(account, command, command.amount, counterpart)


def _counterpart_refusal(
    account: Account, command: Transfer | Capture, amount: int, counterpart: Account | None
) -> Reason | None:
    if command.to == command.account_id:
        return "same-account"
    if counterpart is None:
        return "counterpart-not-found"
    if counterpart.status == "closed":
        return "counterpart-closed"
    if counterpart.status == "frozen":
        return "counterpart-frozen"
    if account.asset != counterpart.asset:
        return "asset-mismatch"
    if counterpart.balance + amount > BALANCE_MAX:
        return "balance-limit-exceeded"
    return None


def _hold_refusal(account: Account | None, command: PlaceHold, time: str, hold: Hold | None) -> Reason | None:
    """One that is due is open until the clerk has come by."""
    if account is None or account.status != "open":
        return _not_open(account)
    if hold is not None:
        return "hold-already-exists"
    if command.expires_at is not None and command.expires_at <= time:
        return "expiry-not-in-the-future"
    if reason := _withdrawal_refusal(account, command.amount):
        return reason
    # With a limit, more could be held than the balance may ever be.
    return "balance-limit-exceeded" if account.held + command.amount > BALANCE_MAX else None


def _capture_refusal(
    account: Account | None, command: Capture, time: str, counterpart: Account | None, hold: Hold | None
) -> Reason | None:
    """Of a hold that is due nothing is captured, whether the clerk has come by or not."""
    if account is None or account.status != "open":
        return _not_open(account)
    if hold is None:
        return "hold-not-found"
    if hold.is_due(time):
        return "hold-expired"
    amount = hold.amount if command.amount is None else command.amount
    if amount <= 0:
        return "amount-not-positive"
    if amount > hold.amount:
        return "amount-over-hold"
    return None if command.to is None else _counterpart_refusal(account, command, amount, counterpart)


def _release_refusal(account: Account | None, time: str, hold: Hold | None) -> Reason | None:
    """A frozen account's hold can be released: no money moves. One that is due ends as expired, and in no other way."""
    if account is None or account.status == "closed":
        return _not_open(account)
    if hold is None:
        return "hold-not-found"
    return "hold-expired" if hold.is_due(time) else None


def _limit_refusal(account: Account | None, limit: int) -> Reason | None:
    """A frozen account's limit can be set: no money moves."""
    if account is None or account.status == "closed":
        return _not_open(account)
    if account.balance - account.held + limit < 0:
        return "limit-in-use"
    return None


def _unfreeze_refusal(account: Account | None) -> Reason | None:
    if account is None or account.status == "closed":
        return _not_open(account)
    return "not-frozen" if account.status == "open" else None


def _close_refusal(account: Account | None) -> Reason | None:
    if account is None or account.status != "open":
        return _not_open(account)
    if account.balance:
        return "balance-not-zero"
    return "holds-open" if account.holds else None


def evolve(account: Account | None, event: Event, change: int, change_of_held: int) -> Account | None:
    """The account after `event`, which changes its balance, and what is held of it, by so many cents: see `entries`. A
    rejection by none."""
    if change_of_held and account is not None:
        return replace(
            account,
            balance=account.balance + change,
            held=account.held + change_of_held,
            holds=account.holds + (1 if change_of_held > 0 else -1),
        )
    if change and account is not None:
        balance, limit, status = account.balance + change, account.overdraft_limit, account.status
        return Account(account.name, balance, limit, status, account.asset, account.held, account.holds)
    match event:
        case AccountCreated():
            return Account(event.name, asset=None if event.asset == USD else event.asset)
        case OverdraftLimitSet() if account is not None:
            return replace(account, overdraft_limit=event.limit)
        case AccountFrozen() | AccountUnfrozen() | AccountClosed() if account is not None:
            return replace(account, status=status_after(event))
        case _:
            return account


def hold_after(hold: Hold | None, event: Event) -> Hold | None:
    """What `event` makes of the account's open hold with the id that it has; None when that is none any more."""
    match event:
        case HoldPlaced():
            return Hold(event.amount, event.expires_at)
        case HoldCaptured() | HoldReleased() | HoldExpired():
            return None
        case _:
            return hold


def command_of(recorded: RecordedEvent) -> Command | ExpireHold:
    """The command that led to `recorded`; of an accepted one, without the version that it may have named."""
    account_id, metadata = recorded.account_id, recorded.event.metadata
    if_version = recorded.event.if_version if isinstance(recorded.event, Rejected) else UNSET
    match recorded.event:
        case AmountDeposited() | DepositRejected() as event:
            return Deposit(account_id, event.amount, event.description, if_version=if_version, metadata=metadata)
        case AmountWithdrawn() | WithdrawalRejected() as event:
            return Withdraw(account_id, event.amount, event.description, if_version=if_version, metadata=metadata)
        case MoneyTransferred() | TransferRejected() as event:
            return Transfer(
                account_id, event.to, event.amount, event.description, if_version=if_version, metadata=metadata
            )
        case HoldPlaced() | HoldRejected() as event:
            return PlaceHold(
                *(account_id, event.amount, event.hold_id, event.expires_at, event.description),
                if_version=if_version,
                metadata=metadata,
            )
        case HoldCaptured() | CaptureRejected() as event:
            return Capture(account_id, event.hold_id, event.amount, event.to, if_version=if_version, metadata=metadata)
        case HoldReleased() | ReleaseRejected() as event:
            return Release(account_id, event.hold_id, if_version=if_version, metadata=metadata)
        case HoldExpired() as event:
            return ExpireHold(account_id, event.hold_id)
        case AccountCreated() | AccountCreationRejected() as event:
            return CreateAccount(event.name, account_id, event.asset, if_version=if_version, metadata=metadata)
        case OverdraftLimitSet() | OverdraftLimitRejected() as event:
            return SetOverdraftLimit(account_id, event.limit, if_version=if_version, metadata=metadata)
        case AccountFrozen() | FreezeRejected() as event:
            return Freeze(account_id, event.description, if_version=if_version, metadata=metadata)
        case AccountUnfrozen() | UnfreezeRejected() as event:
            return Unfreeze(account_id, event.description, if_version=if_version, metadata=metadata)
        case AccountClosed() | CloseRejected() as event:
            return Close(account_id, event.description, if_version=if_version, metadata=metadata)
        case _:
            assert_never(recorded.event)
