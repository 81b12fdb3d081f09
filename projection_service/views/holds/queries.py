"""One account's open holds, in pages."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel

from projection_service.view import Past, Then, answer, position_header, then_of
from projection_service.view_store import ViewStore
from projection_service.views.holds.tables import read_holds
from shared.errors import NotFound
from shared.events import ACCOUNT_ID_PATTERN, ACCOUNT_ID_RULE, AccountId, HoldId, Position
from shared.platform.api import AccountIdPath, route

PAGE_HOLDS_MAX = 250
"""With the longest descriptions they are 1.5 MB."""

_encode = msgspec.json.Encoder().encode


class HoldAnswer(BaseModel):
    """Documentation of an open hold: cents, and the times when it was placed and when it expires, if it does."""

    hold_id: str
    amount: int
    expires_at: str | None
    description: str
    placed_at: str


def add_queries(queries: APIRouter, store: ViewStore, past: Past) -> None:
    @route(
        queries,
        "/account/{account_id}/holds",
        "GET",
        summary="One account's open holds, in the order of their ids",
        response_model=list[HoldAnswer],
    )
    async def account_holds(
        account_id: AccountIdPath,
        then: Annotated[Then | None, Depends(then_of(past))],
        after: Annotated[
            str | None,
            Query(pattern=ACCOUNT_ID_PATTERN, description=f"A hold's id, {ACCOUNT_ID_RULE}: those after it."),
        ] = None,
        limit: Annotated[int, Query(ge=1, le=PAGE_HOLDS_MAX)] = 100,
    ) -> Response:
        told, position = await _read(store, AccountId(account_id), HoldId(after or ""), limit, then)
        if told is None:
            raise NotFound(f"there is no account {account_id!r} at position {position}.", position_header(position))
        return answer(_encode(told), position)


async def _read(
    store: ViewStore, account_id: AccountId, after: HoldId, holds_max: int, then: Then | None
) -> tuple[Sequence[Mapping[str, object]] | None, Position]:
    if then is not None:
        return await then.holds(account_id, after, holds_max), then.position
    holds, position = await read_holds(store.read, account_id, after, holds_max)
    if holds is None:
        return None, position
    return [{name: getattr(hold, name) for name in HoldAnswer.model_fields} for hold in holds], position
