"""What the view `history` holds, over every view store."""

import pytest
from msgspec import UNSET
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from projection_service.projection import BrokenLedger, Projection
from projection_service.view_store import Read, ViewStore
from projection_service.views import VIEWS
from projection_service.views.history.tables import read_history, read_stream
from shared.chain import extend
from shared.events import (
    AccountCreated,
    AccountId,
    AmountDeposited,
    Event,
    HoldId,
    HoldPlaced,
    Position,
    Version,
    decode_events,
    encode_event,
    join_events,
)
from tests.examples import ALICE, BOB, CREATED, DEPOSITED, EVENTS, INT64_MAX, TRANSFERRED, at, log_of

ODD = "Zoë 🏦 'quoted' \"twice\" \\ \\u0000 \n \x7f"
EVER = Position(INT64_MAX)


# Enough for every event that takes something.
FUNDS: list[Event] = [AmountDeposited(1000, "funds"), HoldPlaced(HoldId("order-8"), 120, "")]
LOG = [
    encode_event(replace(event, id=f"{event.id}-{ODD}", traceparent="00-trace-01" if number % 2 else UNSET))
    for number, event in enumerate(
        log_of(
            [
                (BOB, AccountCreated("Bob")),
                *((ALICE, event) for event in [EVENTS[0], *FUNDS, *EVENTS[1:]]),
                (BOB, DEPOSITED),
            ]
        )
    )
]
LAST = len(LOG)
OF_ALICE = [event for event in LOG if b'"subject":"alice"' in event]
OF_BOB = [event for event in LOG if b'"subject":"bob"' in event or b'"counterpart":"bob"' in event]


async def fold(store: ViewStore, *pages: list[bytes]) -> Projection:
    views = [VIEWS[name] for name in ("accounts", "reserve", "history")]
    projection = Projection(store, views, await store.checkpoint(), CollectorRegistry())
    for page in pages:
        await apply(projection, page)
    return projection


async def apply(projection: Projection, events: list[bytes]) -> None:
    await projection.apply(decode_events(join_events(events)), extend(projection.at.chain, events))


async def test_every_type_of_event_is_given_back_byte_for_byte(view_store: ViewStore) -> None:
    await fold(view_store, LOG[:4], LOG[4:])
    assert await read_history(view_store.read, ALICE, Version(0), 100, EVER) == (OF_ALICE, LAST)
    assert await read_history(view_store.read, BOB, Version(0), 100, EVER) == (OF_BOB, LAST)


async def test_it_is_read_from_a_version_on_up_to_a_position(view_store: ViewStore) -> None:
    assert await read_history(view_store.read, ALICE, Version(0), 100, EVER) == ([], 0)
    await fold(view_store, LOG)
    assert await read_history(view_store.read, ALICE, Version(2), 3, EVER) == (OF_ALICE[2:5], LAST)
    assert await read_history(view_store.read, ALICE, Version(2), 100, Position(4)) == (OF_ALICE[2:3], LAST)
    assert await read_history(view_store.read, ALICE, Version(len(OF_ALICE)), 100, EVER) == ([], LAST)
    assert await read_history(view_store.read, AccountId("unknown"), Version(0), 100, EVER) == ([], LAST)


async def test_it_is_read_in_the_order_of_the_log(view_store: ViewStore) -> None:
    """Versions without holes, as in a log; a transfer is in both accounts' streams."""
    assert await read_stream(view_store.read, None, Position(0), 100) == ([], 0)
    assert await read_stream(view_store.read, ALICE, Position(0), 100) == ([], 0)
    begin: list[tuple[AccountId, Event]] = [(BOB, CREATED), (ALICE, CREATED), (ALICE, AmountDeposited(900, ""))]
    pair: list[tuple[AccountId, Event]] = [(ALICE, TRANSFERRED), (BOB, DEPOSITED)]
    events = [encode_event(event) for event in log_of([*begin, *pair * 30])]
    everything = list(enumerate(events, 1))
    of_bob = everything[:1] + everything[3:]
    await fold(view_store, events)
    for after in range(len(events) + 2):
        for account_id, known in ((None, everything), (ALICE, everything[1:3] + everything[3::2]), (BOB, of_bob)):
            rest = [(position, event) for position, event in known if position > after]
            assert await read_stream(view_store.read, account_id, Position(after), 100) == (rest, len(events))
            if rest:
                first = rest[:1], rest[0][0]
                assert await read_stream(view_store.read, account_id, Position(after), 1) == first
    assert await read_stream(view_store.read, None, EVER, 100) == ([], len(events))


async def test_a_person_can_ask_it_in_sql(view_store: ViewStore) -> None:
    await fold(view_store, LOG)
    deposits = Read.in_both("""
        SELECT account_id, sum(amount), min(time), max(data ->> 'description') FROM history
        WHERE type = 'amount-deposited' GROUP BY account_id ORDER BY account_id
    """)
    transfers = Read.in_both("""
        SELECT account_id, other_account_id, other_is_subject, amount FROM history
        WHERE type = 'money-transferred' ORDER BY account_id
    """)
    assert await view_store.read(transfers) == [("alice", "bob", False, 30), ("bob", "alice", True, 30)]
    assert await view_store.read(deposits) == [("alice", 1100, at(3), "salary"), ("bob", 100, at(LAST), "salary")]


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (b'"id":"event-', b'"id":"\\u0000event-'),
        (b'"commandid":', b'"command":'),
    ],
)
async def test_an_event_that_it_cannot_hold_stops_the_projection_and_is_not_written(
    view_store: ViewStore, good: bytes, bad: bytes
) -> None:
    projection = await fold(view_store, LOG[:4])
    with pytest.raises(BrokenLedger, match="between 5 and 6"):
        await apply(projection, [LOG[4].replace(good, bad), LOG[5]])
    assert await read_history(view_store.read, ALICE, Version(0), 100, EVER) == (OF_ALICE[:3], 4)
