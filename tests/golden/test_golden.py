"""What was ever written is read for ever, as it was meant; and what is written changes its shape in the open."""

import json
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from shared import events
from shared.events import (
    EVENT_TYPES,
    UPCASTS,
    AccountCreated,
    AccountCreationRejected,
    AccountId,
    AmountDeposited,
    AmountWithdrawn,
    CloudEvent,
    DepositRejected,
    EarlierForm,
    Event,
    MoneyTransferred,
    Reason,
    UnreadableEvent,
    Value,
    WithdrawalRejected,
    batch_decoder,
    decode_events,
    encode_event,
)
from tests.examples import ALICE, BOB, DEPOSITED, INT64_MAX, SOURCE, cloud_event
from tests.golden.golden import ADD, Golden, Meaning, decode, goldens, meaning_of, missing, shape_of

LINES = [
    pytest.param(event_type, golden, id=f"{event_type}-{number}")
    for event_type, lines in goldens().items()
    for number, golden in enumerate(lines, 1)
]


def seen(members: Callable[[Golden], list[str]]) -> set[str]:
    return {member for lines in goldens().values() for golden in lines for member in members(golden)}


@pytest.mark.parametrize(("event_type", "golden"), LINES)
def test_what_was_written_is_read_as_it_was_meant(event_type: str, golden: Golden) -> None:
    assert golden.attributes["type"] == event_type
    assert meaning_of(decode(golden.encoded)) == golden.meaning


@pytest.mark.parametrize(("event_type", "golden"), LINES)
def test_what_was_written_is_written_again_to_the_byte(event_type: str, golden: Golden) -> None:
    if event_type not in UPCASTS:
        attributes: dict[str, Any] = {**golden.attributes, "data": decode(golden.encoded).event}
        assert encode_event(CloudEvent(**attributes)) == bytes(golden.encoded)


def test_what_is_written_today_has_a_golden_line() -> None:
    assert {event_type: golden.meaning.data for event_type, golden in missing()} == {}, ADD


def test_every_type_that_is_read_has_golden_lines() -> None:
    assert goldens().keys() == EVENT_TYPES.keys() | UPCASTS.keys()


@pytest.mark.parametrize("event", EVENT_TYPES.values())
def test_golden_lines_show_every_member(event: type[Event]) -> None:
    shown = {member for golden in goldens().get(event.type, []) for member in golden.attributes["data"]}
    assert shown == {*shape_of(event)["properties"]}, ADD


def test_golden_lines_show_every_reason_and_attribute() -> None:
    assert seen(lambda golden: [golden.meaning.data.get("reason", "same-account")]) == {*get_args(Reason)}, ADD
    assert seen(lambda golden: [*golden.attributes]) == {*CloudEvent.__struct_fields__}, ADD


Short = Annotated[str, Meta(max_length=10)]


@pytest.mark.parametrize(
    "changed",
    [
        [("name", Short), ("more", str)],
        [("name", Short), ("more", str, "")],
        [("name", Short, "")],
        [("name", Short | None)],
        [("name", str)],
        [("name", Annotated[str, Meta(max_length=9)])],
        [("name", int)],
        [("named", Short)],
        [],
    ],
)
def test_a_change_of_shape_is_seen(changed: list[Any]) -> None:
    assert shape_of(msgspec.defstruct("Created", changed)) != shape_of(msgspec.defstruct("Created", [("name", Short)]))


class MoneyPaidIn(Value, frozen=True):
    type: ClassVar = "money-paid-in"
    euros: int
    cents: Annotated[int, Meta(ge=0, lt=100)]


class MoneySent(Value, frozen=True):
    type: ClassVar = "money-sent"
    recipient: AccountId
    euros: int


EARLIER = {
    MoneyPaidIn.type: EarlierForm(
        AmountDeposited, MoneyPaidIn, lambda data: AmountDeposited(data.euros * 100 + data.cents, "")
    ),
    MoneySent.type: EarlierForm(
        MoneyTransferred, MoneySent, lambda data: MoneyTransferred(data.recipient, data.euros * 100, "")
    ),
}


