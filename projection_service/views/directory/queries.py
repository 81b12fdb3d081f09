"""The accounts as a list: those that are asked for, in the order that is asked for, page by page."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel

from projection_service.view import (
    AskedPast,
    Past,
    Reach,
    Then,
    answer,
    answer_of_gate,
    check_position,
    encode_cursor,
    read_cursor,
    then_of,
)
from projection_service.view_store import ViewStore
from projection_service.views.accounts.queries import AccountAnswer, told
from projection_service.views.directory.tables import INT64_MIN, Listed, Order, Place, Sort, read_page
from shared.errors import InvalidRequest
from shared.events import ASSET_PATTERN, ASSET_RULE, INT64_MAX, NAME_CHARS_MAX, Position, Status, is_account_id
from shared.platform.api import read_query, route
from shared.platform.gate import Answer, Get, Request

PAGE_ACCOUNTS_MAX = 250
PAST_ACCOUNTS_MAX = 100
"""Looked at for a page of the past: each is searched for in the history."""
CURSOR_CHARS_MAX = 2_000
"""The longest name takes half of it."""

_encode = msgspec.json.Encoder().encode
LASTING = ("name", "id")
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


class _Waiting(AskedPast, AccountsAsked):
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


def add_queries(queries: APIRouter, store: ViewStore, past: Past) -> None:
    @route(queries, "/accounts", "GET", summary="Accounts, filtered and in order", response_model=AccountsAnswer)
    async def accounts(
        asked: Annotated[AccountsAsked, Query()], then: Annotated[Then | None, Depends(then_of(past))]
    ) -> Response:
        return answer(*await _answer(store, asked, then))


def endpoints(store: ViewStore, reach: Reach, past: Past) -> Mapping[str, Get]:
    async def accounts(request: Request) -> Answer:
        asked = read_query(request.query, _Waiting)
        then = await past(asked, request.peer)
        body, position = await _answer(store, asked, then)
        if then is None:
            check_position(position, asked.min_position)
        return answer_of_gate(body, position)

    return {"/accounts": Get(accounts)}


async def _answer(store: ViewStore, asked: AccountsAsked, then: Then | None) -> tuple[bytes, Position]:
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
    after = _after(asked)
    if then is None:
        page = await read_page(store.read, listed, after, asked.limit)
        return _told([told(account) for account in page.accounts], page.last, asked), page.position
    if asked.sort not in LASTING:
        raise InvalidRequest([("sort", f"of the past there is only {' and '.join(LASTING)}, which never change")])
    found, last = await _read_past(store, listed, after, min(asked.limit, PAST_ACCOUNTS_MAX), then)
    return _told(found, last, asked), then.position


async def _read_past(
    store: ViewStore, listed: Listed, after: Place | None, accounts_max: int, then: Then
) -> tuple[list[Mapping[str, object]], Place | None]:
    """Of the accounts that there are now, those that were there, and as they were. Raises `ProjectionBehind`."""
    # What lasts can be asked of the accounts that there are now.
    lasting = Listed(listed.sort, listed.order, listed.prefix, listed.asset)
    page = await read_page(store.read, lasting, after, accounts_max)
    accounts = await then.accounts([account.id for account in page.accounts])
    found: list[Mapping[str, object]] = []
    for account in page.accounts:
        was = accounts.get(account.id)
        if was is not None and listed.status in (None, was["status"]):
            balance = was["balance"]
            if isinstance(balance, int) and listed.min_balance <= balance <= listed.max_balance:
                found.append(was)
    return found, page.last


def _told(accounts: Sequence[Mapping[str, object]], last: Place | None, asked: AccountsAsked) -> bytes:
    cursor = None
    if last is not None:
        cursor = encode_cursor(_Cursor(asked.sort, asked.order, last.key, last.id))
    return _encode({"accounts": accounts, "next": cursor})


def _after(asked: AccountsAsked) -> Place | None:
    """Raises `InvalidRequest` when the cursor is none of this list's."""
    if asked.cursor is None:
        return None
    try:
        cursor = read_cursor(asked.cursor, _Cursor)
    except ValueError as error:
        raise InvalidRequest([("cursor", NO_CURSOR)]) from error
    is_right = isinstance(cursor.key, int) and INT64_MIN <= cursor.key <= INT64_MAX
    if asked.sort != "balance":
        is_right = isinstance(cursor.key, str) and "\0" not in cursor.key
    if (cursor.sort, cursor.order) != (asked.sort, asked.order) or not is_right or not is_account_id(cursor.id):
        raise InvalidRequest([("cursor", NO_CURSOR)])
    return Place(cursor.key, cursor.id)
