"""An account's statement: what it had before, each line, what it had after. In pages, or as CSV as a whole."""

import asyncio
import hashlib
from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple

import msgspec
from fastapi import APIRouter, Header, Query, Request, Response
from msgspec import Meta, Raw
from pydantic import BaseModel, Field

from projection_service.view import (
    ASKED,
    Asked,
    AskedPast,
    AtPosition,
    Past,
    Reach,
    WaitSeconds,
    answer,
    answer_of_gate,
    check_position,
    encode_cursor,
    position_header,
    read_cursor,
)
from projection_service.view_store import ReadRows, ViewStore
from projection_service.views.history.lines import (
    COLUMNS,
    DESCRIPTION,
    METADATA,
    TYPE,
    VERSION,
    Ends,
    Line,
    Order,
    Place,
    Range,
    Reader,
    read_ends,
    read_range,
)
from projection_service.views.history.periods import END, From, To, read_period
from projection_service.views.history.statement_csv import MEDIA_TYPE, VARY, Statements, is_preferred
from shared.errors import InvalidRequest, NotFound
from shared.events import EVENT_TYPES, INT64_MAX, AccountId, Position, Rejected, Value, Version, is_account_id
from shared.platform.api import AccountIdPath, read_query, route
from shared.platform.gate import Answer, Get
from shared.platform.gate import Request as GateRequest
from shared.platform.watermark import Peer

NO_TIME = {"as_of": "is not for statements: send `to`, or at_position"}
PAGE_LINES, PAGE_LINES_MAX = 20, 1_000
PAGE_CHARS_MAX = 512 * 1024
"""Of descriptions and metadata, roughly."""
PAGE_SCAN_MAX = 2_000
"""Events that are looked at for a page, however few of them are asked for."""
CURSOR_CHARS_MAX = 200
DIGEST_CHARS = 16
NO_CURSOR = "is none: send `next` of the page before as it is"
CURSOR_RULE = "`next` of the page before, with everything else but `limit` as it was there."
TYPES = frozenset(EVENT_TYPES)
ACCEPTED_TYPES = frozenset(name for name, event in EVENT_TYPES.items() if not issubclass(event, Rejected))
TYPE_PATTERN = f"^({'|'.join(EVENT_TYPES)})$"
ANSWER = {"content": {MEDIA_TYPE: {}}, "description": "A page; where `Accept` prefers it, all of it as CSV."}

_encode = msgspec.json.Encoder().encode
_Entry: Callable[..., msgspec.Struct] = msgspec.defstruct("Entry", COLUMNS, gc=False)
"""A dict of the columns takes five times as long."""


class Entry(BaseModel):
    """Documentation of a line. Amounts are in cents; `counterpart` is the other account that the money came from or
    went to."""

    position: int
    version: int
    time: str
    type: str
    change: int
    change_of_held: int
    balance: int
    held: int
    available: int
    counterpart: str | None
    description: str | None
    metadata: dict[str, str] | None
    reason: str | None
    hold_id: str | None
    command_id: str


class StatementAnswer(BaseModel):
    """Documentation of a page. `from` is the first moment of the range and `to` the first one after it, null where it
    is open. Until `next` is null there may be more entries, also after a page without any."""

    account_id: str
    name: str
    asset: str
    from_: str | None = Field(alias="from")
    to: str | None
    opening_balance: int
    closing_balance: int
    entries: list[Entry]
    next: str | None


class StatementAsked(BaseModel):
    from_: From = None
    to: To = None
    order: Annotated[Order, Query(description="Of the entries.")] = "newest"
    type: Annotated[str | None, Query(pattern=TYPE_PATTERN, description="Only such events.")] = None
    rejections: Annotated[bool, Query(description="With those, too; a `type` is asked for as it is.")] = False
    at_position: AtPosition = None
    format: Annotated[Literal["csv"] | None, Query(description="As `Accept: text/csv`: links can't say that.")] = None
    limit: Annotated[int | None, Query(ge=1, le=PAGE_LINES_MAX, description=f"{PAGE_LINES} when not said.")] = None
    cursor: Annotated[str | None, Query(max_length=CURSOR_CHARS_MAX, description=CURSOR_RULE)] = None


