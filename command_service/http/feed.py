"""The feed: every event from a position on."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated

import msgspec
import structlog
from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from command_service.event_store import EventStore
from shared.api import route
from shared.chain import CHAIN_START, ChainAt, extend
from shared.events import INT64_MAX, Position
from shared.messaging import BATCH_CONTENT_TYPE
from shared.problems import LedgerError, problem_responses
from shared.watermark import Peer, Watermark

PAGE_EVENTS_MAX = 10_000
PAGE_BYTES_MAX = 1024 * 1024
PIECE_BYTES_MAX = 128 * 1024
"""A page is sent in pieces, so that a thousand clients that read slowly do not hold a thousand pages."""
WAIT_SECONDS_MAX = 60
CHAIN_EVENTS_MAX = 10_000
"""As far as one answer goes: it costs about as much as a page."""
CHAIN_PIECE_EVENTS = 500
"""Hashed at once, some 0.3 ms: nobody else waits longer for the event loop."""

log = structlog.get_logger()


class ChainAnswer(BaseModel):
    """Documentation of the ledger's chain: its digest in hexadecimal, after the event at `position`."""

    position: int
    chain: str


def install_feed(app: FastAPI, store: EventStore, head: Watermark) -> None:
    @route(
        app,
        "/events",
        "GET",
        summary="The feed: every event from a position on",
        tags=["events"],
        responses={
            200: {"description": "CloudEvents, oldest first.", "content": {BATCH_CONTENT_TYPE: {}}},
            **problem_responses(422, 503),
        },
    )
    async def events(
        request: Request,
        after: Annotated[int, Query(ge=0, le=INT64_MAX, description="Position; events after it.")] = 0,
        limit: Annotated[int, Query(ge=1, le=PAGE_EVENTS_MAX)] = 1000,
        wait: Annotated[
            float,
            Query(ge=0, le=WAIT_SECONDS_MAX, description="Seconds to wait for an event if there is none."),
        ] = 0,
    ) -> Response:
        await head.reach(Position(after + 1), wait, Peer.of(request.scope))
        first = await store.read(Position(after), limit, PIECE_BYTES_MAX)
        # Read after the first piece, and the last word on the others: a consumer must never be told of a head
        # before what it holds.
        last = await store.head()

        async def read(count: int, events_max: int, bytes_max: int) -> list[bytes]:
            return await store.read(Position(after + count), events_max, bytes_max)

        headers = {"Ledger-Position": str(last), "Ledger-Source": store.source}
        return StreamingResponse(
            page(first, min(limit, last - after), read), headers=headers, media_type=BATCH_CONTENT_TYPE
        )


def install_chain(app: FastAPI, store: EventStore) -> None:
    @route(
        app,
        "/events/chain",
        "GET",
        summary="The chain: a digest of all events up to a position",
        description="chain(n) = SHA-256(chain(n - 1) and the bytes of event n), from 32 zero bytes on. "
        f"Who has the chain at `after` gets the one at `up_to`, at the head, or {CHAIN_EVENTS_MAX} events on, "
        "whichever comes first.",
        tags=["events"],
        response_model=ChainAnswer,
        responses=problem_responses(422, 503),
    )
    async def events_chain(
        up_to: Annotated[int, Query(ge=0, le=INT64_MAX, description="Position.")],
        after: Annotated[int, Query(ge=0, le=INT64_MAX, description="Position of `chain`.")] = 0,
        chain: Annotated[str, Query(pattern=r"^[0-9a-f]{64}$", description="In hexadecimal.")] = CHAIN_START.hex(),
    ) -> Response:
        # Read first: what is up to there is in the log, and a consumer must never be told of a head before it.
        last = await store.head()
        start = ChainAt(Position(after), bytes.fromhex(chain))
        reached = await chain_up_to(store, start, Position(min(up_to, last, after + CHAIN_EVENTS_MAX)))
        return Response(
            msgspec.json.encode({"position": reached.position, "chain": reached.chain.hex()}),
            headers={"Ledger-Position": str(last), "Ledger-Source": store.source},
            media_type="application/json",
        )


async def chain_up_to(store: EventStore, at: ChainAt, up_to: Position) -> ChainAt:
    """The chain at `up_to`, no later than the head, from the one `at` an earlier position; `at` when it is not."""
    while at.position < up_to:
        events = await store.read(at.position, min(CHAIN_PIECE_EVENTS, up_to - at.position), PIECE_BYTES_MAX)
        if not events:
            break
        at = ChainAt(Position(at.position + len(events)), extend(at.chain, events))
        await asyncio.sleep(0)  # what is read from memory has not waited for anything
    return at


async def page(
    first: list[bytes], events_max: int, read: Callable[[int, int, int], Awaitable[list[bytes]]]
) -> AsyncIterator[bytes]:
    """A page of encoded events in the CloudEvents JSON batch format, in pieces.

    After `first`, `read` is asked for those that follow so many events: how many and how many bytes at most. When the
    store fails, the page ends where it has got to, as at its limits: the next one says why.
    """
    yield b"[" + b",".join(first)
    count, size = len(first), sum(map(len, first))
    while 0 < count < events_max and size < PAGE_BYTES_MAX:
        try:
            more = await read(count, events_max - count, min(PIECE_BYTES_MAX, PAGE_BYTES_MAX - size))
        except LedgerError as error:
            log.warning("a page of events ends early", reason=str(error), events=count)
            break
        if not more:
            break
        count, size = count + len(more), size + sum(map(len, more))
        yield b"," + b",".join(more)
    yield b"]"
