"""One account. When it is asked for plainly, the gate has the answer; the application answers all other queries."""

import re
from collections.abc import Mapping

import msgspec
from fastapi import APIRouter, Response
from pydantic import BaseModel

from projection_service.view import answer, position_header
from projection_service.view_store import ViewStore
from projection_service.views.accounts.tables import read_account
from shared.api import AccountIdPath, route
from shared.events import AccountId, Position, is_account_id
from shared.gate import Answer, Endpoint, Request
from shared.problems import NotFound
from shared.watermark import Watermark

_min_position = re.compile(rb"(?:min_position=([0-9]{1,18}))?").fullmatch
_encode = msgspec.json.Encoder().encode


class AccountAnswer(BaseModel):
    """Documentation of an account: cents, and the time of the last accepted event."""

    id: str
    name: str
    balance: int
    version: int
    last_updated: str


def add_queries(queries: APIRouter, store: ViewStore) -> None:
    @route(queries, "/account/{account_id}", "GET", summary="One account", response_model=AccountAnswer)
    async def account(account_id: AccountIdPath) -> Response:
        view, position = await read_account(store.read, AccountId(account_id))
        if view is None:
            raise NotFound(f"there is no account {account_id!r} at position {position}.", position_header(position))
        return answer(_encode(view), position)


def endpoints(store: ViewStore, watermark: Watermark) -> Mapping[str, Endpoint]:
    async def account(request: Request) -> Answer | None:
        asked = _min_position(request.query)
        if asked is None:
            return None
        min_position = Position(int(asked[1] or 0))
        if min_position > watermark.position or not is_account_id(request.name):
            return None
        view, position = await read_account(store.read, AccountId(request.name))
        if view is None:
            return None
        return Answer(200, b"application/json", _encode(view), ((b"ledger-position", b"%d" % position),))

    return {"/account/": Endpoint("GET", account)}
