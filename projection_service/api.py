"""The projection service's HTTP face: queries of the views."""

import json
from collections.abc import Callable
from typing import Annotated

import msgspec
from fastapi import FastAPI, Query, Request, Response
from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from projection_service.projection import Projection
from projection_service.subscription import Subscription
from projection_service.view_store import ViewStore
from shared.api import AccountIdPath, E, route
from shared.docs import install_docs
from shared.events import AccountId, Position
from shared.problems import NotFound, ProjectionBehind, install_problem_handlers, problem_responses
from shared.telemetry import install_operator_routes
from shared.watermark import Peer

WAIT_SECONDS_MAX = 60

MinPosition = Annotated[
    int,
    Query(
        ge=0,
        le=2**63 - 1,
        description="Answer only once the view has reached this position: with the position "
        "from a command's answer, read your own write.",
    ),
]
WaitSeconds = Annotated[
    float, Query(ge=0, le=WAIT_SECONDS_MAX, description="Seconds to wait for min_position at most.")
]


class AccountAnswer(BaseModel):
    """Documentation of an account: cents, and the time of the last accepted event."""

    id: str
    name: str
    balance: int
    version: int
    last_updated: str


class ReserveAnswer(BaseModel):
    """Documentation of the reserve: cents, and the time of the last accepted deposit or withdrawal."""

    amount: int
    last_updated: str | None


def create_api(
    store: ViewStore, projection: Projection, subscription: Subscription, registry: CollectorRegistry
) -> FastAPI:
    app = FastAPI(
        title="Counting House: projection service",
        summary="Answers queries from views of the event log.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    install_problem_handlers(app)

    def get(path: str, summary: str, answer: type[BaseModel], *problems: int) -> Callable[[E], E]:
        return route(
            app,
            path,
            "GET",
            summary=summary,
            tags=["queries"],
            response_model=answer,
            responses=problem_responses(*problems),
        )

    async def reach(request: Request, min_position: int, wait: float) -> None:
        if not await projection.watermark.reach(Position(min_position), wait, Peer.of(request.scope)):
            reached = projection.watermark.position
            raise ProjectionBehind(f"the view is at position {reached}, not yet at {min_position}.", reached)

    @get("/account/{account_id}", "One account", AccountAnswer, 404, 422, 503)
    async def account(
        request: Request, account_id: AccountIdPath, min_position: MinPosition = 0, wait: WaitSeconds = 5
    ) -> Response:
        await reach(request, min_position, wait)
        view, position = await store.account(AccountId(account_id))
        if view is None:
            raise NotFound(
                f"there is no account {account_id!r} at position {position}.",
                headers={"Ledger-Position": str(position)},
            )
        return _answer(msgspec.json.encode(view), position)

    @get("/reserve", "The sum of all balances", ReserveAnswer, 422, 503)
    async def reserve(request: Request, min_position: MinPosition = 0, wait: WaitSeconds = 5) -> Response:
        await reach(request, min_position, wait)
        checkpoint = await store.checkpoint()
        view = checkpoint.reserve
        # The standard library writes integers of any size; the reserve can be over 64 bits.
        body = json.dumps({"amount": view.amount, "last_updated": view.last_updated}).encode()
        return _answer(body, checkpoint.position)

    @app.get(
        "/readyz",
        tags=["operations"],
        summary="Have the views caught up with the log?",
        responses=problem_responses(503),
    )
    async def readyz() -> dict[str, str | int]:
        return {
            "status": "ready",
            "subscription": subscription.check_ready(),
            "position": projection.position,
        }

    install_operator_routes(app, registry)
    install_docs(app)
    return app


def _answer(body: bytes, position: Position) -> Response:
    return Response(body, headers={"Ledger-Position": str(position)}, media_type="application/json")
