"""The stream: events as soon as they are in the views, to any number of readers at once."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from functools import cached_property
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse

from projection_service.view import position_header
from projection_service.view_store import ViewStore
from projection_service.views.history.tables import read_stream
from shared.errors import LedgerError, Overloaded
from shared.events import ACCOUNT_ID_PATTERN, ACCOUNT_ID_RULE, INT64_MAX, AccountId, Position, RecordedEvent
from shared.platform.api import route
from shared.platform.watermark import Peer, Watermark

STREAMS_MAX = 2_000
"""Readers at the same time: each has a connection, two tasks, and what it has not read yet."""
PIECE_EVENTS_MAX = 100
"""Read from the history at a time."""
TAIL_EVENTS_MAX = 2_000
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
        self._runs: deque[_Run] = deque()

    def add(self, events: Sequence[RecordedEvent]) -> None:
        """Events that have just been committed to the views."""
        if self._runs and events[0].position != self._runs[-1].last + 1:
            self._runs.clear()
        if self.readers:
            self._runs.append(_Run(events))
        while self._runs and (not self.readers or self._runs[-1].last - self._runs[0].last >= TAIL_EVENTS_MAX):
            self._runs.popleft()

    def after(self, position: Position) -> "list[_Run]":
        """The runs that go on from `position`; none when there is nothing new, or the next event is not at hand."""
        if not self._runs or self._runs[0].first > position + 1:
            return []
        return [run for run in self._runs if run.last > position]


class _Run:
    """Consecutive events that were folded together."""

    def __init__(self, events: Sequence[RecordedEvent]) -> None:
        self._events = events
        self.first, self.last = events[0].position, events[-1].position

    def told(self, after: Position, account_id: AccountId | None) -> bytes:
        if account_id is None and after < self.first:
            return self._told
        return b"".join(
            _told(event.position, bytes(event.encoded))
            for event in self._events
            if event.position > after and account_id in (None, event.account_id, event.counterpart)
        )

    @cached_property
    def _told(self) -> bytes:
        return b"".join(_told(event.position, bytes(event.encoded)) for event in self._events)


def _told(position: Position, encoded: bytes) -> bytes:
    """https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation"""
    return b"id: %d\ndata: %b\n\n" % (position, encoded.translate(LINE_ENDS))


def add_stream(queries: APIRouter, store: ViewStore, watermark: Watermark, tail: Tail) -> None:
    """`watermark` is that of the views in `store`, which have the history."""

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
        if tail.readers >= STREAMS_MAX:
            raise Overloaded(f"{tail.readers} clients read the stream already. Try again later.")
        begin = next((one for one in (last_event_id, after) if one is not None), watermark.position)
        events = _events(
            store,
            watermark,
            tail,
            Position(begin),
            AccountId(account_id) if account_id else None,
            Peer.of(request.scope),
        )
        headers = {"Cache-Control": "no-store", **position_header(watermark.position)}
        return StreamingResponse(events, headers=headers, media_type="text/event-stream")


async def _events(
    store: ViewStore, watermark: Watermark, tail: Tail, position: Position, account_id: AccountId | None, peer: Peer
) -> AsyncIterator[bytes]:
    """Those after `position`, for ever. It ends when the service stops, the client leaves, or the views can't be read:
    the client comes back then, with the last position that it has seen."""
    loop = asyncio.get_running_loop()
    tail.readers += 1
    try:
        yield b"retry: %d\n\n" % RETRY_MILLISECONDS
        quiet_since = loop.time()
        while not (peer.gone or watermark.closed):
            told = b""
            if runs := tail.after(position):
                told = b"".join([run.told(position, account_id) for run in runs])
                position = runs[-1].last
            elif position < watermark.position:
                found, reached = await read_stream(store.read, account_id, position, PIECE_EVENTS_MAX)
                told = b"".join([_told(at, encoded) for at, encoded in found])
                position = max(position, reached)
            elif not await watermark.reach(Position(position + 1), HEARTBEAT_SECONDS, peer):
                told = b":\n\n"
            if told or loop.time() - quiet_since > HEARTBEAT_SECONDS:
                yield told or b":\n\n"
                quiet_since = loop.time()
    except LedgerError:
        return
    finally:
        tail.readers -= 1
