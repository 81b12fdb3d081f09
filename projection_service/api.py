"""The projection service's HTTP face: queries of the views."""

import json
from collections.abc import Callable
from typing import Annotated

import msgspec
from fastapi import FastAPI, Query, Response
from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from projection_service.projection import Projection
from projection_service.subscription import Subscription
from projection_service.view_store import ViewStore
from shared.api import AccountIdPath, E, route
from shared.docs import install_docs
from shared.events import AccountId, Position
from shared.problems import NotFound, install_problem_handlers, problem_responses
from shared.telemetry import install_operator_routes

WAIT_SECONDS_MAX = 60


class Asked(BaseModel):
    min_position: Annotated[
        int,
        Query(
            ge=0,
            le=2**63 - 1,
            description="Answer only once the view has reached this position: with the position "
            "from a command's answer, read your own write.",
        ),
    ] = 0
    wait: Annotated[
        float, Query(ge=0, le=WAIT_SECONDS_MAX, description="Seconds to wait for min_position at most.")
    ] = 5


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
    """Its queries do not wait: `hot_paths` has done so before they are asked."""
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

    @get("/account/{account_id}", "One account", AccountAnswer, 404, 422, 503)
    async def account(account_id: AccountIdPath, asked: Annotated[Asked, Query()]) -> Response:
        view, position = await store.account(AccountId(account_id))
        if view is None:
            raise NotFound(
                f"there is no account {account_id!r} at position {position}.",
                headers={"Ledger-Position": str(position)},
            )
        return _answer(msgspec.json.encode(view), position)

    @get("/reserve", "The sum of all balances", ReserveAnswer, 422, 503)
    async def reserve(asked: Annotated[Asked, Query()]) -> Response:
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