class _Waiting(Asked, StatementAsked):
    """What the gate reads."""


class Cursor(Value, frozen=True, array_like=True):
    """Where a page begins, in a range that was found for the first one; `query` stands for what was asked, `ledger` for
    the one that has told it."""

    query: str
    ledger: str
    position: Annotated[Position, Meta(ge=0, le=INT64_MAX)]
    first: Annotated[Version, Meta(ge=0, le=INT64_MAX)]
    last: Annotated[Version, Meta(ge=0, le=INT64_MAX)]
    at: Annotated[Version, Meta(ge=0, le=INT64_MAX)]


def add_statement(queries: APIRouter, store: ViewStore, past: Past) -> None:
    statements = Statements(store.read)

    @route(
        queries,
        "/account/{account_id}/statement",
        "GET",
        summary="One account's statement, in pages or as CSV",
        response_model=StatementAnswer,
        responses={200: ANSWER},
    )
    async def statement(
        request: Request,
        account_id: AccountIdPath,
        asked: Annotated[StatementAsked, Query()],
        accept: Annotated[str, Header(description="text/csv for all of it as CSV.")] = "",
        wait: WaitSeconds = 5,
    ) -> Response:
        # The parameter has one line of them.
        as_csv = asked.format == "csv" or is_preferred(", ".join(request.headers.getlist("accept")))
        if as_csv and (wrong := [name for name in ("limit", "cursor") if getattr(asked, name) is not None]):
            raise InvalidRequest([(name, "is for pages, and CSV has all of it") for name in wrong])
        wanted = _wanted(AccountId(account_id), asked)
        if wanted.at is not None:
            asked_past = AskedPast(min_position=request.scope[ASKED], wait=wait, at_position=wanted.at)
            await past(asked_past, Peer.of(request.scope))
            # What was to be reached has been: a page is of when the first one was.
            request.scope[ASKED] = min(wanted.at, request.scope[ASKED])
        found = await _find(store.read, wanted, asked)
        position = found.place.range.position
        if found.ends is None:
            raise NotFound(f"there is no account {account_id!r} at position {position}.", position_header(position))
        if as_csv:
            return statements.response(request, wanted.account_id, found.place, asked.order, wanted.types)
        response = answer(await _page(store, found, found.ends, asked), position)
        response.headers["Vary"] = VARY
        return response


def statement_endpoint(store: ViewStore, reach: Reach) -> Get:
    async def statement(request: GateRequest) -> Answer | None:
        if not is_account_id(request.name):
            return None
        asked = read_query(request.query, _Waiting, NO_TIME)
        wanted = _wanted(AccountId(request.name), asked)
        asked.min_position = max(asked.min_position, wanted.at or 0)
        await reach(asked, request.peer)
        accepted = [value.lower() for name, value in request.sent if name == b"accept"]
        if asked.format or any(b"text/" in value for value in accepted):
            return None
        found = await _find(store.read, wanted, asked)
        if found.ends is None:
            return None
        position = found.place.range.position
        if wanted.at is None:
            check_position(position, asked.min_position)
        body = await _page(store, found, found.ends, asked)
        return answer_of_gate(body, position, (b"vary", VARY.encode()))

    return Get(statement)


class _Wanted(NamedTuple):
    """What is asked for: which lines, from where on, None for the first page, and of which position, None for that of
    the views; `query` stands for it in cursors."""

    account_id: AccountId
    begin: str
    end: str
    types: frozenset[str]
    query: str
    cursor: Cursor | None
    at: Position | None


class _Found(NamedTuple):
    """Where the lines that are asked for are, and between what."""

    wanted: _Wanted
    place: Place
    ends: Ends | None


