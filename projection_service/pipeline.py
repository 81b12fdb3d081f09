"""The way of the events, for who looks at it: how far the log, the broker and the views are, and what is wrong."""

import asyncio
import math
import time
from contextlib import suppress

import msgspec
from fastapi import FastAPI, Response
from pydantic import BaseModel

from projection_service.projection import Projection
from projection_service.subscription import Subscription
from projection_service.view import position_header
from shared.errors import LedgerError
from shared.events import Position
from shared.messaging import BROKER_ERRORS
from shared.platform.api import route

LOOK_SECONDS = 1
"""So often, at most, the ledger and the broker are asked how far they are, and only after somebody has asked here; who
asks when nobody has looked for twice as long waits as long for it, at most."""


class PipelineAnswer(BaseModel):
    """Positions, how far the views are behind, and the messages that wait in the queue. What nobody can tell is null.

    `published` is up to where the broker has confirmed the events; `lag_seconds` is the age of the oldest event that is
    not in the views, at most; `time_of_last_event` is of those that are in the views.
    """

    head: int | None
    published: int | None
    applied: int
    lag_events: int | None
    lag_seconds: float
    queue_messages: int | None
    broker: str | None
    problem: str | None
    time_of_last_event: str | None
    views: list[str]


class Pipeline:
    def __init__(self, projection: Projection, subscription: Subscription) -> None:
        self._projection = projection
        self._subscription = subscription
        self._asked = asyncio.Event()
        self._asked.set()
        self._looked = asyncio.Event()
        self._looked_at = -math.inf

    async def watch(self) -> None:
        """Look, for ever, when somebody asks."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            # Who follows the ledger and the broker meets the same trouble, and says it.
            with suppress(LedgerError, *BROKER_ERRORS):
                await self._subscription.look()
            self._looked_at = time.monotonic()
            self._looked.set()
            await asyncio.sleep(LOOK_SECONDS)

    async def told(self) -> PipelineAnswer:
        self._asked.set()
        if time.monotonic() - self._looked_at > 2 * LOOK_SECONDS:
            self._looked.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._looked.wait(), LOOK_SECONDS)
        followed, head = self._subscription, self._subscription.head
        is_fresh = head.is_fresh
        return PipelineAnswer(
            head=head.head if is_fresh else None,
            published=head.published,
            applied=self._projection.position,
            lag_events=int(head.lag_events()) if is_fresh else None,
            lag_seconds=round(head.lag_seconds() if is_fresh else head.lag_seconds_max(), 3),
            queue_messages=followed.queue_messages,
            broker=followed.broker,
            problem=self._projection.trouble or followed.problem,
            time_of_last_event=followed.time_of_last_event,
            views=[view.name for view in self._projection.views],
        )


def add_pipeline(app: FastAPI, pipeline: Pipeline) -> None:
    @route(
        app,
        "/pipeline",
        "GET",
        tags=["operations"],
        summary="How far are the log, the broker and the views?",
        response_model=PipelineAnswer,
    )
    async def asked() -> Response:
        told = await pipeline.told()
        headers = {"Cache-Control": "no-store", **position_header(Position(told.applied))}
        return Response(msgspec.json.encode(told.model_dump()), headers=headers, media_type="application/json")
