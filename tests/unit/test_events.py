"""The written form of events: exactly the CloudEvents of DESIGN.md, and nothing else is read."""

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from shared.events import (
    EVENT_TYPES,
    AccountCreated,
    AccountId,
    AmountDeposited,
    CaptureRejected,
    DepositRejected,
    Event,
    HoldPlaced,
    Rejected,
    UnreadableEvent,
    decode_events,
    encode_event,
    join_events,
)
from shared.events import written as written_time
from tests.examples import (
    CAPTURED,
    CAPTURED_TO_BOB,
    CREATED_IN_EUR,
    CREATION_REJECTED,
    DEPOSIT_REJECTED,
    DEPOSITED,
    EVENTS,
    HOLD,
    IN_TWO_STREAMS,
    INT64_MAX,
    SOURCE,
    TRACE,
    TRANSFERRED,
    at,
    cloud_event,
    logged,
    recorded,
)

Attributes = dict[str, Any]

DATA: dict[str, Attributes] = {
    "account-created": {"name": "Alice"},
    "account-creation-rejected": {"name": "Alice", "reason": "account-already-exists"},
    "amount-deposited": {"amount": 100, "description": "salary"},
    "deposit-rejected": {"amount": 0, "description": "salary", "reason": "amount-not-positive"},
    "amount-withdrawn": {"amount": 30, "description": "rent"},
    "withdrawal-rejected": {"amount": 1000, "description": "rent", "reason": "insufficient-funds"},
    "money-transferred": {"to": "bob", "amount": 30, "description": "rent"},
    "transfer-rejected": {"to": "bob", "amount": 1000, "description": "rent", "reason": "insufficient-funds"},
    "hold-placed": {"hold_id": "order-7", "amount": 60, "description": "books"},
    "hold-rejected": {
        "hold_id": "order-7",
        "amount": 1000,
        "description": "books",
        "reason": "insufficient-funds",
    },
    "hold-captured": {"hold_id": "order-7", "amount": 40, "released": 20, "to": "bob"},
    "capture-rejected": {"hold_id": "order-7", "reason": "hold-not-found"},
    "hold-released": {"hold_id": "order-7", "amount": 60},
    "release-rejected": {"hold_id": "order-7", "reason": "hold-not-found"},
    "hold-expired": {"hold_id": "order-7", "amount": 60},
    "overdraft-limit-set": {"limit": 50},
    "overdraft-limit-rejected": {"limit": 0, "reason": "limit-in-use"},
    "account-frozen": {"description": "court order"},
    "freeze-rejected": {"description": "court order", "reason": "account-frozen"},
    "account-unfrozen": {"description": "lifted"},
    "unfreeze-rejected": {"description": "lifted", "reason": "not-frozen"},
    "account-closed": {"description": "moved away"},
    "close-rejected": {"description": "moved away", "reason": "balance-not-zero"},
}


def written(event: Event = DEPOSITED) -> Attributes:
    attributes: Attributes = json.loads(encode_event(cloud_event(7, event, version=3)))
    return attributes


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_is_written_as_a_cloudevent(event: Event) -> None:
    event_type = event.type
    assert written(event) == {
        "specversion": "1.0",
        "id": "event-7",
        "source": SOURCE,
        "type": event_type,
        "subject": "alice",
        "time": "2026-01-01T00:00:07.000000Z",
        "datacontenttype": "application/json",
        "sequence": "00000000000000000007",
        "accountversion": 3,
        **({"counterpart": "bob", "counterpartversion": 7} if event in IN_TWO_STREAMS else {}),
        "commandid": "command-7",
        "data": DATA[event_type],
    }


def test_the_first_events_are_written_as_they_always_were() -> None:
    """Whatever a later event can say more."""
    for event, data in (
        (AccountCreated("Alice"), b'{"name":"Alice"}'),
        (CREATION_REJECTED, b'{"name":"Alice","reason":"account-already-exists"}'),
        (CREATED_IN_EUR, b'{"name":"Alice","asset":"EUR/2"}'),
    ):
        assert encode_event(cloud_event(7, event, version=3)) == (
            b'{"specversion":"1.0","id":"event-7","source":"/ledgers/example","type":"%b","subject":"alice",'
            b'"time":"2026-01-01T00:00:07.000000Z","datacontenttype":"application/json",'
            b'"sequence":"00000000000000000007","accountversion":3,"commandid":"command-7","data":%b}'
            % (event.type.encode(), data)
        )


