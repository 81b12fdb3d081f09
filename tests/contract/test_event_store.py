"""What every event store promises."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from command_service.account import Account
from command_service.event_store import Answer, EventStore, Lease, NewEvent, Stream
from shared.events import AccountCreated, AccountId, Position, Version
from tests.contract.conftest import OpenEventStore
from tests.examples import ALICE, BOB, CREATED, DEPOSIT_REJECTED, DEPOSITED, INT64_MAX, WITHDRAWN, logged

ALL = 1_000_000
"""Events or bytes: more than any test has."""
LOG = [
    logged(1, CREATED, ALICE, 1),
    logged(2, DEPOSIT_REJECTED, BOB, 1),
    logged(3, DEPOSITED, ALICE, 2),
    logged(4, AccountCreated("Bob"), BOB, 2),
    logged(5, WITHDRAWN, ALICE, 3),
]
STREAMS = {
    ALICE: Stream(Version(3), Account("Alice", 70)),
    BOB: Stream(Version(2), Account("Bob", 0)),
}
STREAMS_OF_TWO = {
    ALICE: Stream(Version(1), Account("Alice", 0)),
    BOB: Stream(Version(1), None),
}
ANSWER = Answer(b"\x00\xff fingerprint", '[{"type":"account-created","name":"Zoë 🏦"}]')


async def record(
    store: EventStore,
    events: Sequence[NewEvent],
    streams: Mapping[AccountId, Stream] | None = None,
    answers: Mapping[str, Answer] | None = None,
) -> None:
    async with store.append({event.account_id for event in events}, set()) as append:
        await append.commit(events, streams or {}, answers or {})


def long_log(events: int) -> list[NewEvent]:
    """So many events of each of two accounts, in turns."""
    return [
        logged(2 * version - is_alice, DEPOSIT_REJECTED, ALICE if is_alice else BOB, version)
        for version in range(1, events + 1)
        for is_alice in (True, False)
    ]


async def stored(store: EventStore) -> list[bytes]:
    """The whole log; its head is where it ends."""
    events = await store.read(Position(0), ALL, ALL)
    assert await store.head() == len(events)
    return events


def encoded(events: Sequence[NewEvent]) -> list[bytes]:
    return [event.event.encode() for event in events]


async def assert_appends_go_on(store: EventStore) -> None:
    """After some trouble: the next append writes one event at the head, and it is there."""
    before = await stored(store)
    event = logged(len(before) + 1, CREATED, AccountId("next"), 1)
    async with store.append({event.account_id}, set()) as append:
        assert append.head == len(before)
        await append.commit([event], {}, {})
    assert await stored(store) == [*before, *encoded([event])]


async def test_a_new_log_is_empty(event_store: EventStore) -> None:
    assert await stored(event_store) == []
    assert await event_store.read_stream(ALICE, Version(0), ALL, ALL) == []
    assert await published(event_store) == 0
    async with event_store.append({ALICE}, {"key"}) as append:
        assert (append.head, append.streams, append.answers) == (0, {}, {})


async def test_what_is_committed_is_there_byte_for_byte(event_store: EventStore) -> None:
    await record(event_store, LOG)
    assert await stored(event_store) == encoded(LOG)


async def test_an_append_reads_the_streams_and_answers_asked_for(event_store: EventStore) -> None:
    rejected_only = AccountId("carol")
    streams = {
        ALICE: Stream(Version(3), Account("Zoë 🏦 'quoted' \"twice\" \\ \n", INT64_MAX)),
        BOB: Stream(Version(2), Account("Bob", 0)),
        rejected_only: Stream(Version(1), None),
    }
    events = [*LOG, logged(6, DEPOSIT_REJECTED, rejected_only, 1)]
    await record(event_store, events, streams, {"key": ANSWER, "other": ANSWER})
    async with event_store.append({ALICE, rejected_only, AccountId("unknown")}, {"key", "unknown"}) as append:
        assert append.head == 6
        assert append.streams == {ALICE: streams[ALICE], rejected_only: streams[rejected_only]}
        assert append.answers == {"key": ANSWER}


async def test_a_stream_is_replaced_by_its_next_state(event_store: EventStore) -> None:
    await record(event_store, LOG[:2], STREAMS_OF_TWO)
    await record(event_store, LOG[2:], STREAMS)
    async with event_store.append({ALICE, BOB}, set()) as append:
        assert append.streams == STREAMS


async def test_an_append_takes_as_many_accounts_and_keys_as_a_transaction_has(event_store: EventStore) -> None:
    accounts = [AccountId(f"account-{number}") for number in range(10_000)]
    events = [logged(position, CREATED, account, 1) for position, account in enumerate(accounts, 1)]
    streams = {account: Stream(Version(1), Account("Alice", 0)) for account in accounts}
    answers = {f"key-{number}": ANSWER for number in range(10_000)}
    await record(event_store, events, streams, answers)
    async with event_store.append(accounts, answers.keys()) as append:
        assert (append.head, append.streams, append.answers) == (10_000, streams, answers)


async def test_an_append_without_events_keeps_its_answers_and_moves_nothing(event_store: EventStore) -> None:
    await record(event_store, LOG, STREAMS)
    for answers in ({"key": ANSWER}, {}):
        await record(event_store, [], {}, answers)
        async with event_store.append({ALICE, BOB}, {"key"}) as append:
            assert (append.head, append.streams, append.answers) == (5, STREAMS, {"key": ANSWER})
    assert await stored(event_store) == encoded(LOG)
    await assert_appends_go_on(event_store)


async def test_leaving_without_commit_writes_nothing(event_store: EventStore) -> None:
    async with event_store.append({ALICE}, set()):
        pass
    await assert_appends_go_on(event_store)


async def test_an_error_while_appending_writes_nothing_and_is_raised(event_store: EventStore) -> None:
    with pytest.raises(ZeroDivisionError):
        async with event_store.append({ALICE}, set()):
            raise ZeroDivisionError
    await assert_appends_go_on(event_store)


async def test_nobody_sees_an_append_before_its_commit(event_store: EventStore) -> None:
    await record(event_store, LOG[:2], STREAMS_OF_TWO)
    async with event_store.append({ALICE, BOB}, set()) as append:
        assert await stored(event_store) == encoded(LOG[:2])
        await append.commit(LOG[2:], STREAMS, {})
        assert await stored(event_store) == encoded(LOG)


@pytest.mark.parametrize(
    ("events", "answers"),
    [
        ([logged(6, DEPOSITED, ALICE, 4), logged(7, DEPOSITED, ALICE, 3)], {}),
        ([logged(6, DEPOSITED, ALICE, 1)], {}),
        ([logged(6, DEPOSITED, ALICE, 4), logged(5, DEPOSITED, ALICE, 5)], {}),
        ([logged(6, DEPOSITED, ALICE, 4)], {"key": ANSWER}),
    ],
    ids=["a version twice", "an old version", "an old position", "a key twice"],
)
async def test_what_exists_cannot_be_written_again(
    event_store: EventStore, events: list[NewEvent], answers: dict[str, Answer]
) -> None:
    """A bug, and not a trouble of the store's that passes when one tries again."""
    await record(event_store, LOG, STREAMS, {"key": ANSWER})
    with pytest.raises(ValueError, match=r"\S"):
        await record(event_store, events, {ALICE: Stream(Version(9), None)}, {**answers, "new": Answer(b"", "[]")})
    async with event_store.append({ALICE, BOB}, {"key", "new"}) as append:
        assert (append.streams, append.answers) == (STREAMS, {"key": ANSWER})
    assert await stored(event_store) == encoded(LOG)
    await assert_appends_go_on(event_store)


