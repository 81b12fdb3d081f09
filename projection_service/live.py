"""The stream: events as soon as they are in the views, to any number of readers at once."""

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from projection_service.view import position_header
from projection_service.view_store import ViewStore
from projection_service.views.history.queries import fitting
from projection_service.views.history.tables import read_stream
from shared.errors import LedgerError, Overloaded
from shared.events import ACCOUNT_ID_PATTERN, ACCOUNT_ID_RULE, INT64_MAX, AccountId, Position, RecordedEvent
from shared.platform.api import IN_DIGITS, route
from shared.platform.watermark import Peer, Watermark

STREAMS_MAX = 2_000
"""Readers at the same time: each has a connection, two tasks, and what it has not read yet."""
PIECE_BYTES_MAX = 128 * 1024
"""Handed to a reader at a time, who has to take it before the next one; a single event may be longer. Smaller ones cost
a thousand readers more than they have time for, larger ones a thousand that do not read more memory."""
TURNS_MAX = 48
"""So many readers are handed one before others have a turn, some 200 times a second."""
HISTORY_EVENTS_MIN, HISTORY_EVENTS_MAX = 8, 100
"""Read from the history at a time: more and more, as long as they fit in a piece."""
HISTORY_READS_MAX = 2
"""By all readers at a time. Other queries need connections to PostgreSQL, too; and SQLite is read on the event loop."""
TAIL_BYTES_MAX = 8 * 1024 * 1024
"""Kept in memory for all readers, while there are any: who is further behind reads the history."""
HEARTBEAT_SECONDS = 15
"""After so long without an event there is a comment, by which a proxy sees that the connection is in use."""
RETRY_MILLISECONDS = 1_000
LINE_ENDS = bytes.maketrans(b"\r\n", b"  ")
"""JSON has them between its tokens only, where a space means the same. In the stream they would end a line."""

STREAM = {
    "description": "Server-sent events without an end: `data` is the CloudEvent, `id` its position.",
    "content": {"text/event-stream": {}},
}