def _wanted(account_id: AccountId, asked: StatementAsked) -> _Wanted:
    """Raises `InvalidRequest`."""
    begin, end = read_period(asked.from_, asked.to)
    types = frozenset([asked.type]) if asked.type else TYPES if asked.rejections else ACCEPTED_TYPES
    said = (account_id, begin, end, asked.order, asked.type, asked.rejections, asked.at_position)
    query = _digest(said)
    cursor = None if asked.cursor is None else _read_cursor(asked.cursor, query)
    at = asked.at_position if cursor is None else cursor.position
    return _Wanted(account_id, begin, end, types, query, cursor, None if at is None else Position(at))


async def _find(read: ReadRows, wanted: _Wanted, asked: StatementAsked) -> _Found:
    """Raises `InvalidRequest` and `ProjectionBehind`."""
    cursor = wanted.cursor
    if cursor is None:
        range_, ends = await read_range(read, wanted.account_id, wanted.begin, wanted.end, wanted.at)
        return _Found(wanted, Place(range_, range_.last if asked.order == "newest" else range_.first), ends)
    range_ = Range(cursor.first, cursor.last, cursor.position)
    try:
        ends = await read_ends(read, wanted.account_id, range_)
    except ValueError:
        raise InvalidRequest([("cursor", NO_CURSOR)]) from None
    if ends is not None and cursor.ledger != _digest(ends.source):
        raise InvalidRequest([("cursor", "is of another ledger: begin with the first page")])
    return _Found(wanted, Place(range_, cursor.at), ends)


def _digest(said: object) -> str:
    return hashlib.sha256(_encode(said)).hexdigest()[:DIGEST_CHARS]


def _read_cursor(cursor: str, query: str) -> Cursor:
    """Raises `InvalidRequest`."""
    try:
        said = read_cursor(cursor, Cursor)
    except ValueError:
        raise InvalidRequest([("cursor", NO_CURSOR)]) from None
    if said.query != query or not said.first <= said.at <= said.last:
        raise InvalidRequest([("cursor", "is of another statement: all else must be as it was for the page before")])
    return said


def _cursor(wanted: _Wanted, ends: Ends, place: Place) -> str:
    (first, last, position), at = place
    return encode_cursor(Cursor(wanted.query, _digest(ends.source), position, first, last, at))


async def _page(store: ViewStore, found: _Found, ends: Ends, asked: StatementAsked) -> bytes:
    lines_max = asked.limit or PAGE_LINES
    read = store.read if lines_max <= PAGE_LINES else store.read_piece
    lines, next_place = await _read_lines(read, found, asked.order, lines_max)
    told = {
        "account_id": found.wanted.account_id,
        "name": ends.name,
        "asset": ends.asset,
        "from": found.wanted.begin or None,
        "to": None if found.wanted.end == END else found.wanted.end,
        "opening_balance": ends.opening_balance,
        "closing_balance": ends.closing_balance,
        "entries": [_entry(line) for line in lines],
        "next": next_place and _cursor(found.wanted, ends, next_place),
    }
    return _encode(told)


async def _read_lines(read: ReadRows, found: _Found, order: Order, lines_max: int) -> tuple[list[Line], Place | None]:
    """A page's, and where the next one begins, or None. It ends early when it gets too large, or too much is looked at
    for it."""
    reader = Reader(read, found.wanted.account_id, found.place, order)
    lines: list[Line] = []
    size = scanned = 0
    while not reader.is_at_the_end and scanned < PAGE_SCAN_MAX:
        if scanned:
            await asyncio.sleep(0)
        # When some are not asked for, each time as many as before: the next to be asked for may be far away.
        for line in await reader.next(max(lines_max - len(lines), scanned)):
            scanned += 1
            if line[TYPE] not in found.wanted.types:
                continue
            if len(lines) == lines_max or size > PAGE_CHARS_MAX:
                before = line[VERSION] - (order == "oldest")
                return lines, found.place._replace(at=Version(before))
            lines.append(line)
            size += len(line[DESCRIPTION] or "") + len(line[METADATA] or "")
        if len(lines) == lines_max:
            break
    return lines, None if reader.is_at_the_end else reader.place


def _entry(line: Line) -> msgspec.Struct:
    if line[METADATA] is None:
        return _Entry(*line)
    return _Entry(*line[:METADATA], Raw(line[METADATA].encode()), *line[METADATA + 1 :])