@pytest.mark.parametrize(
    ("data", "asset"), [({}, "USD/2"), ({"asset": "USD/2"}, "USD/2"), ({"asset": "A" * 16 + "/0"}, "A" * 16 + "/0")]
)
def test_an_account_of_which_nothing_else_is_said_is_in_usd(data: Attributes, asset: str) -> None:
    (read,) = decode_events(json.dumps([{**written(AccountCreated("Alice")), "data": {"name": "A", **data}}]).encode())
    assert read.event == AccountCreated("A", asset)


def test_the_examples_hold_every_event_type() -> None:
    assert [event.type for event in EVENTS] == list(DATA) == list(EVENT_TYPES)


def test_traceparent_is_written_when_it_is_given() -> None:
    attributes = json.loads(encode_event(cloud_event(7, DEPOSITED, version=3, traceparent=TRACE)))
    assert attributes == {**written(), "traceparent": TRACE}


@pytest.mark.parametrize("event", EVENTS)
def test_what_is_written_is_read_back(event: Event) -> None:
    assert decode_events(join_events([encode_event(cloud_event(7, event, version=3))])) == [
        recorded(7, event, version=3)
    ]


METADATA = {f"key-{number}" + "k" * (64 - len(f"key-{number}")): "\U0001f3e6" * 200 for number in range(20)}
"""As much as there may be."""
NOT_METADATA: list[object] = [None, [], "x", 5, {"a": 1}, {"a": None}, {"a": {}}, {"a": "b\0"}]


@pytest.mark.parametrize("event", EVENTS)
def test_what_only_some_commands_ask_for_comes_last_and_else_is_not_there(event: Event) -> None:
    plain, read = encode_event(cloud_event(7, event)), recorded(7, event)
    named = {"if_version": INT64_MAX} if isinstance(event, Rejected) else {}
    asked = replace(event, metadata=METADATA, **named)
    whole = encode_event(cloud_event(7, asked))
    assert whole.startswith(plain.removesuffix(b"}}"))
    assert json.loads(b"{" + whole.removeprefix(plain.removesuffix(b"}}"))[1:-1]) == {**named, "metadata": METADATA}
    assert list(json.loads(whole)["data"]) == [*DATA[event.type], *named, "metadata"]
    assert decode_events(join_events([whole])) == [replace(read, event=asked, encoded=Raw(whole))]


@pytest.mark.parametrize(
    "asked",
    [
        *({"metadata": value} for value in NOT_METADATA),
        {"metadata": {"a\0": "b"}},
        {"metadata": {"k" * 65: ""}},
        {"metadata": {"": "v" * 201}},
        {"metadata": {str(number): "" for number in range(21)}},
        *({"if_version": value} for value in (-1, 2**63, 1.5, "1", None, True)),
    ],
    ids=lambda asked: str(asked)[:40],
)
def test_what_a_command_could_not_have_asked_for_is_unreadable(asked: Attributes) -> None:
    attributes = written(DEPOSIT_REJECTED)
    attributes["data"].update(asked)
    with pytest.raises(UnreadableEvent):
        decode_events(json.dumps([written(), attributes]).encode())


def test_a_batch_is_read_in_the_order_in_which_it_was_written() -> None:
    encoded = [logged(position, event) for position, event in enumerate(EVENTS, 1)]
    assert decode_events(join_events(encoded)) == [recorded(n, event) for n, event in enumerate(EVENTS, 1)]
    assert decode_events(join_events([])) == []


@pytest.mark.parametrize("name", ["Zoë 🏦 Ünï‎cødé", 'quote " and \\ backslash', "line\nbreak\ttab"])
def test_any_text_is_read_back_as_it_was(name: str) -> None:
    event = AmountDeposited(1, name)
    (read,) = decode_events(join_events([encode_event(cloud_event(7, event, version=3))]))
    assert read.event == event


def test_unknown_attributes_are_passed_over() -> None:
    extended = {**written(), "partitionkey": "alice", "data": {**DATA["amount-deposited"], "currency": "EUR"}}
    (read,) = decode_events(json.dumps([extended]).encode())
    assert read == replace(recorded(7, DEPOSITED, version=3), encoded=Raw(json.dumps(extended).encode()))


