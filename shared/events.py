"""What can happen in the ledger, and how it is written down: one CloudEvent for each event.

The same JSON bytes are stored in the event log, published to the broker and returned by the feed.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import reduce
from operator import or_
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, NewType, get_args

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

INT64_MAX = 2**63 - 1
NAME_CHARS_MAX = 200
DESCRIPTION_CHARS_MAX = 1000
METADATA_PAIRS_MAX = 20
METADATA_KEY_CHARS_MAX = 64
METADATA_VALUE_CHARS_MAX = 200
SOURCE_CHARS_MAX = 200
TIME_CHARS_MAX = 40
REASON_CHARS_MAX = 200
"""Of what an `UnreadableEvent` says: the bytes that it speaks of may be anybody's."""
# A path that ends in . or .. is another one (RFC 3986, section 5.2.4).
ACCOUNT_ID_PATTERN = (
    r"^([A-Za-z0-9_:-][A-Za-z0-9._:-]{0,63}|\.[A-Za-z0-9_:-][A-Za-z0-9._:-]{0,62}|\.\.[A-Za-z0-9._:-]{1,62})$"
)
ACCOUNT_ID_RULE = "1 to 64 characters of A-Z a-z 0-9 . _ : -, but not . or .. alone"
ASSET_PATTERN = r"^[A-Z][A-Z0-9]{0,15}/(0|[1-9][0-9]?)$"
ASSET_RULE = "a code and its decimal places, as in EUR/2: A-Z, then up to 15 of A-Z 0-9, a slash, and 0 to 99"
TIME_RULE = "a date and time as in RFC 3339, with its offset, in the years 1 to 9999 of UTC"
USD = "USD/2"
"""The asset of whatever names none: it is left out where it is written."""
HAS_NUL = "a text has the character U+0000"
is_account_id = re.compile(ACCOUNT_ID_PATTERN).fullmatch
is_asset = re.compile(ASSET_PATTERN).fullmatch

AccountId = NewType("AccountId", str)
HoldId = NewType("HoldId", str)
"""Of one of its account's open holds, in the form of an account's id. When that one has ended, another may have it."""
Position = NewType("Position", int)
"""Place of an event in the whole log: 1, 2, 3 … without a hole, in commit order."""
Version = NewType("Version", int)
"""Place of an event in its account's own stream: 1, 2, 3 …, rejections included."""

# Schemas have this pattern for their readers; those who decode look for the character themselves.
NO_NUL = {"pattern": r"^[^\x00]*$"}

Name = Annotated[str, Meta(max_length=NAME_CHARS_MAX, examples=["Alice Liddell"], extra_json_schema=NO_NUL)]
Amount = Annotated[int, Meta(ge=-(2**63), le=INT64_MAX, description="In cents.", examples=[1250])]
Asset = Annotated[
    str,
    Meta(
        # In Python, $ is before a line break at the end, too; \Z means that to no other reader of the schema.
        pattern=ASSET_PATTERN + r"(?!\n)",
        description=ASSET_RULE,
        examples=["EUR/2"],
    ),
]
"""What an account is in, for ever. An amount of it is in its smallest unit, which is called a cent everywhere here."""
Limit = Annotated[
    int, Meta(ge=0, le=INT64_MAX, description="In cents: how far below zero the balance may go.", examples=[50000])
]
Description = Annotated[str, Meta(max_length=DESCRIPTION_CHARS_MAX, examples=["Salary"], extra_json_schema=NO_NUL)]
MetadataKey = Annotated[str, Meta(max_length=METADATA_KEY_CHARS_MAX, extra_json_schema=NO_NUL)]
MetadataValue = Annotated[str, Meta(max_length=METADATA_VALUE_CHARS_MAX, extra_json_schema=NO_NUL)]
Metadata = Annotated[
    dict[MetadataKey, MetadataValue],
    Meta(
        max_length=METADATA_PAIRS_MAX,
        description="The client's own, kept in the event.",
        examples=[{"invoice": "2026-117"}],
    ),
]
IfVersion = Annotated[
    int,
    Meta(
        ge=0,
        le=INT64_MAX,
        description="Rejected when the account named first has another version; 0 is that of one without events.",
        examples=[7],
    ),
]

