"""What a command came to: what its client is told, now and at every retry, alone and in a batch."""

import msgspec

from command_service.ledger.account import Account
from shared.errors import PROBLEM_TYPE, CorruptStore
from shared.events import AccountCreated, AccountId, Asset, Event, HoldId, Position, Reason, Value, Version


class Counterpart(Value, frozen=True):
    """The other account of a command, after it. The balance is in cents."""

    account_id: AccountId
    balance: int
    version: Version


class Receipt(Value, frozen=True, kw_only=True, omit_defaults=True, tag_field="status", tag=200):
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


class NewAccount(Value, frozen=True, tag_field="status", tag=201):
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


Outcome = Receipt | NewAccount | Rejection
"""Its `status` is that of HTTP, which a command of a batch would have had alone."""


def outcome_of(
    event: Event,
    event_id: str,
    account_id: AccountId,
    position: Position,
    version: Version,
    account: Account | None,
    counterpart: Counterpart | None,
) -> Outcome:
    """`event` is `account_id`'s at `version`; `account` and `counterpart` are after it."""
    # By attributes and the exact type: isinstance of a base that it has not takes three times as long.
    if (reason := getattr(event, "reason", None)) is not None:
        return Rejection(
            PROBLEM_TYPE + reason,
            reason.replace("-", " ").capitalize(),
            f"The command was recorded as {event.type} at position {position}.",
            reason,
            event_id,
            account_id,
            position,
        )
    assert account is not None
    if type(event) is AccountCreated:
        return NewAccount(account_id, event.name, event.asset, account.balance, account.available, version, position)
    return Receipt(
        type=event.type,
        event_id=event_id,
        account_id=account_id,
        hold_id=getattr(event, "hold_id", None),
        amount=getattr(event, "amount", None),
        released=getattr(event, "released", None),
        balance=account.balance,
        available=account.available,
        version=version,
        position=position,
        counterpart=counterpart,
    )


_decode = msgspec.json.Decoder(list[Outcome]).decode


def decode_outcomes(encoded: bytes) -> list[Outcome]:
    """Of a stored answer, for a retry. Raises `CorruptStore`."""
    try:
        return _decode(encoded)
    except (ValueError, RecursionError) as error:
        raise CorruptStore(
            f"an answer that was given can't be read again: {error}. Put a good copy of the log in its place."
        ) from error
