"""One account. When it is asked for plainly, the gate has the answer; the application answers all other queries."""

from collections.abc import Mapping
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Response
from msgspec.structs import asdict
from pydantic import BaseModel

from projection_service.view import (
    AskedPast,
    Past,
    Reach,
    Then,
    answer,
    answer_of_gate,
    check_position,
    position_header,
    then_of,
)
from projection_service.view_store import ViewStore
from projection_service.views.accounts.fold import AccountView
from projection_service.views.accounts.tables import read_account
from shared.errors import NotFound
from shared.events import AccountId, Position, Status, is_account_id
from shared.platform.api import AccountIdPath, read_query, route
from shared.platform.gate import Answer, Get, Request

_encode = msgspec.json.Encoder().encode


class AccountAnswer(BaseModel):
    """Documentation of an account: cents, and the time of the last accepted event."""

    id: str
    name: str
    asset: str
    balance: int
    held: int
    available: int
    overdraft_limit: int
    status: Status
    version: int
    last_updated: str


def add_queries(queries: APIRouter, store: ViewStore, past: Past) -> None:
    @route(queries, "/account/{account_id}", "GET", summary="One account", response_model=AccountAnswer)
    async def account(account_id: AccountIdPath, then: Annotated[Then | None, Depends(then_of(past))]) -> Response:
        found, position = await _read(store, AccountId(account_id), then)
        if found is None:
            raise NotFound(f"there is no account {account_id!r} at position {position}.", position_header(position))
        return answer(_encode(found), position)


def endpoints(store: ViewStore, reach: Reach, past: Past) -> Mapping[str, Get]:
    async def account(request: Request) -> Answer | None:
        if not is_account_id(request.name):
            return None
        asked = read_query(request.query, AskedPast) if request.query else None
        then = await past(asked, request.peer) if asked else None
        found, position = await _read(store, AccountId(request.name), then)
        if found is None:
            return None
        if asked and then is None:
            check_position(position, asked.min_position)
        return answer_of_gate(_encode(found), position)

    return {"/account/": Get(account)}


async def _read(
    store: ViewStore, account_id: AccountId, then: Then | None
) -> tuple[Mapping[str, object] | None, Position]:
    if then is not None:
        return await then.account(account_id), then.position
    view, position = await read_account(store.read, account_id)
    return None if view is None else told(view), position


def told(view: AccountView) -> dict[str, object]:
    """As JSON has it."""
    return {**asdict(view), "available": view.available}