ExpiresAt = Annotated[
    str,
    Meta(
        max_length=TIME_CHARS_MAX,
        description="RFC 3339, to the microsecond.",
        examples=["2030-01-01T12:00:00Z"],
        extra_json_schema={"format": "date-time"},
    ),
]

Status = Literal["open", "frozen", "closed"]

Reason = Literal[
    "account-already-exists",
    "account-closed",
    "account-frozen",
    "account-not-found",
    "amount-not-positive",
    "amount-over-hold",
    "asset-mismatch",
    "balance-limit-exceeded",
    "balance-not-zero",
    "counterpart-closed",
    "counterpart-frozen",
    "counterpart-not-found",
    "expiry-not-in-the-future",
    "hold-already-exists",
    "hold-expired",
    "hold-not-found",
    "holds-open",
    "insufficient-funds",
    "limit-in-use",
    "linked-command-rejected",
    "not-frozen",
    "same-account",
    "version-mismatch",
]


class Value(Struct, frozen=True, gc=False):
    """What is equal when its parts are.

    A value never refers back to itself, so the garbage collector need not visit it: that was a sixth of a batch's time.
    """


class Accepted(Value, frozen=True, kw_only=True):
    """An event of a command that took effect. What only some commands ask for comes last in it, or is not there."""

    metadata: Metadata | UnsetType = UNSET


class Rejected(Value, frozen=True, kw_only=True):
    """An event that changes nothing: what was asked for, and why not."""

    if_version: IfVersion | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET


class AccountCreated(Accepted, frozen=True, omit_defaults=True):
    """`asset` is left out when it is `USD` itself, and not a text that is equal."""

    type: ClassVar = "account-created"
    name: Name
    asset: Asset = USD


class AccountCreationRejected(Rejected, frozen=True, omit_defaults=True):
    type: ClassVar = "account-creation-rejected"
    name: Name
    reason: Reason
    asset: Asset = USD


class AmountDeposited(Accepted, frozen=True):
    type: ClassVar = "amount-deposited"
    amount: Amount
    description: Description


class DepositRejected(Rejected, frozen=True):
    type: ClassVar = "deposit-rejected"
    amount: Amount
    description: Description
    reason: Reason


class AmountWithdrawn(Accepted, frozen=True):
    type: ClassVar = "amount-withdrawn"
    amount: Amount
    description: Description


class WithdrawalRejected(Rejected, frozen=True):
    type: ClassVar = "withdrawal-rejected"
    amount: Amount
    description: Description
    reason: Reason


class MoneyTransferred(Accepted, frozen=True):
    """Out of the account that it is an event of first, into the account `to`: one event in the streams of both."""

    type: ClassVar = "money-transferred"
    to: AccountId
    amount: Amount
    description: Description


class TransferRejected(Rejected, frozen=True):
    type: ClassVar = "transfer-rejected"
    to: AccountId
    amount: Amount
    description: Description
    reason: Reason


class HoldPlaced(Accepted, frozen=True, omit_defaults=True):
    """So much of the account's money waits for a capture, for ever or until `expires_at`, which is written as an
    event's time is."""

    type: ClassVar = "hold-placed"
    hold_id: HoldId
    amount: Amount
    description: Description
    expires_at: ExpiresAt | None = None


class HoldRejected(Rejected, frozen=True, omit_defaults=True):
    type: ClassVar = "hold-rejected"
    hold_id: HoldId
    amount: Amount
    description: Description
    reason: Reason
    expires_at: ExpiresAt | None = None


class HoldCaptured(Accepted, frozen=True, omit_defaults=True):
    """`amount` of what was held goes into the account `to`, in one event in the streams of both, or out of the bank.
    The rest, `released`, is the account's own again."""

    type: ClassVar = "hold-captured"
    hold_id: HoldId
    amount: Amount
    released: Amount
    to: AccountId | None = None


class CaptureRejected(Rejected, frozen=True, omit_defaults=True):
    """Without `amount`, all that is held was asked for."""

    type: ClassVar = "capture-rejected"
    hold_id: HoldId
    reason: Reason
    amount: Amount | None = None
    to: AccountId | None = None


