"""The reserve."""

import json
from collections.abc import Mapping

from fastapi import APIRouter, Response
from pydantic import BaseModel

from projection_service.view import Asked, Reach, answer
from projection_service.view_store import ViewStore
from projection_service.views.reserve.tables import read_reserve
from shared.platform.api import route, waiting
from shared.platform.gate import Endpoint


class ReserveAnswer(BaseModel):
    """Documentation of the reserve: cents, and the time of the last accepted deposit or withdrawal."""

    amount: int
    last_updated: str | None


def add_queries(queries: APIRouter, store: ViewStore) -> None:
    @route(queries, "/reserve", "GET", summary="The sum of all balances", response_model=ReserveAnswer)
    async def reserve() -> Response:
        view, position = await read_reserve(store.read)
        # The standard library writes integers of any size; the reserve can be over 64 bits.
        body = json.dumps({"amount": view.amount, "last_updated": view.last_updated}).encode()
        return answer(body, position)


def endpoints(store: ViewStore, reach: Reach) -> Mapping[str, Endpoint]:
    return {"/reserve": waiting(Asked, reach)}
