"""What can be asked of the ledger: each command, once, with the events that it leads to. Pure."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, get_args

from msgspec import UNSET, Meta, UnsetType

from shared.events import (
    ACCOUNT_ID_PATTERN,
    ACCOUNT_ID_RULE,
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
    ReleaseRejected,
    TransferRejected,
    UnfreezeRejected,
    Value,
    WithdrawalRejected,
)

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
    """What every command may carry.

    `leads_to` are the events that one leads to: accepted, and rejected.
    """

    leads_to: ClassVar[tuple[type[Event], type[Event] | None]]

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

    leads_to: ClassVar = AccountCreated, AccountCreationRejected

    name: NewName
    account_id: NamedAccount | None = None
    asset: Asset | None = None
    """The default is put in where commands come in; to `decide`, None is USD/2."""


class Deposit(OfOneAccount, frozen=True, tag="deposit", forbid_unknown_fields=True):
    """Deposit. The amount may be anything: the decision is the account's, not the parser's."""

    leads_to: ClassVar = AmountDeposited, DepositRejected

    account_id: NamedAccount
    amount: Amount
    description: Description = ""


class Withdraw(OfOneAccount, frozen=True, tag="withdraw", forbid_unknown_fields=True):
    """Withdraw. The amount may be anything, as in a deposit."""

    leads_to: ClassVar = AmountWithdrawn, WithdrawalRejected

    account_id: NamedAccount
    amount: Amount
    description: Description = ""


class Transfer(OfNoHold, frozen=True, tag="transfer", forbid_unknown_fields=True):
    """Transfer to another account. The amount may be anything, as in a deposit."""

    leads_to: ClassVar = MoneyTransferred, TransferRejected

    account_id: NamedAccount
    to: NamedAccount
    amount: Amount
    description: Description = ""


class PlaceHold(OfHold, frozen=True, tag="hold", forbid_unknown_fields=True):
    """Hold an amount for a later capture. Without `hold_id` the hold is given a UUIDv7; the amount may be anything, as
    in a deposit."""

    leads_to: ClassVar = HoldPlaced, HoldRejected
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

    leads_to: ClassVar = HoldCaptured, CaptureRejected

    account_id: NamedAccount
    hold_id: NamedHold
    amount: Amount | None = None
    to: NamedAccount | None = None


class Release(OfHold, frozen=True, tag="release", forbid_unknown_fields=True):
    """Release a hold."""

    leads_to: ClassVar = HoldReleased, ReleaseRejected
    to: ClassVar[None] = None

    account_id: NamedAccount
    hold_id: NamedHold


class ExpireHold(OfHold, frozen=True):
    """Of the clerk's: clients can't send it."""

    leads_to: ClassVar = HoldExpired, None
    to: ClassVar[None] = None

    account_id: AccountId
    hold_id: HoldId


class SetOverdraftLimit(OfOneAccount, frozen=True, tag="set-overdraft-limit", forbid_unknown_fields=True):
    """Set how far below zero the balance may go."""

    leads_to: ClassVar = OverdraftLimitSet, OverdraftLimitRejected

    account_id: NamedAccount
    limit: Limit


class Freeze(OfOneAccount, frozen=True, tag="freeze", forbid_unknown_fields=True):
    """Freeze an account: it moves no money in or out until it is unfrozen."""

    leads_to: ClassVar = AccountFrozen, FreezeRejected

    account_id: NamedAccount
    description: Description = ""


class Unfreeze(OfOneAccount, frozen=True, tag="unfreeze", forbid_unknown_fields=True):
    """Unfreeze an account."""

    leads_to: ClassVar = AccountUnfrozen, UnfreezeRejected

    account_id: NamedAccount
    description: Description = ""


class Close(OfOneAccount, frozen=True, tag="close", forbid_unknown_fields=True):
    """Close an account for ever. Its balance has to be 0, and none of its holds open."""

    leads_to: ClassVar = AccountClosed, CloseRejected

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


def asset_of(command: CreateAccount) -> Asset:
    """`USD` is the constant itself: it is left out where the event is written."""
    return USD if command.asset in (None, USD) else command.asset


def rejected(command: Command | ExpireHold, reason: Reason) -> Event:
    """The event of `command` when it is rejected: all that was asked, and why it was refused."""
    _, event = command.leads_to
    if event is None:
        raise ValueError("the clerk's command is never rejected: it leads to no event when there is nothing to do")
    asked = {name: getattr(command, name) for name in event.__struct_fields__ if name != "reason"}
    asked["metadata"] = command.metadata or UNSET
    if isinstance(command, CreateAccount):
        asked["asset"] = asset_of(command)
    return event(**asked, reason=reason)


_COMMANDS: Mapping[type[Event], type[Command | ExpireHold]] = {
    event: command for command in (*get_args(Command), ExpireHold) for event in command.leads_to if event
}
_ASKED = {
    event: [name for name in command.__struct_fields__ if name in event.__struct_fields__]
    for event, command in _COMMANDS.items()
}


def command_of(recorded: RecordedEvent) -> Command | ExpireHold:
    """The command that led to `recorded`; of an accepted one, without the version that it may have named."""
    event = recorded.event
    asked = {name: getattr(event, name) for name in _ASKED[type(event)]}
    return _COMMANDS[type(event)](account_id=recorded.account_id, **asked)