def written_earlier(event_type: str, data: dict[str, Any], **attributes: Any) -> dict[str, Any]:
    written: dict[str, Any] = json.loads(encode_event(cloud_event(7, DEPOSITED, version=3)))
    return {**written, "type": event_type, "data": data, **attributes}


@pytest.fixture
def _earlier_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_decode_batch", batch_decoder(EARLIER))


PAID_IN = written_earlier("money-paid-in", {"euros": 12, "cents": 34})
SENT = written_earlier("money-sent", {"recipient": "bob", "euros": 5}, counterpart="bob", counterpartversion=2)
NOW = json.loads(encode_event(cloud_event(8, DEPOSITED)))


@pytest.mark.usefixtures("_earlier_forms")
def test_an_event_of_an_earlier_form_is_read_as_what_it_is_today() -> None:
    batch = json.dumps([PAID_IN, SENT, NOW], separators=(",", ":")).encode()
    paid_in, sent, now = decode_events(batch)
    assert meaning_of(paid_in) == Meaning(
        [(ALICE, 3)], "amount-deposited", {"amount": 1234, "description": ""}, {ALICE: {"balance": 1234}}
    )
    assert meaning_of(sent) == Meaning(
        [(ALICE, 3), (BOB, 2)],
        "money-transferred",
        {"to": "bob", "amount": 500, "description": ""},
        {ALICE: {"balance": -500}, BOB: {"balance": 500}},
    )
    assert now.event == DEPOSITED
    assert batch == b"[%b]" % b",".join(bytes(one.encoded) for one in (paid_in, sent, now))


@pytest.mark.usefixtures("_earlier_forms")
@pytest.mark.parametrize(
    "spoiled",
    [
        {**PAID_IN, "data": {"amount": 1234, "description": ""}},
        {**PAID_IN, "data": {"euros": 12, "cents": 100}},
        {**PAID_IN, "type": "amount-deposited"},
        {**SENT, "counterpart": "carol"},
        {name: value for name, value in SENT.items() if name != "counterpartversion"},
    ],
    ids=str,
)
def test_an_earlier_form_is_read_as_strictly_as_one_of_today(spoiled: dict[str, Any]) -> None:
    with pytest.raises(UnreadableEvent):
        decode_events(json.dumps([spoiled]).encode())


def test_an_earlier_form_that_nobody_wrote_is_unreadable() -> None:
    with pytest.raises(UnreadableEvent, match="money-paid-in"):
        decode_events(json.dumps([PAID_IN]).encode())


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50)
AMOUNTS = st.integers(-(2**63), INT64_MAX)
REASONS = st.sampled_from(get_args(Reason))
OF_THE_ORIGINAL_SYSTEM = st.one_of(
    st.builds(AccountCreated, TEXTS),
    st.builds(AccountCreationRejected, TEXTS, REASONS),
    st.builds(AmountDeposited, AMOUNTS, TEXTS),
    st.builds(DepositRejected, AMOUNTS, TEXTS, REASONS),
    st.builds(AmountWithdrawn, AMOUNTS, TEXTS),
    st.builds(WithdrawalRejected, AMOUNTS, TEXTS, REASONS),
)


@given(OF_THE_ORIGINAL_SYSTEM)
def test_the_first_six_are_what_they_were_to_the_byte(event: Event) -> None:
    names = ["name"] if "account" in event.type else ["amount", "description"]
    data = {name: getattr(event, name) for name in [*names, *(["reason"] if "rejected" in event.type else [])]}
    expected = {
        "specversion": "1.0",
        "id": "event-7",
        "source": SOURCE,
        "type": event.type,
        "subject": "alice",
        "time": "2026-01-01T00:00:07.000000Z",
        "datacontenttype": "application/json",
        "sequence": "00000000000000000007",
        "accountversion": 3,
        "commandid": "command-7",
        "data": data,
    }
    assert (
        encode_event(cloud_event(7, event, version=3))
        == json.dumps(expected, separators=(",", ":"), ensure_ascii=False).encode()
    )