class HoldReleased(Accepted, frozen=True):
    type: ClassVar = "hold-released"
    hold_id: HoldId
    amount: Amount


class ReleaseRejected(Rejected, frozen=True):
    type: ClassVar = "release-rejected"
    hold_id: HoldId
    reason: Reason


class HoldExpired(Accepted, frozen=True):
    """Its time has come, and nobody had captured or released it."""

    type: ClassVar = "hold-expired"
    hold_id: HoldId
    amount: Amount


class OverdraftLimitSet(Accepted, frozen=True):
    type: ClassVar = "overdraft-limit-set"
    limit: Limit


class OverdraftLimitRejected(Rejected, frozen=True):
    type: ClassVar = "overdraft-limit-rejected"
    limit: Limit
    reason: Reason


class AccountFrozen(Accepted, frozen=True):
    type: ClassVar = "account-frozen"
    description: Description


class FreezeRejected(Rejected, frozen=True):
    type: ClassVar = "freeze-rejected"
    description: Description
    reason: Reason


class AccountUnfrozen(Accepted, frozen=True):
    type: ClassVar = "account-unfrozen"
    description: Description


class UnfreezeRejected(Rejected, frozen=True):
    type: ClassVar = "unfreeze-rejected"
    description: Description
    reason: Reason


class AccountClosed(Accepted, frozen=True):
    """For ever."""

    type: ClassVar = "account-closed"
    description: Description


class CloseRejected(Rejected, frozen=True):
    type: ClassVar = "close-rejected"
    description: Description
    reason: Reason


Event = (
    AccountCreated
    | AccountCreationRejected
    | AmountDeposited
    | DepositRejected
    | AmountWithdrawn
    | WithdrawalRejected
    | MoneyTransferred
    | TransferRejected
    | HoldPlaced
    | HoldRejected
    | HoldCaptured
    | CaptureRejected
    | HoldReleased
    | ReleaseRejected
    | HoldExpired
    | OverdraftLimitSet
    | OverdraftLimitRejected
    | AccountFrozen
    | FreezeRejected
    | AccountUnfrozen
    | UnfreezeRejected
    | AccountClosed
    | CloseRejected
)

HOLD_EVENTS = frozenset([HoldPlaced, HoldCaptured, HoldReleased, HoldExpired])
"""Those that begin or end a hold."""

Entry = tuple[AccountId, int, int]
"""An account, and the change of its balance and of what is held of it, in cents."""


def status_after(event: Event) -> Status | None:
    """What `event` makes of the account that it is of; None when it leaves that as it is."""
    match event:
        case AccountFrozen():
            return "frozen"
        case AccountCreated() | AccountUnfrozen():
            return "open"
        case AccountClosed():
            return "closed"
        case _:
            return None


def entries(account_id: AccountId, event: Event) -> tuple[Entry, ...]:
    """What `event`, which `account_id` is the subject of, moves: the one place that says so.

    The subject comes first; if another account follows, the event is in its stream too.
    """
    match event:
        case AmountDeposited():
            return ((account_id, event.amount, 0),)
        case MoneyTransferred():
            return (account_id, -event.amount, 0), (event.to, event.amount, 0)
        case AmountWithdrawn():
            return ((account_id, -event.amount, 0),)
        case HoldPlaced():
            return ((account_id, 0, event.amount),)
        case HoldCaptured():
            captured = (account_id, -event.amount, -event.amount - event.released)
            return (captured,) if event.to is None else (captured, (event.to, event.amount, 0))
        case HoldReleased() | HoldExpired():
            return ((account_id, 0, -event.amount),)
        case _:
            return ()


def written(moment: datetime) -> str:
    """As events have their `time`: RFC 3339 in UTC with microseconds, so that of two the later one is the greater text.

    Raises `OverflowError` for what is in no year from 1 to 9999 there.
    """
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


_Moment = Annotated[datetime, Meta(tz=True)]


