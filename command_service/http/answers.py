"""What a client is told of a command's outcome, alone and in a batch."""

from command_service.ledger_writer import Counterpart, Outcome
from shared.events import AccountId, Asset, HoldId, Position, Reason, Value, Version
from shared.platform.problems import PROBLEM_TYPE


class Receipt(Value, frozen=True, kw_only=True, omit_defaults=True):
    """An accepted command. Amount, balance and what is available are in cents.

    `amount` is there when the command is about one, `released` is what a capture left of its hold; `counterpart` the
    account that a transfer or a capture went into, after it.
    """

    type: str
    event_id: str
    account_id: AccountId
    hold_id: HoldId | None = None
    amount: int | None = None
    released: int | None = None
    balance: int
    available: int
    version: Version
    position: Position
    counterpart: Counterpart | None = None


class NewAccount(Value, frozen=True):
    """An accepted create-account."""

    id: AccountId
    name: str
    asset: Asset
    balance: int
    available: int
    version: Version
    position: Position


class Rejection(Value, frozen=True, tag_field="status", tag=400):
    """A problem document (RFC 9457) for a command that the ledger recorded as rejected."""

    type: str
    title: str
    detail: str
    reason: Reason
    event_id: str
    account_id: AccountId
    position: Position


class ReceiptResult(Receipt, frozen=True, tag_field="status", tag=200):
    """The same in the answer to a batch."""


class NewAccountResult(NewAccount, frozen=True, tag_field="status", tag=201):
    """The same in the answer to a batch."""


Result = ReceiptResult | NewAccountResult | Rejection


def answer(
    o: Outcome, receipt: type[Receipt] = Receipt, new_account: type[NewAccount] = NewAccount
) -> Receipt | NewAccount | Rejection:
    """In a batch, the classes are those with the status that the command would have had alone."""
    if o.reason is not None:
        return Rejection(
            PROBLEM_TYPE + o.reason,
            o.reason.replace("-", " ").capitalize(),
            f"The command was recorded as {o.type} at position {o.position}.",
            o.reason,
            o.event_id,
            o.account_id,
            o.position,
        )
    assert o.balance is not None
    assert o.available is not None
    if created := o.created:
        return new_account(o.account_id, created.name, created.asset, o.balance, o.available, o.version, o.position)
    return receipt(
        type=o.type,
        event_id=o.event_id,
        account_id=o.account_id,
        hold_id=o.hold_id,
        amount=o.amount,
        released=o.released,
        balance=o.balance,
        available=o.available,
        version=o.version,
        position=o.position,
        counterpart=o.counterpart,
    )