class Tail:
    """What was folded last, as it is told: none of it is made, or read from the store, for each reader anew."""

    def __init__(self) -> None:
        self.readers = 0
        self._first = Position(0)
        self._told: list[bytes] = []
        """Of consecutive events from `_first` on."""
        self._accounts: list[tuple[AccountId, AccountId | None]] = []
        self._ends: list[int] = []
        """How many bytes there have been up to the end of each."""
        self._piece = (0, 0, b"")
        """The last one: many readers are at the same position."""

    def add(self, events: Sequence[RecordedEvent]) -> None:
        """Events that have just been committed to the views."""
        if not self.readers or events[0].position != self._first + len(self._told):
            self._first = events[0].position
            self._drop(len(self._told))
        if not self.readers:
            return
        end = self._ends[-1] if self._ends else 0
        for event in events:
            told = _told(event.position, bytes(event.encoded))
            end += len(told)
            self._told.append(told)
            self._accounts.append((event.account_id, event.counterpart))
            self._ends.append(end)
        begin = self._ends[0] - len(self._told[0])
        if end - begin > TAIL_BYTES_MAX:
            # More than has to go, so that it is not moved up for each event.
            dropped = bisect_left(self._ends, end - TAIL_BYTES_MAX * 7 // 8)
            self._first = Position(self._first + dropped)
            self._drop(dropped)

    def _drop(self, number: int) -> None:
        del self._told[:number], self._accounts[:number], self._ends[:number]
        self._piece = (0, 0, b"")

    def after(self, position: Position, account_id: AccountId | None) -> tuple[bytes, Position] | None:
        """What comes after `position`, up to which one; None when that is nothing new, or not at hand."""
        begin = position + 1 - self._first
        if not 0 <= begin < len(self._told):
            return None
        if account_id is not None:
            return self._of(account_id, begin)
        size_before = self._ends[begin] - len(self._told[begin])
        end = max(begin + 1, bisect_right(self._ends, size_before + PIECE_BYTES_MAX))
        if self._piece[:2] != (begin, end):
            self._piece = begin, end, b"".join(self._told[begin:end])
        return self._piece[2], Position(self._first + end - 1)

    def _of(self, account_id: AccountId, begin: int) -> tuple[bytes, Position]:
        found: list[bytes] = []
        size = 0
        for number in range(begin, len(self._told)):
            if account_id in self._accounts[number]:
                size += len(self._told[number])
                if found and size > PIECE_BYTES_MAX:
                    return b"".join(found), Position(self._first + number - 1)
                found.append(self._told[number])
        return b"".join(found), self.last

    @property
    def last(self) -> Position:
        """Of the events that are at hand."""
        return Position(self._first + len(self._told) - 1)


def _told(position: Position, encoded: bytes) -> bytes:
    """https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation"""
    return b"id: %d\ndata: %b\n\n" % (position, encoded.translate(LINE_ENDS))


class _Stream(StreamingResponse):
    """Counts itself among the readers while it is sent. Raises `Overloaded` when there are too many."""

    def __init__(self, tail: Tail, events: AsyncIterator[bytes], position: Position) -> None:
        headers = {"Cache-Control": "no-store", **position_header(position)}
        super().__init__(events, headers=headers, media_type="text/event-stream")
        self._tail = tail

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._tail.readers >= STREAMS_MAX:
            raise Overloaded(f"{self._tail.readers} clients read the stream already. Try again later.")
        self._tail.readers += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._tail.readers -= 1


async def pass_on(watermark: Watermark, streams: Watermark) -> None:
    """Move `streams` with `watermark`, for ever: however many readers wait for the next event, nobody who waits for a
    position waits behind them."""
    while not watermark.closed:
        await watermark.reach(Position(streams.position + 1), HEARTBEAT_SECONDS)
        streams.move(watermark.position)
    streams.close()


def add_stream(queries: APIRouter, store: ViewStore, streams: Watermark, tail: Tail) -> None:
    """`streams` follows the position of the views in `store`, which have the history."""
    reads = asyncio.Semaphore(HISTORY_READS_MAX)

    @route(queries, "/stream", "GET", summary="Events as they get into the views", responses={200: STREAM})
    async def stream(
        request: Request,
        account_id: Annotated[
            str | None, Query(pattern=ACCOUNT_ID_PATTERN, description=f"Only this account's. {ACCOUNT_ID_RULE}.")
        ] = None,
        after: Annotated[
            int | None, Query(ge=0, le=INT64_MAX, description="Position; events after it. Without it, from now on.")
        ] = None,
        last_event_id: Annotated[
            int | None,
            IN_DIGITS,
            Header(ge=0, le=INT64_MAX, description="As `after`, and before it: browsers send it when they come back."),
        ] = None,
    ) -> StreamingResponse:
        begin = next((one for one in (last_event_id, after) if one is not None), streams.position)
        reader = _Reader(None if account_id is None else AccountId(account_id), Position(begin))
        events = _events(reader, store, streams, tail, reads, Peer.of(request.scope))
        return _Stream(tail, events, streams.position)


async def _events(
    reader: "_Reader", store: ViewStore, streams: Watermark, tail: Tail, reads: asyncio.Semaphore, peer: Peer
) -> AsyncIterator[bytes]:
    """Those after the reader's position, for ever. It ends when the service stops, the client leaves, or the views
    can't be read: the client comes back then, with the last position that it has seen."""
    loop = asyncio.get_running_loop()
    yield b"retry: %d\n\n" % RETRY_MILLISECONDS
    quiet_since = loop.time()
    try:
        while not (peer.gone or streams.closed):
            told = b""
            if found := tail.after(reader.position, reader.account_id):
                told, reader.position = found
            elif reader.position < streams.position:
                async with reads:
                    told = await reader.read(store)
                    # Before the next one has its turn, others do.
                    await asyncio.sleep(0)
            elif not await streams.reach(Position(reader.position + 1), HEARTBEAT_SECONDS, peer):
                told = b":\n\n"
            if told or loop.time() - quiet_since > HEARTBEAT_SECONDS:
                yield told or b":\n\n"
                quiet_since = loop.time()
            if reader.position < max(streams.position, tail.last):
                # What was written is sent only now, and only now is it known whether the client takes it.
                await streams.turn()
    except LedgerError:
        return


class _Reader:
    def __init__(self, account_id: AccountId | None, position: Position) -> None:
        self.account_id = account_id
        self.position = position
        self._events_max = HISTORY_EVENTS_MIN

    async def read(self, store: ViewStore) -> bytes:
        """What comes next in the history; nothing while the views are not as far, since they were put back."""
        found, reached = await read_stream(store.read, self.account_id, self.position, self._events_max)
        taken = found[: len(fitting([encoded for _, encoded in found], PIECE_BYTES_MAX))]
        if len(taken) < len(found):
            self.position = taken[-1][0]
            self._events_max = max(1, len(taken))
        else:
            self.position = max(self.position, reached)
            self._events_max = min(2 * self._events_max, HISTORY_EVENTS_MAX)
        return b"".join([_told(at, encoded) for at, encoded in taken])
