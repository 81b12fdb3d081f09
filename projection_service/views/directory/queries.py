"""The accounts as a list: those that are asked for, in the order that is asked for, page by page."""

import base64
from collections.abc import Mapping
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel

from projection_service.view import Asked, Reach, answer, check_position
from projection_service.view_store import ViewStore
from projection_service.views.accounts.queries import AccountAnswer, told
from projection_service.views.directory.tables import INT64_MIN, Listed, Order, Page, Place, Sort, read_page
from shared.errors import InvalidRequest
from shared.events import ASSET_PATTERN, ASSET_RULE, INT64_MAX, NAME_CHARS_MAX, Status, is_account_id
from shared.platform.api import read_query, route
from shared.platform.gate import Answer, Endpoint, Request

PAGE_ACCOUNTS_MAX = 250
CURSOR_CHARS_MAX = 2_000
"""The longest name takes half of it."""

_encode = msgspec.json.Encoder().encode
NO_CURSOR = "is not what a page of this list has said in `next`"

Balance = Annotated[int | None, Query(ge=INT64_MIN, le=INT64_MAX, description="In cents. Needs `asset`.")]


class AccountsAsked(BaseModel):
    prefix: Annotated[
        str,
        Query(
            max_length=NAME_CHARS_MAX,
            pattern=r"^[^\x00]*$",
            description="Of the name; A and a are not the same.",
        ),
    ] = ""
    asset: Annotated[str | None, Query(pattern=ASSET_PATTERN, description=ASSET_RULE)] = None
    status: Status | None = None
    min_balance: Balance = None
    max_balance: Balance = None
    sort: Annotated[Sort, Query(description="By name and id as their bytes are. By balance needs `asset`.")] = "name"
    order: Order = "asc"
    limit: Annotated[int, Query(ge=1, le=PAGE_ACCOUNTS_MAX)] = 100
    cursor: Annotated[
        str | None, Query(max_length=CURSOR_CHARS_MAX, description="The `next` of the page before, asked for alike.")
    ] = None


class _Waiting(Asked, AccountsAsked):
    """What the gate reads."""


class AccountsAnswer(BaseModel):
    """Accounts as they were at the position in `Ledger-Position`, and the cursor of the next page, null at the end. A
    page may have fewer accounts than `limit`, or none, and still a next one."""

    accounts: list[AccountAnswer]
    next: str | None


class _Cursor(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    sort: Sort
    order: Order
    key: int | str
    id: str


def add_queries(queries: APIRouter, store: ViewStore) -> None:
    @route(queries, "/accounts", "GET", summary="Accounts, filtered and in order", response_model=AccountsAnswer)
    async def accounts(asked: Annotated[AccountsAsked, Query()]) -> Response:
        page = await _read(store, asked)
        return answer(_told(page, asked), page.position)


def endpoints(store: ViewStore, reach: Reach) -> Mapping[str, Endpoint]:
    async def accounts(request: Request) -> Answer:
        asked = read_query(request.query, _Waiting)
        await reach(asked, request.peer)
        page = await _read(store, asked)
        check_position(page.position, asked.min_position)
        position = (b"ledger-position", b"%d" % page.position)
        return Answer(200, b"application/json", _told(page, asked), (position,))

    return {"/accounts": Endpoint("GET", accounts)}


async def _read(store: ViewStore, asked: AccountsAsked) -> Page:
    """Raises `InvalidRequest`."""
    low, high = asked.min_balance, asked.max_balance
    if asked.asset is None and (asked.sort == "balance" or low is not None or high is not None):
        raise InvalidRequest([("asset", "is missing: balances in different assets can't be compared")])
    listed = Listed(
        asked.sort,
        asked.order,
        asked.prefix,
        asked.asset,
        asked.status,
        INT64_MIN if low is None else low,
        INT64_MAX if high is None else high,
    )
    return await read_page(store.read, listed, _after(asked), asked.limit)


def _told(page: Page, asked: AccountsAsked) -> bytes:
    cursor = None
    if page.last is not None:
        place = _encode(_Cursor(asked.sort, asked.order, page.last.key, page.last.id))
        cursor = base64.urlsafe_b64encode(place).rstrip(b"=").decode()
    return _encode({"accounts": [told(account) for account in page.accounts], "next": cursor})


def _after(asked: AccountsAsked) -> Place | None:
    """Raises `InvalidRequest` when the cursor is none of this list's."""
    if asked.cursor is None:
        return None
    try:
        padded = asked.cursor + "=" * (-len(asked.cursor) % 4)
        cursor = msgspec.json.decode(base64.b64decode(padded, b"-_", validate=True), type=_Cursor)
    except (ValueError, msgspec.MsgspecError) as error:
        raise InvalidRequest([("cursor", NO_CURSOR)]) from error
    is_right = isinstance(cursor.key, int) and INT64_MIN <= cursor.key <= INT64_MAX
    if asked.sort != "balance":
        is_right = isinstance(cursor.key, str) and "\0" not in cursor.key
    if (cursor.sort, cursor.order) != (asked.sort, asked.order) or not is_right or not is_account_id(cursor.id):
        raise InvalidRequest([("cursor", NO_CURSOR)])
    return Place(cursor.key, cursor.id)
