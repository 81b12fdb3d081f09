"""The stream: events as soon as they are in the views, to any number of readers at once."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import cached_property
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
from shared.platform.api import route
from shared.platform.watermark import Peer, Watermark

STREAMS_MAX = 2_000
"""Readers at the same time: each has a connection, two tasks, and what it has not read yet."""
PIECE_BYTES_MAX = 64 * 1024
"""Handed to a reader at a time, who has to take it before the next one; a single event may be longer."""
PIECE_EVENTS_MAX = 100
"""Read from the history at a time."""
TAIL_BYTES_MAX = 1024 * 1024
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
    """What was folded last, for all readers: none of it is encoded or read from the store twice."""

    def __init__(self) -> None:
        self.readers = 0
        self._pieces: deque[_Piece] = deque()
        self._bytes = 0

    def add(self, events: Sequence[RecordedEvent]) -> None:
        """Events that have just been committed to the views."""
        if not self.readers or (self._pieces and events[0].position != self._pieces[-1].last + 1):
            self._pieces.clear()
            self._bytes = 0
        if not self.readers:
            return
        for piece in _pieces(events):
            self._pieces.append(piece)
            self._bytes += piece.size
        while self._bytes > TAIL_BYTES_MAX:
            self._bytes -= self._pieces.popleft().size

    def after(self, position: Position) -> "_Piece | None":
        """The piece that goes on from `position`; None when there is nothing new, or the next event is not at hand."""
        if not self._pieces or self._pieces[0].first > position + 1:
            return None
        return next((piece for piece in self._pieces if piece.last > position), None)


def _pieces(events: Sequence[RecordedEvent]) -> "Iterator[_Piece]":
    begin, size = 0, 0
    for number, event in enumerate(events):
        event_bytes = len(bytes(event.encoded))
        if size and size + event_bytes > PIECE_BYTES_MAX:
            yield _Piece(events[begin:number], size)
            begin, size = number, 0
        size += event_bytes
    yield _Piece(events[begin:], size)


class _Piece:
    """Consecutive events that were folded together."""

    def __init__(self, events: Sequence[RecordedEvent], size: int) -> None:
        self._events = events
        self.size = size
        self.first, self.last = events[0].position, events[-1].position

    def told(self, after: Position, account_id: AccountId | None) -> bytes:
        if account_id is None and after < self.first:
            return self._whole
        return b"".join(
            _told(event.position, bytes(event.encoded))
            for event in self._events
            if event.position > after and account_id in (None, event.account_id, event.counterpart)
        )

    @cached_property
    def _whole(self) -> bytes:
        return b"".join(_told(event.position, bytes(event.encoded)) for event in self._events)


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
            Header(ge=0, le=INT64_MAX, description="As `after`, and before it: browsers send it when they come back."),
        ] = None,
    ) -> StreamingResponse:
        begin = next((one for one in (last_event_id, after) if one is not None), streams.position)
        asked = None if account_id is None else AccountId(account_id)
        events = _events(store, streams, tail, Position(begin), asked, Peer.of(request.scope))
        return _Stream(tail, events, streams.position)


async def _events(
    store: ViewStore, streams: Watermark, tail: Tail, position: Position, account_id: AccountId | None, peer: Peer
) -> AsyncIterator[bytes]:
    """Those after `position`, for ever. It ends when the service stops, the client leaves, or the views can't be read:
    the client comes back then, with the last position that it has seen."""
    loop = asyncio.get_running_loop()
    yield b"retry: %d\n\n" % RETRY_MILLISECONDS
    quiet_since = loop.time()
    try:
        while not (peer.gone or streams.closed):
            told = b""
            if piece := tail.after(position):
                told, position = piece.told(position, account_id), piece.last
            elif position < streams.position:
                found, reached = await read_stream(store.read, account_id, position, PIECE_EVENTS_MAX)
                taken = found[: len(fitting([encoded for _, encoded in found], PIECE_BYTES_MAX))]
                told = b"".join([_told(at, encoded) for at, encoded in taken])
                position = taken[-1][0] if len(taken) < len(found) else max(position, reached)
            elif not await streams.reach(Position(position + 1), HEARTBEAT_SECONDS, peer):
                told = b":\n\n"
            if told or loop.time() - quiet_since > HEARTBEAT_SECONDS:
                yield told or b":\n\n"
                quiet_since = loop.time()
    except LedgerError:
        return
