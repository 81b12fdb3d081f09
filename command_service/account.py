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
    CloseRejected,
    DepositRejected,
    Description,
    Event,
    FreezeRejected,
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
NewName = Annotated[Name, Meta(min_length=1)]


class Asked(Value, frozen=True, kw_only=True):
    """What every command may carry."""

    if_version: IfVersion | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET


class OfOneAccount(Asked, frozen=True):
    """A command that names no second account."""

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


class Transfer(Asked, frozen=True, tag="transfer", forbid_unknown_fields=True):
    """Transfer to another account. The amount may be anything, as in a deposit."""

    account_id: NamedAccount
    to: NamedAccount
    amount: Amount
    description: Description = ""


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
    """Close an account for ever. Its balance has to be 0."""

    account_id: NamedAccount
    description: Description = ""


Command = CreateAccount | Deposit | Withdraw | Transfer | SetOverdraftLimit | Freeze | Unfreeze | Close


class Account(Value, frozen=True, array_like=True, tag=1):
    """`tag` is the number of its format, of which the log keeps states: another form of it gets another number."""

    name: str
    balance: int = 0
    """In cents, never below `-overdraft_limit`, never over `BALANCE_MAX`."""
    overdraft_limit: int = 0
    status: Status = "open"
    asset: Asset | None = None
    """None is USD/2: most states are smaller by its name."""

    @property
    def available(self) -> int:
        """What can go out of it, in cents."""
        return self.balance + self.overdraft_limit


def decide(account: Account | None, version: Version, command: Command, counterpart: Account | None = None) -> Event:
    """The one event that `command` leads to.

    `account` is the one that it names first, at `version`; `counterpart` is the other one. None while there is no such
    account.
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


def rejected(command: Command, reason: Reason) -> Event:
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
    if command.to == command.account_id:
        return "same-account"
    if counterpart is None:
        return "counterpart-not-found"
    if counterpart.status == "closed":
        return "counterpart-closed"
    if counterpart.status == "frozen":
        return "counterpart-frozen"
    assert account is not None
    if account.asset != counterpart.asset:
        return "asset-mismatch"
    if counterpart.balance + command.amount > BALANCE_MAX:
        return "balance-limit-exceeded"
    return None


def _limit_refusal(account: Account | None, limit: int) -> Reason | None:
    """A frozen account's limit can be set: no money moves."""
    if account is None or account.status == "closed":
        return _not_open(account)
    if account.balance + limit < 0:
        return "limit-in-use"
    return None


def _unfreeze_refusal(account: Account | None) -> Reason | None:
    if account is None or account.status == "closed":
        return _not_open(account)
    return "not-frozen" if account.status == "open" else None


def _close_refusal(account: Account | None) -> Reason | None:
    if account is None or account.status != "open":
        return _not_open(account)
    return "balance-not-zero" if account.balance else None


def evolve(account: Account | None, event: Event, change: int) -> Account | None:
    """The account after `event`, which changes its balance by so many cents: see `entries`. A rejection by none."""
    if change and account is not None:
        return Account(account.name, account.balance + change, account.overdraft_limit, account.status, account.asset)
    match event:
        case AccountCreated():
            return Account(event.name, asset=None if event.asset == USD else event.asset)
        case OverdraftLimitSet() if account is not None:
            return replace(account, overdraft_limit=event.limit)
        case AccountFrozen() | AccountUnfrozen() | AccountClosed() if account is not None:
            return replace(account, status=status_after(event))
        case _:
            return account


def command_of(recorded: RecordedEvent) -> Command:
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
