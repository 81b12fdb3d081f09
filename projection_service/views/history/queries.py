"""One account's events, in pages."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from itertools import accumulate
from typing import Annotated

import structlog
from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from projection_service.view import Past, Reach, check_position, position_header
from projection_service.view_store import ViewStore
from projection_service.views.history.charts import add_charts
from projection_service.views.history.explain import add_explanation
from projection_service.views.history.statement import add_statement, statement_endpoint
from projection_service.views.history.tables import read_history
from shared.errors import LedgerError, NotFound
from shared.events import EVENT_SEPARATOR, INT64_MAX, AccountId, Position, Version
from shared.messaging import BATCH_CONTENT_TYPE
from shared.platform.api import AccountIdPath, route
from shared.platform.gate import Get

PAGE_EVENTS_MAX = 10_000
PAGE_BYTES_MAX = 1024 * 1024
PIECE_EVENTS_MAX = 250
"""A page is read and sent in pieces, so that a thousand clients that read slowly do not hold a thousand pages, and
nobody else waits longer than some 2 ms for the event loop."""

log = structlog.get_logger()

BATCH = {"description": "CloudEvents, oldest first.", "content": {BATCH_CONTENT_TYPE: {}}}


def add_queries(queries: APIRouter, store: ViewStore, past: Past) -> None:
    add_statement(queries, store, past)
    add_charts(queries, store, past)
    add_explanation(queries, store)

    @route(
        queries,
        "/account/{account_id}/events",
        "GET",
        summary="One account's events, rejections included",
        responses={200: BATCH},
    )
    async def account_events(
        account_id: AccountIdPath,
        after: Annotated[int, Query(ge=0, le=INT64_MAX, description="Version; events after it.")] = 0,
        limit: Annotated[int, Query(ge=1, le=PAGE_EVENTS_MAX)] = 1000,
    ) -> StreamingResponse:
        asked = AccountId(account_id)
        first, position = await read_history(
            store.read, asked, Version(after), min(limit, PIECE_EVENTS_MAX), Position(INT64_MAX)
        )
        if not first and not (await read_history(store.read, asked, Version(0), 1, position))[0]:
            raise NotFound(
                f"no command had named the account {account_id!r} at position {position}.", position_header(position)
            )

        async def read(count: int, events_max: int) -> list[bytes]:
            # Of the same moment as the first piece, whatever has come in between.
            events, reached = await read_history(store.read_piece, asked, Version(after + count), events_max, position)
            check_position(reached, position)
            return events

        return StreamingResponse(
            _page(first, limit, read), headers=position_header(position), media_type=BATCH_CONTENT_TYPE
        )


def endpoints(store: ViewStore, reach: Reach, past: Past) -> Mapping[str, Get]:
    return {"/account/*/statement": statement_endpoint(store, reach)}


async def _page(
    first: list[bytes], events_max: int, read: Callable[[int, int], Awaitable[list[bytes]]]
) -> AsyncIterator[bytes]:
    """A page of encoded events in the CloudEvents JSON batch format, in pieces.

    After `first`, `read` is asked for those that follow so many events, and how many at most. When the store fails, or
    the views are put back meanwhile, the page ends where it has got to, as at its limits: the next one says why.
    """
    yield b"["
    count, size, piece = 0, 0, first
    while piece:
        taken = fitting(piece, PAGE_BYTES_MAX - size)
        yield (EVENT_SEPARATOR if count else b"") + EVENT_SEPARATOR.join(taken)
        count, size = count + len(taken), size + sum(map(len, taken))
        if len(taken) < len(piece) or count == events_max or size >= PAGE_BYTES_MAX:
            break
        try:
            piece = await read(count, min(PIECE_EVENTS_MAX, events_max - count))
        except LedgerError as error:
            log.warning("a page of events ends early", reason=str(error), events=count)
            break
    yield b"]"


def fitting(events: list[bytes], bytes_max: int) -> list[bytes]:
    """The first of `events` that are no longer than `bytes_max` together; one, however long."""
    sizes = accumulate(map(len, events))
    return events[: max(1, sum(size <= bytes_max for size in sizes))]
