"""The stream between the views and its readers, over every view store, and what one costs the others."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from projection_service import live
from projection_service.live import (
    PIECE_BYTES_MAX,
    STREAMS_MAX,
    TAIL_BYTES_MAX,
    Tail,
    _events,
    _Reader,
)
from projection_service.projection import Projection
from projection_service.view_store import Read, ViewStore
from shared.events import AccountCreated, AccountId, AmountDeposited, MoneyTransferred, Position, RecordedEvent
from shared.platform.watermark import Peer, Watermark
from tests.contract.test_projection import fold, projection_on
from tests.examples import ALICE, BOB, recorded

SECONDS = 30


class CountingStore:
    """Counts the rows that are read."""

    def __init__(self, store: ViewStore) -> None:
        self._store = store
        self.rows = 0

    async def read(self, read: Read, *parameters: object) -> Sequence[Sequence[Any]]:
        rows = await self._store.read(read, *parameters)
        self.rows += len(rows)
        return rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def log(number: int, description: str = "") -> list[RecordedEvent]:
    """An account, and deposits to it."""
    return [
        recorded(1, AccountCreated("Alice")),
        *(recorded(position, AmountDeposited(1, description)) for position in range(2, number + 1)),
    ]


@asynccontextmanager
async def reading(
    store: ViewStore, streams: Watermark, tail: Tail, after: int = 0, account_id: AccountId | None = None
) -> AsyncIterator[AsyncIterator[bytes]]:
    reads = asyncio.Semaphore(1)
    events = _events(_Reader(account_id, Position(after)), store, streams, tail, reads, Peer())
    try:
        yield events
    finally:
        await events.aclose()  # type: ignore[attr-defined]


def positions(said: bytes) -> list[int]:
    return [int(line.removeprefix(b"id: ")) for line in said.split(b"\n") if line.startswith(b"id: ")]


async def take(events: AsyncIterator[bytes], number: int) -> list[int]:
    found: list[int] = []
    async with asyncio.timeout(SECONDS):
        while len(found) < number:
            found += positions(await anext(events))
    return found


async def caught_up(store: ViewStore, events: list[RecordedEvent]) -> tuple[Projection, Watermark]:
    projection = await projection_on(store)
    await fold(projection, events)
    return projection, Watermark(projection.position, STREAMS_MAX)


@pytest.mark.parametrize("kept", [0, 2_000], ids=["in the history", "in the tail"])
async def test_others_have_their_turn_between_the_pieces_of_who_is_far_behind(view_store: ViewStore, kept: int) -> None:
    """Else what it is told heaps up in memory, since nothing is sent meanwhile."""
    _, streams = await caught_up(view_store, log(2_000))
    if kept:
        # The tail is told before the stream is.
        streams = Watermark(Position(0), STREAMS_MAX)
    tail = Tail()
    tail.readers = 1
    tail.add(log(2_000)[-kept:])
    turns, pieces = 0, []

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(others())
    found: list[int] = []
    async with reading(view_store, streams, tail if kept else Tail()) as events:
        while len(found) < 2_000:
            found += positions(await anext(events))
            pieces.append(turns)
    task.cancel()
    assert found == list(range(1, 2_001))
    assert len(set(pieces[1:])) == len(pieces) - 1 > 3


async def test_views_that_were_put_back_are_waited_for(view_store: ViewStore) -> None:
    """A reader is between where they are and where they were, as far as the stream has been told."""
    events = log(20)
    projection, _ = await caught_up(view_store, events[:5])
    streams = Watermark(Position(20), STREAMS_MAX)
    async with reading(view_store, streams, Tail(), after=10) as told:
        assert positions(await anext(told)) == []
        waiting = asyncio.create_task(take(told, 10))
        await asyncio.sleep(0.05)
        streams.move(Position(5))
        await asyncio.sleep(0.05)
        await fold(projection, events[5:])
        streams.move(Position(20))
        assert await waiting == list(range(11, 21))


async def test_of_large_events_no_more_is_read_than_a_reader_is_told(view_store: ViewStore) -> None:
    store = CountingStore(view_store)
    _, streams = await caught_up(view_store, log(300, "\x01" * 1000))
    async with reading(store, streams, Tail()) as events:
        assert await take(events, 300) == list(range(1, 301))
    assert store.rows < 450


async def test_the_tail_and_the_history_are_one_stream(view_store: ViewStore) -> None:
    """Wherever a reader comes from, and with or without an account."""
    transfers = [
        recorded(1, AccountCreated("Alice")),
        recorded(2, AccountCreated("Bob"), BOB, 1),
        recorded(3, AmountDeposited(10_000, ""), ALICE, 2),
    ]
    for number in range(100):
        transfers.append(transfer(4 + 2 * number, 3 + 2 * number, 2 + number))
        transfers.append(recorded(5 + 2 * number, AmountDeposited(1, ""), ALICE, 4 + 2 * number))
    projection, streams = await caught_up(view_store, transfers[:50])
    tail = Tail()
    tail.readers = 1
    for begin in range(50, len(transfers), 7):
        run = transfers[begin : begin + 7]
        await fold(projection, run)
        tail.add(run)
    streams.move(projection.position)
    for after in (0, 1, 48, 49, 50, 51, 120, len(transfers) - 1):
        for account_id in (None, ALICE, BOB):
            expected = [
                event.position
                for event in transfers
                if event.position > after and account_id in (None, event.account_id, event.counterpart)
            ]
            async with reading(view_store, streams, tail, after, account_id) as events:
                assert await take(events, len(expected)) == expected


def transfer(position: int, version: int, other_version: int) -> RecordedEvent:
    return recorded(position, MoneyTransferred(BOB, 1, ""), ALICE, version, other_version)


def test_the_tail_keeps_what_came_last_within_its_limit() -> None:
    events = log(40_000, "x" * 100)
    tail = Tail()
    tail.add(events[:10])
    assert tail.after(Position(0), None) is None  # nobody reads
    tail.readers = 1
    for begin in range(0, len(events), 500):
        tail.add(events[begin : begin + 500])
        last, reached = Position(begin + 499), Position(begin)
        while told := tail.after(reached, ALICE if begin % 1000 else None):
            said, until = told
            assert positions(said) == list(range(reached + 1, until + 1))
            assert len(said) <= PIECE_BYTES_MAX
            reached = until
        assert reached == last + 1
    kept = next(after for after in range(40_000) if tail.after(Position(after), None))
    size = 0
    while told := tail.after(Position(kept), None):
        size, kept = size + len(told[0]), told[1]
    assert TAIL_BYTES_MAX / 2 < size <= TAIL_BYTES_MAX
    tail.add(events[:10])  # the views were put back
    assert tail.after(Position(20_000), None) is None
    assert tail.after(Position(5), None) is not None
    tail.readers = 0
    tail.add(events[10:20])
    assert tail.after(Position(5), None) is None


def test_an_event_that_is_longer_than_a_piece_is_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PIECE_BYTES_MAX", 100)
    tail = Tail()
    tail.readers = 1
    tail.add(log(3))
    for after in range(3):
        told = tail.after(Position(after), None)
        assert told is not None
        assert (positions(told[0]), told[1]) == ([after + 1], after + 1)
    assert tail.after(Position(3), None) is None