async def test_an_append_that_is_cancelled_is_whole_or_not_there(event_store: EventStore) -> None:
    """At whatever moment it is cancelled: the sleeps let it come a little further each time."""
    for moment in range(30):
        before = await stored(event_store)
        number = len(before)
        run = [logged(number + 1, CREATED, AccountId(f"{moment}"), 1), logged(number + 2, DEPOSITED, ALICE, moment + 1)]
        appending = asyncio.create_task(record(event_store, run, {ALICE: Stream(Version(moment + 1), None)}))
        for _ in range(moment // 3):
            await asyncio.sleep(0.0001)
        appending.cancel()
        await asyncio.wait([appending])
        async with event_store.append({ALICE}, set()):
            pass  # a server may still be at it: whoever has the lock next comes after its end
        assert await stored(event_store) in (before, before + encoded(run))
        await assert_appends_go_on_as(event_store, AccountId(f"after-{moment}"))


async def assert_appends_go_on_as(store: EventStore, account_id: AccountId) -> None:
    async with store.append({account_id}, set()) as append:
        before = append.head
        await append.commit([logged(before + 1, CREATED, account_id, 1)], {}, {})
    assert len(await stored(store)) == before + 1


async def test_an_append_that_is_cancelled_before_its_commit_is_not_there(event_store: EventStore) -> None:
    begun = asyncio.Event()

    async def begin() -> None:
        async with event_store.append({ALICE}, set()):
            begun.set()
            await asyncio.Event().wait()

    appending = asyncio.create_task(begin())
    await begun.wait()
    appending.cancel()
    await asyncio.wait([appending])
    assert appending.cancelled()
    assert await stored(event_store) == []
    await assert_appends_go_on(event_store)


async def test_two_appends_wait_for_each_other(event_store: EventStore) -> None:
    """`Append` holds the lock on the head: positions go on, whoever comes first."""

    async def add(account_id: AccountId, number: int) -> None:
        async with event_store.append({account_id}, set()) as append:
            first = append.head + 1
            await asyncio.sleep(0)
            await append.commit([logged(first + n, CREATED, account_id, n + 1) for n in range(number)], {}, {})

    async with asyncio.timeout(30):
        await asyncio.gather(add(ALICE, 1), add(BOB, 3))
    assert len(await stored(event_store)) == 4
    await assert_appends_go_on(event_store)


SIZES = [len(event.event) for event in LOG]


@pytest.mark.parametrize(
    ("after", "events_max", "bytes_max", "positions"),
    [
        (0, ALL, ALL, [1, 2, 3, 4, 5]),
        (3, ALL, ALL, [4, 5]),
        (5, ALL, ALL, []),
        (99, ALL, ALL, []),
        (0, 2, ALL, [1, 2]),
        (2, 1, ALL, [3]),
        (0, ALL, 1, [1]),
        (3, ALL, 0, [4]),
        (0, ALL, SIZES[0], [1]),
        (0, ALL, SIZES[0] + SIZES[1] - 1, [1]),
        (0, ALL, SIZES[0] + SIZES[1], [1, 2]),
        (1, ALL, SIZES[1] + SIZES[2] + SIZES[3], [2, 3, 4]),
        (1, 2, SIZES[1] + SIZES[2] + SIZES[3], [2, 3]),
    ],
)
async def test_the_log_is_read_in_pages_of_limited_size_but_never_empty_ones(
    event_store: EventStore, after: int, events_max: int, bytes_max: int, positions: list[int]
) -> None:
    await record(event_store, LOG)
    page = await event_store.read(Position(after), events_max, bytes_max)
    assert page == encoded([LOG[position - 1] for position in positions])


@pytest.mark.parametrize(
    ("account_id", "after", "events_max", "positions"),
    [
        (ALICE, 0, ALL, [1, 3, 5]),
        (BOB, 0, ALL, [2, 4]),
        (ALICE, 1, ALL, [3, 5]),
        (ALICE, 1, 1, [3]),
        (ALICE, 3, ALL, []),
        (AccountId("unknown"), 0, ALL, []),
        (AccountId("ALICE"), 0, ALL, []),
    ],
)
async def test_a_stream_is_read_in_the_order_of_its_versions(
    event_store: EventStore, account_id: AccountId, after: int, events_max: int, positions: list[int]
) -> None:
    await record(event_store, LOG, STREAMS)
    page = await event_store.read_stream(account_id, Version(after), events_max, ALL)
    assert page == encoded([LOG[position - 1] for position in positions])


@pytest.mark.parametrize("appends", [1, 7, 100])
async def test_a_long_stream_is_read_from_any_version_on(event_store: EventStore, appends: int) -> None:
    log = long_log(100)
    for first in range(0, len(log), 2 * 100 // appends):
        part = log[first : first + 2 * 100 // appends]
        await record(event_store, part, {event.account_id: Stream(event.version, None) for event in part})
    of_alice = encoded([event for event in log if event.account_id == ALICE])
    for after in range(102):
        for events_max in (1, 33, ALL):
            page = await event_store.read_stream(ALICE, Version(after), events_max, ALL)
            assert page == of_alice[after : after + events_max]
    assert await event_store.read_stream(ALICE, Version(31), ALL, len(of_alice[31]) * 5) == of_alice[31:36]


async def test_a_stream_of_many_events_is_read_page_by_page(event_store: EventStore) -> None:
    log = long_log(700)
    await record(event_store, log, {id_: Stream(Version(700), None) for id_ in (ALICE, BOB)})
    found: list[bytes] = []
    while page := await event_store.read_stream(ALICE, Version(len(found)), ALL, ALL):
        found += page
    assert found == encoded([event for event in log if event.account_id == ALICE])


async def lead(store: EventStore) -> Lease:
    lease = await store.acquire_lease()
    assert lease is not None
    return lease


async def published(store: EventStore) -> int:
    """As the next relay finds it."""
    lease = await lead(store)
    await store.end_lease(lease, lease.published)
    return lease.published


async def test_the_cursor_of_the_relay_is_kept(event_store: EventStore) -> None:
    await record(event_store, LOG)
    lease = await lead(event_store)
    await event_store.save_published(lease, Position(3))
    await event_store.save_published(lease, Position(4))
    await event_store.end_lease(lease, Position(5))
    assert await event_store.published() == 5
    assert await published(event_store) == 5
    assert await event_store.head() == 5


async def test_the_cursor_is_kept_even_if_an_append_beside_it_is_not(event_store: EventStore) -> None:
    await record(event_store, LOG)
    lease = await lead(event_store)
    async with event_store.append({ALICE}, set()):
        saving = asyncio.create_task(event_store.save_published(lease, Position(3)))
        await asyncio.wait([saving], timeout=0.1)  # a store may make it wait for the append's end
    await saving
    await event_store.end_lease(lease, Position(3))
    assert await published(event_store) == 3


async def test_all_of_it_is_there_when_the_store_is_opened_again(open_event_store: OpenEventStore) -> None:
    async with open_event_store() as store:
        source = store.source
        await record(store, LOG, STREAMS, {"key": ANSWER})
        await store.end_lease(await lead(store), Position(4))
    async with open_event_store() as store:
        assert store.source == source
        assert await stored(store) == encoded(LOG)
        assert await published(store) == 4
        async with store.append({ALICE, BOB}, {"key"}) as append:
            assert (append.head, append.streams, append.answers) == (5, STREAMS, {"key": ANSWER})
        await assert_appends_go_on(store)