def as_written(time: str) -> str:
    """A time of RFC 3339 with its offset as `written` has it, to the nearest microsecond. Raises ValueError."""
    try:
        return written(msgspec.convert(time, _Moment))
    except OverflowError as error:
        raise ValueError("it is in no year from 1 to 9999 of UTC") from error


EVENT_TYPES: dict[str, type[Event]] = {event.type: event for event in get_args(Event)}


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
    counterpart: str | UnsetType = UNSET
    counterpartversion: int | UnsetType = UNSET
    commandid: str
    traceparent: str | UnsetType = UNSET
    data: Event | Raw


class RecordedEvent(Value, frozen=True):
    """An event as a consumer sees it. `time` is RFC 3339 in UTC; `source` names the ledger it belongs to.

    `encoded` is what was written, in place in the batch: the bytes that the ledger's chain goes over. `counterpart` is
    the other account whose stream it is in too, there with `counterpart_version`.
    """

    position: Position
    account_id: AccountId
    version: Version
    source: str
    time: str
    event: Event
    encoded: Raw
    counterpart: AccountId | None = None
    counterpart_version: Version | None = None

    def streams(self) -> "tuple[tuple[AccountId, Version], ...]":
        """The accounts in whose streams it is, and its version there."""
        if self.counterpart is None or self.counterpart_version is None:
            return ((self.account_id, self.version),)
        return (self.account_id, self.version), (self.counterpart, self.counterpart_version)


class Envelope(Value, frozen=True):
    """What of an event's envelope only those need who keep the whole of it. `data` is as it was written."""

    type: str
    id: str
    commandid: str
    data: Raw
    traceparent: Annotated[str, Meta(min_length=1)] | None = None


class UnreadableEvent(ValueError):
    """Bytes that are no event of this ledger's contract."""


class _Received(Value, frozen=True, tag_field="type"):
    """What is read of an envelope; `data` is of the one event type in each of the classes made from this one.

    Those of events in two streams have a counterpart; a capture may be in one or in two.
    """

    specversion: Literal["1.0"]
    source: Annotated[str, Meta(max_length=SOURCE_CHARS_MAX)]
    subject: AccountId
    time: Annotated[str, Meta(max_length=TIME_CHARS_MAX)]
    sequence: Annotated[str, Meta(min_length=20, max_length=20)]
    accountversion: Annotated[Version, Meta(ge=1, le=INT64_MAX)]
    data: Event


class _ReceivedByTwo(_Received, frozen=True):
    counterpart: AccountId
    counterpartversion: Annotated[Version, Meta(ge=1, le=INT64_MAX)]


class _ReceivedByOneOrTwo(_Received, frozen=True):
    counterpart: AccountId | None = None
    counterpartversion: Annotated[Version, Meta(ge=1, le=INT64_MAX)] | None = None


_BASES: dict[type[Event], type[_Received]] = {MoneyTransferred: _ReceivedByTwo, HoldCaptured: _ReceivedByOneOrTwo}


class EarlierForm(NamedTuple):
    """What an event of today was written as once."""

    event: type[Event]
    data: type[Value]
    upcast: Callable[[Any], Event]
    """The event of today that says what such data says."""


UPCASTS: dict[str, EarlierForm] = {}
"""By the types that were written once, and are no more: what is of another meaning or shape is written as another type.

An event that has only gained members that may be missing is of the same type, and needs nothing here.
"""


def batch_decoder(upcasts: Mapping[str, EarlierForm]) -> Callable[[bytes], list[_Received]]:
    """Whatever is read of events comes out of it as an event of today; for what was written as one, that is free."""

    def received(name: str, event: type[Event], data: type[Value], **methods: Callable[[_Received], None]) -> type:
        return msgspec.defstruct(
            "_Received",
            [("data", data)],
            bases=(_BASES.get(event, _Received),),
            namespace=methods,
            tag=name,
            frozen=True,
            gc=False,
            kw_only=True,
        )

    def upcasting(upcast: Callable[[Any], Event]) -> Callable[[_Received], None]:
        return lambda one: msgspec.structs.force_setattr(one, "data", upcast(one.data))

    of_today = [received(name, event, event) for name, event in EVENT_TYPES.items()]
    of_earlier = [
        received(name, form.event, form.data, __post_init__=upcasting(form.upcast)) for name, form in upcasts.items()
    ]
    return msgspec.json.Decoder(list[reduce(or_, of_today + of_earlier)]).decode  # type: ignore[misc]


