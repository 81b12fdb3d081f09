"""The feed: every event from a position on, with the ledger's word that these are they."""

from collections.abc import Callable
from typing import Annotated

from fastapi import FastAPI, Header, Query, Response
from pydantic import BaseModel

from command_service.event_log import EventLog
from command_service.event_log.runs import PackedPage
from shared.events import INT64_MAX, Position, join_events
from shared.messaging import BATCH_CONTENT_TYPE
from shared.platform.api import route, waiting, weights
from shared.platform.gate import Get
from shared.platform.problems import problem_responses
from shared.platform.watermark import Watermark
from shared.witness import Signer
from shared.zstd import CODING

PAGE_EVENTS_MAX = 10_000
PAGE_BYTES_MAX = 512 * 1024
WAIT_SECONDS_MAX = 60

PAGE = {
    "description": "CloudEvents, oldest first.",
    "content": {BATCH_CONTENT_TYPE: {}},
    "headers": {
        "Ledger-Source": {"schema": {"type": "string"}, "description": "The ledger's name, as in each event."},
        "Ledger-Position": {"schema": {"type": "integer"}, "description": "Of the last event in the log."},
        "Ledger-Published": {
            "schema": {"type": "integer"},
            "description": "The broker has confirmed everything up to this position. Not there without a broker.",
        },
        "Ledger-Chain": {
            "schema": {"type": "string"},
            "description": "chain(n) = SHA-256(chain(n - 1) and the bytes of event n), from 32 zero bytes on, for the "
            "last event of this page or, when it has none, for the one at `after`. In hexadecimal.",
        },
        "Ledger-Signature": {
            "schema": {"type": "string"},
            "description": "Ed25519 over three lines: source, position and chain, as they stand here. In hexadecimal.",
        },
        "Ledger-Key": {"schema": {"type": "string"}, "description": "The public key for it, in hexadecimal."},
    },
}


class PageAsked(BaseModel):
    after: Annotated[int, Query(ge=0, le=INT64_MAX, description="Position; events after it.")] = 0
    limit: Annotated[int, Query(ge=0, le=PAGE_EVENTS_MAX, description="0 asks for the chain at `after`.")] = 1000
    wait: Annotated[float, Query(ge=0, le=WAIT_SECONDS_MAX, description="Seconds to wait for an event.")] = 0


def install_feed(
    app: FastAPI, event_log: EventLog, signer: Signer, head: Watermark, published: Callable[[], Position | None]
) -> Get:
    """What it returns waits for events before the application is asked for them."""

    @route(
        app,
        "/events",
        "GET",
        summary="The feed: every event from a position on",
        tags=["events"],
        responses={200: PAGE, **problem_responses(422, 503)},
    )
    async def events(
        asked: Annotated[PageAsked, Query()],
        accept_encoding: Annotated[
            str, Header(description="zstd for pages as they lie in the log, where they do.")
        ] = "",
    ) -> Response:
        after, packed = Position(asked.after), None
        if weights(accept_encoding).get(CODING):
            packed = await event_log.read_packed(after, asked.limit, PAGE_BYTES_MAX)
        page = packed or await event_log.read(after, asked.limit, PAGE_BYTES_MAX)
        confirmed = published()
        return Response(
            page.body if isinstance(page, PackedPage) else join_events(page.events),
            headers={
                "Vary": "Accept-Encoding",
                **({"Content-Encoding": CODING} if packed else {}),
                "Ledger-Position": str(page.head),
                **({} if confirmed is None else {"Ledger-Published": str(confirmed)}),
                "Ledger-Source": event_log.source,
                "Ledger-Chain": page.end.chain.hex(),
                "Ledger-Signature": signer.sign(page.end).hex(),
                "Ledger-Key": signer.public_key.hex(),
            },
            media_type=BATCH_CONTENT_TYPE,
        )

    # Who asks for no event waits for none.
    return waiting(
        PageAsked, lambda asked, peer: head.reach(Position(asked.after + 1), asked.wait if asked.limit else 0, peer)
    )
