"""One account. When it is asked for plainly, the gate has the answer; the application answers all other queries."""

from collections.abc import Mapping

import msgspec
from fastapi import APIRouter, Response
from msgspec.structs import asdict
from pydantic import BaseModel

from projection_service.view import Asked, Reach, answer, check_position, position_header
from projection_service.view_store import ViewStore
from projection_service.views.accounts.fold import AccountView
from projection_service.views.accounts.tables import read_account
from shared.errors import NotFound
from shared.events import AccountId, Status, is_account_id
from shared.platform.api import AccountIdPath, read_query, route
from shared.platform.gate import Answer, Endpoint, Request

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


def add_queries(queries: APIRouter, store: ViewStore) -> None:
    @route(queries, "/account/{account_id}", "GET", summary="One account", response_model=AccountAnswer)
    async def account(account_id: AccountIdPath) -> Response:
        view, position = await read_account(store.read, AccountId(account_id))
        if view is None:
            raise NotFound(f"there is no account {account_id!r} at position {position}.", position_header(position))
        return answer(_encode(told(view)), position)


def endpoints(store: ViewStore, reach: Reach) -> Mapping[str, Endpoint]:
    async def account(request: Request) -> Answer | None:
        if not is_account_id(request.name):
            return None
        asked = read_query(request.query, Asked) if request.query else None
        if asked:
            await reach(asked, request.peer)
        view, position = await read_account(store.read, AccountId(request.name))
        if view is None:
            return None
        if asked:
            check_position(position, asked.min_position)
        return Answer(200, b"application/json", _encode(told(view)), ((b"ledger-position", b"%d" % position),))

    return {"/account/": Endpoint("GET", account)}


def told(view: AccountView) -> dict[str, object]:
    """As JSON has it."""
    return {**asdict(view), "available": view.available}
