"""What can happen in the ledger, and how it is written down: one CloudEvent for each event.

The same JSON bytes are stored in the event log, published to the broker and returned by the feed.
"""

from typing import Annotated, Literal, NewType

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

AccountId = NewType("AccountId", str)
Position = NewType("Position", int)
"""Place of an event in the whole log: 1, 2, 3 … without a hole, in commit order."""
Version = NewType("Version", int)
"""Place of an event in its account's own stream: 1, 2, 3 …, rejections included."""

ACCOUNT_ID_PATTERN = r"^[A-Za-z0-9._:-]{1,64}$"
ACCOUNT_ID_RULE = "1 to 64 characters of A-Z a-z 0-9 . _ : -"

Reason = Literal[
    "account-already-exists",
    "account-not-found",
    "amount-not-positive",
    "balance-limit-exceeded",
    "insufficient-funds",
]


class Value(Struct, frozen=True, gc=False):
    """What is equal when its parts are.

    A value never refers back to itself, so the garbage collector need not visit it: that was a sixth of a batch's time.
    """


class AccountCreated(Value, frozen=True):
    name: str


class AccountCreationRejected(Value, frozen=True):
    name: str
    reason: Reason


class AmountDeposited(Value, frozen=True):
    """`amount` is in cents, here and in every other event."""

    amount: int
    description: str


class DepositRejected(Value, frozen=True):
    amount: int
    description: str
    reason: Reason


class AmountWithdrawn(Value, frozen=True):
    amount: int
    description: str


class WithdrawalRejected(Value, frozen=True):
    amount: int
    description: str
    reason: Reason


Event = (
    AccountCreated | AccountCreationRejected | AmountDeposited | DepositRejected | AmountWithdrawn | WithdrawalRejected
)

EVENT_TYPES: dict[str, type[Event]] = {
    "account-created": AccountCreated,
    "account-creation-rejected": AccountCreationRejected,
    "amount-deposited": AmountDeposited,
    "deposit-rejected": DepositRejected,
    "amount-withdrawn": AmountWithdrawn,
    "withdrawal-rejected": WithdrawalRejected,
}
TYPE_NAMES: dict[type[Event], str] = {event: name for name, event in EVENT_TYPES.items()}


class CloudEvent(Value, frozen=True, kw_only=True):
    """The envelope: CloudEvents 1.0.2 in its JSON format, with the `sequence` and `traceparent` extensions.

    https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
    """

    specversion: str = "1.0"
    id: str
    source: str
    type: str
    subject: str
    time: str
    datacontenttype: str = "application/json"
    sequence: str
    accountversion: int
    commandid: str
    traceparent: str | UnsetType = UNSET
    data: Event | Raw


class RecordedEvent(Value, frozen=True):
    """An event as a consumer sees it. `time` is RFC 3339 in UTC; `source` names the ledger it belongs to."""

    position: Position
    account_id: AccountId
    version: Version
    source: str
    time: str
    event: Event


class UnreadableEvent(ValueError):
    """Bytes that are no event of this ledger's contract."""


class _Received(Value, frozen=True):
    specversion: Literal["1.0"]
    source: str
    type: str
    subject: AccountId
    time: str
    sequence: Annotated[str, Meta(pattern=r"^(?!0{20})[0-9]{20}$")]
    accountversion: Version
    data: Raw


_encode = msgspec.json.Encoder().encode
_decode_batch = msgspec.json.Decoder(list[_Received]).decode
_decode_data = {name: msgspec.json.Decoder(event).decode for name, event in EVENT_TYPES.items()}


def encode_event(event: CloudEvent) -> str:
    return _encode(event).decode()


def join_events(encoded: list[bytes]) -> bytes:
    """A batch in the CloudEvents JSON batch format, from events that are encoded already."""
    return b"[" + b",".join(encoded) + b"]"


def decode_events(batch: bytes) -> list[RecordedEvent]:
    """Read a batch, in the order in which it was written.

    Unknown attributes are passed over (CloudEvents allows extensions). An unknown event *type* is
    refused, since nobody can tell what it would do to a balance: raises `UnreadableEvent`.
    """
    try:
        return [
            RecordedEvent(
                Position(int(received.sequence)),
                received.subject,
                received.accountversion,
                received.source,
                received.time,
                _decode_data[received.type](received.data),
            )
            for received in _decode_batch(batch)
        ]
    except KeyError as error:
        raise UnreadableEvent(f"unknown event type {error}") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise UnreadableEvent(str(error)) from error