encode_event: Callable[[CloudEvent], bytes] = msgspec.json.Encoder().encode
_decode_batch = batch_decoder(UPCASTS)
_decode_envelope = msgspec.json.Decoder(Envelope).decode
_split_batch = msgspec.json.Decoder(list[Raw]).decode


EVENT_SEPARATOR = b",\n"
"""In a batch: it has a line for each event, and no event has a line break in it."""


def join_events(encoded: Sequence[bytes]) -> bytes:
    """A batch in the CloudEvents JSON batch format, from events that are encoded already."""
    return b"[" + EVENT_SEPARATOR.join(encoded) + b"]"


def decode_events(batch: bytes) -> list[RecordedEvent]:
    """Read a batch, in the order in which it was written.

    Unknown attributes are passed over (CloudEvents allows extensions). An unknown event *type* is
    refused, since nobody can tell what it would do to a balance: raises `UnreadableEvent`, and nothing
    else, whatever the bytes.
    """
    try:
        received = _decode_batch(batch)
        events = [
            RecordedEvent(
                Position(int(one.sequence)),
                one.subject,
                one.accountversion,
                one.source,
                one.time,
                one.data,
                encoded,
                getattr(one, "counterpart", None),
                getattr(one, "counterpartversion", None),
            )
            for one, encoded in zip(received, _split_batch(batch), strict=True)
        ]
    except (ValueError, RecursionError) as error:
        raise _unreadable(error) from error
    _check(received, events)
    # PostgreSQL's text cannot hold U+0000, and JSON only when it is escaped. Few events have an escape.
    if b"\\" in batch and any(map(_has_nul, events)):
        raise UnreadableEvent(HAS_NUL)
    return events


def read_envelope(recorded: RecordedEvent) -> Envelope:
    """Read on in an event that was read: most consumers have no use for it. Raises `UnreadableEvent`."""
    try:
        envelope = _decode_envelope(recorded.encoded)
    except (ValueError, RecursionError) as error:
        raise _unreadable(error) from error
    if "\0" in envelope.commandid or "\0" in envelope.id or "\0" in (envelope.traceparent or ""):
        raise UnreadableEvent(HAS_NUL)
    return envelope


def _unreadable(error: Exception) -> UnreadableEvent:
    return UnreadableEvent(ascii(str(error)[:REASON_CHARS_MAX])[1:-1])


def _check(received: list[_Received], events: list[RecordedEvent]) -> None:
    """What would take as long as all the rest of the reading as patterns of msgspec's, event by event."""
    in_two_streams = [event for event in events if event.counterpart is not None or type(event.event) is HoldCaptured]
    account_ids = {event.account_id for event in events}
    account_ids.update([event.counterpart for event in in_two_streams if event.counterpart is not None])
    for account_id in account_ids:
        if not is_account_id(account_id):
            raise UnreadableEvent(f"{str(account_id)[:65]!a} is no account id")
    for event in in_two_streams:
        moved = [account_id for account_id, _, _ in entries(event.account_id, event.event)]
        has_version = event.counterpart_version is not None
        if moved != [event.account_id, event.counterpart][: 1 + has_version] or event.counterpart == event.account_id:
            raise UnreadableEvent("its counterpart is not the other account that it moves money into")
    if events:
        digits = "".join([one.sequence for one in received])
        positions = [event.position for event in events]
        if not (digits.isascii() and digits.isdecimal() and 0 < min(positions) <= max(positions) <= INT64_MAX):
            raise UnreadableEvent("a sequence is not a position in 20 digits")


def _has_nul(recorded: RecordedEvent) -> bool:
    metadata = recorded.event.metadata or {}
    values = (recorded.source, recorded.time, *msgspec.structs.astuple(recorded.event), *metadata, *metadata.values())
    return any(isinstance(value, str) and "\0" in value for value in values)