@pytest.mark.parametrize(
    "batch",
    [
        b"",
        b"not JSON",
        b"null",
        b"{}",
        json.dumps(written()).encode(),
        b"[1]",
        b"[{}]",
        b"[null]",
        json.dumps([written()]).encode()[:-1],
        json.dumps([written()]).encode().replace(b"alice", b"al\xffce"),
        json.dumps([written()]).encode().replace(b"salary", b"sal\xffry"),
        json.dumps([written()]).encode().replace(b"salary", b"sal\x00ry"),
        json.dumps([written()]).encode().replace(b"salary", b"sal\\u0000ry"),
        json.dumps([written()]).encode().replace(b"00:00:07", b"00:\\u0000:07"),
        json.dumps([written()]).encode().replace(b"salary", b"sal\\ud800ry"),
        json.dumps([written()]).encode().replace(b"salary", b"sal\\udc00\\ud800ry"),
        json.dumps([written()]).encode().replace(b"100", b"1" + b"0" * 30),
        json.dumps([written()]).encode().replace(b"100", b"9" * 100_000),
        json.dumps([written()]).encode().replace(b"100", b"1e999"),
        json.dumps([written()]).encode().replace(b"100", b"[" * 5_000),
        json.dumps([written()]).encode().replace(b"100", b"[" * 5_000 + b"]" * 5_000),
        json.dumps([written()])
        .encode()
        .replace(b'{"specversion"', b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b',"specversion"'),
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
    ids=lambda batch: repr(batch[:30]),
)
def test_a_batch_that_is_no_list_of_events_is_unreadable(batch: bytes) -> None:
    with pytest.raises(UnreadableEvent):
        decode_events(batch)


MISSING = None
ATTRIBUTES_READ = ["specversion", "source", "type", "subject", "time", "sequence", "accountversion", "data"]


@pytest.mark.parametrize(
    "spoiled",
    [
        *({name: MISSING} for name in ATTRIBUTES_READ),
        {"specversion": "0.3"},
        {"type": "account-merged"},
        {"type": "AmountDeposited"},
        {"type": 1},
        {"type": "account-created"},
        {"type": "deposit-rejected"},
        {"source": 1},
        {"subject": 1},
        {"time": 1767225600},
        {"sequence": 7},
        {"sequence": ""},
        {"sequence": "seven"},
        {"sequence": "7.0"},
        {"sequence": "-0000000000000000007"},
        {"sequence": "00000000000000000000"},
        {"sequence": "0000000000000000007"},
        {"sequence": "+0000000000000000007"},
        {"sequence": " 0000000000000000007"},
        {"sequence": "0000000000000000000\u0667"},
        {"sequence": f"{2**63:020d}"},
        {"source": "/ledgers/" + "x" * 200},
        {"subject": ""},
        {"subject": "al ice"},
        {"subject": "alice\n"},
        {"subject": "x" * 65},
        {"time": "x" * 41},
        {"accountversion": 0},
        {"accountversion": 2**63},
        {"data": {"amount": 2**63, "description": ""}},
        {"data": {"amount": -(2**63) - 1, "description": ""}},
        {"data": {"amount": 1, "description": "x" * 1001}},
        {"type": "account-created", "data": {"name": "x" * 201}},
        *(
            {"type": "account-created", "data": {"name": "Alice", "asset": asset}}
            for asset in (
                "",
                "USD",
                "USD/",
                "usd/2",
                "USD/100",
                "USD/02",
                "1SD/2",
                "A" * 17 + "/2",
                "USD/2\n",
                "USD/\u0662",
                None,
            )
        ),
        {"source": "/ledgers/another", "type": "account-merged"},
        {"accountversion": "3"},
        {"accountversion": 3.5},
        {"data": []},
        {"data": "eyJhbW91bnQiOjF9"},
        {"data": {"amount": 100}},
        {"data": {"description": ""}},
        {"data": {"amount": "100", "description": ""}},
        {"data": {"amount": 100.5, "description": ""}},
        {"data": {"amount": True, "description": ""}},
        {"data": {"amount": None, "description": ""}},
        {"data": {"amount": 100, "description": None}},
        {"type": "deposit-rejected", "data": {"amount": 1, "description": "", "reason": "on-a-whim"}},
    ],
    ids=str,
)
def test_an_event_outside_the_contract_is_unreadable(spoiled: Attributes) -> None:
    event = {name: value for name, value in {**written(), **spoiled}.items() if value is not MISSING}
    with pytest.raises(UnreadableEvent):
        decode_events(json.dumps([written(), event]).encode())


@pytest.mark.parametrize(
    "spoiled",
    [
        {"counterpart": MISSING},
        {"counterpartversion": MISSING},
        {"counterpart": "carol"},
        {"counterpart": "alice"},
        {"counterpart": "bob\n"},
        {"counterpart": 1},
        {"counterpartversion": 0},
        {"counterpartversion": 2**63},
        {"counterpartversion": "7"},
        {"subject": "bob"},
        {"data": {"to": "bob\n", "amount": 30, "description": ""}, "counterpart": "bob\n"},
        {"data": {"amount": 30, "description": ""}},
    ],
    ids=str,
)
def test_a_transfer_is_into_the_account_whose_stream_it_is_in(spoiled: Attributes) -> None:
    event = {name: value for name, value in {**written(TRANSFERRED), **spoiled}.items() if value is not MISSING}
    with pytest.raises(UnreadableEvent):
        decode_events(json.dumps([written(TRANSFERRED), event]).encode())


@pytest.mark.parametrize(
    "spoiled",
    [
        {"counterpart": MISSING},
        {"counterpartversion": MISSING},
        {"counterpart": MISSING, "counterpartversion": MISSING},
        {"counterpart": "carol"},
        {"counterpart": "alice"},
        {"counterpartversion": 0},
        {"subject": "bob"},
        {"data": {"hold_id": "order-7", "amount": 40, "released": 20}},
        {"data": {"hold_id": "order-7", "amount": 40, "released": 20, "to": "alice"}, "counterpart": "alice"},
        {"data": {"amount": 40, "released": 20, "to": "bob"}},
    ],
    ids=str,
)
def test_a_capture_is_in_the_streams_of_all_whose_money_it_moves(spoiled: Attributes) -> None:
    event = {name: value for name, value in {**written(CAPTURED_TO_BOB), **spoiled}.items() if value is not MISSING}
    with pytest.raises(UnreadableEvent):
        decode_events(json.dumps([written(CAPTURED_TO_BOB), event]).encode())


def test_a_capture_out_of_the_bank_is_in_one_stream() -> None:
    assert recorded(7, CAPTURED).streams() == (("alice", 7),)
    spoiled = {**written(CAPTURED), "counterpart": "bob", "counterpartversion": 7}
    with pytest.raises(UnreadableEvent):
        decode_events(json.dumps([spoiled]).encode())


def test_what_a_command_left_out_is_left_out_of_its_event() -> None:
    assert written(HoldPlaced(HOLD, 60, "books", at(9)))["data"]["expires_at"] == at(9)
    assert written(CaptureRejected(HOLD, "hold-not-found", 0))["data"]["amount"] == 0
    assert "to" not in written(CAPTURED)["data"]


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 11, 23, 12, tzinfo=UTC), "2026-11-23T12:00:00.000000Z"),
        (datetime(2026, 11, 23, 12, 0, 0, 1, timezone(timedelta(hours=1))), "2026-11-23T11:00:00.000001Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000000Z"),
        (datetime.max.replace(tzinfo=UTC), "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_times_are_written_so_that_their_order_is_that_of_their_texts(moment: datetime, text: str) -> None:
    assert written_time(moment) == text


def test_an_unknown_type_is_named() -> None:
    with pytest.raises(UnreadableEvent, match="account-merged"):
        decode_events(json.dumps([{**written(), "type": "account-merged"}]).encode())


def test_what_an_unreadable_event_says_is_short_and_printable() -> None:
    for spoiled in ({"type": "\u202e\n" * 20}, {"specversion": "\u202e\n" * 100_000}, {"subject": "\n" * 100_000}):
        with pytest.raises(UnreadableEvent) as caught:
            decode_events(json.dumps([{**written(), **spoiled}]).encode())
        said = str(caught.value)
        assert len(said) < 1000
        assert said.isascii()
        assert said.isprintable()


@pytest.mark.parametrize(
    "event",
    [
        AmountDeposited(INT64_MAX, "\U0001f3e6" * 1000),
        DepositRejected(-(2**63), "", "amount-not-positive"),
        AccountCreated("\x01" * 200),
    ],
    ids=["largest", "smallest", "escaped"],
)
def test_all_that_a_command_may_hold_is_read_back(event: Event) -> None:
    largest = replace(cloud_event(7, event, version=3), subject=AccountId("x" * 64), sequence=f"{INT64_MAX:020d}")
    (read,) = decode_events(join_events([encode_event(largest)]))
    assert (read.event, read.position) == (event, INT64_MAX)


@given(st.binary(max_size=300), st.integers(0, 500), st.integers(0, 100))
def test_whatever_the_bytes_they_are_read_or_unreadable(garbage: bytes, start: int, length: int) -> None:
    whole = json.dumps([written()]).encode()
    for batch in (garbage, whole[:start] + garbage + whole[start + length :]):
        with suppress(UnreadableEvent):
            decode_events(batch)
