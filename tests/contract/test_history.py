"""What the view `history` holds, over every view store."""

import json
import re

import asyncpg
import pytest
from msgspec import UNSET
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from projection_service.projection import BrokenLedger, Projection
from projection_service.view_store import Read, ViewStore
from projection_service.view_store.postgres import SETTINGS, PostgresViewStore
from projection_service.views import VIEWS
from projection_service.views.history.charts import READ_ACCOUNT_SPAN, READ_BALANCES, READ_LEDGER_SPAN, READ_RESERVES
from projection_service.views.history.explain import READ_EVENT
from projection_service.views.history.fold import OPEN_FORK, forks
from projection_service.views.history.holds import READ_HOLDS, READ_OPEN, READ_PLACED
from projection_service.views.history.lines import READ_ENDS, READ_LINES, READ_RANGE, READ_WHOLE_RANGE
from projection_service.views.history.past import READ_ACCOUNT, READ_ACCOUNTS, READ_POSITION, READ_RESERVE
from projection_service.views.history.tables import read_history, read_stream
from shared.chain import extend
from shared.events import (
    USD,
    AccountCreated,
    AccountId,
    AmountDeposited,
    Event,
    HoldId,
    HoldPlaced,
    HoldReleased,
    Position,
    Version,
    decode_events,
    encode_event,
    join_events,
)
from tests.contract.conftest import ALL_VIEWS, closed_at_the_end
from tests.examples import ALICE, BOB, CREATED, DEPOSITED, EVENTS, INT64_MAX, TRANSFERRED, at, log_of, recorded

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
        SELECT account_id, other_account_id, entry % 2, amount, status, held FROM history
        WHERE type = 'money-transferred' ORDER BY account_id
    """)
    assert await view_store.read(transfers) == [
        ("alice", "bob", 0, 30, None, 120),
        ("bob", "alice", 1, 30, None, None),
    ]
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


def literal(value: object) -> str:
    return f"ARRAY[{', '.join(map(literal, value))}]" if isinstance(value, list) else repr(value)


def asked_at(at: int) -> str:
    """The forks of ended holds, as `READ_OPEN` takes them."""
    return json.dumps([(fork, at if fork <= at else 0) for fork in forks(Position(at), Position(6990))])


async def test_postgresql_looks_up_what_it_is_asked_for_whatever_it_believes_of_the_table(database_url: str) -> None:
    """It plans a statement that comes often for any parameters, and so for an account with as many events as most."""
    events = [recorded(1, AccountCreated("Alice")), *(recorded(n, AmountDeposited(1, "")) for n in range(2, 3001))]
    events += [recorded(3000 + n, AccountCreated("Bob"), AccountId(f"bob-{n}"), 1) for n in range(1, 2001)]
    events += [recorded(n, HoldPlaced(HoldId(f"h-{n}"), 1, ""), ALICE, n - 2000) for n in range(5001, 6001)]
    events += [recorded(n, HoldReleased(HoldId(f"h-{n - 1000}"), 1), ALICE, n - 2000) for n in range(6001, 6991)]
    async with closed_at_the_end(PostgresViewStore.open(database_url, "test", ALL_VIEWS)) as store:
        projection = Projection(store, list(VIEWS.values()), await store.checkpoint(), CollectorRegistry())
        await projection.apply(events, extend(projection.at.chain, [event.encoded for event in events]))
    asked: list[tuple[Read, list[object]]] = [
        (READ_POSITION, [at(1000)]),
        (READ_ACCOUNT, [ALICE, 2001]),
        (READ_ACCOUNTS, [[ALICE, "bob-1", "bob-2", "nobody"], 8001]),
        (READ_RESERVE, [USD, 1000]),
        (READ_RANGE, [ALICE, at(1000), at(1010)]),
        (READ_WHOLE_RANGE, [ALICE]),
        (READ_ENDS, [ALICE, 1000, 1010]),
        (READ_LINES, [ALICE, 1000, 1010]),
        (READ_ACCOUNT_SPAN, [ALICE, 2001]),
        (READ_BALANCES, [[at(1000), at(2000)], ALICE, 3000]),
        (READ_LEDGER_SPAN, [1000]),
        (READ_RESERVES, [[at(1000), at(2000)], USD, 5000]),
        (READ_EVENT, [2000, 2001]),
        (READ_OPEN, [ALICE, json.dumps([[OPEN_FORK, 0]]), 5995, 40]),
        (READ_HOLDS, [ALICE, 5010, [2 * 5002, 2 * 5004]]),
        (READ_PLACED, [json.dumps([[ALICE, "h-5500"], [ALICE, "h-5995"]])]),
    ]
    asked += [(READ_OPEN, [ALICE, asked_at(at), at, 5]) for at in (5010, 5995, 6100, 6980)]
    settings = {"search_path": "projection_test", "plan_cache_mode": "force_generic_plan", **SETTINGS}
    connection = await asyncpg.connect(database_url, server_settings=settings)
    try:
        await connection.execute("ANALYZE")
        for read, parameters in asked:
            await connection.execute(f"PREPARE asked AS {read.postgres}")
            execute = f"EXECUTE asked ({', '.join(map(literal, parameters))})"
            plan = [line for (line,) in await connection.fetch(f"EXPLAIN (ANALYZE, TIMING OFF) {execute}")]
            rows = [int(n) for line in plan for n in re.findall(r"(?:actual rows=|Removed by \D*: )(\d+)", line)]
            assert max(rows) <= 50, "\n".join(plan)
            await connection.execute("DEALLOCATE asked")
    finally:
        await connection.close()
