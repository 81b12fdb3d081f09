"""How an account's balance and an asset's reserve went: as of moments at equal distances."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel

from projection_service.view import Past, Then, answer, check_position, position_header, then_of
from projection_service.view_store import Read, ReadRows, ViewStore, one_row
from projection_service.views.history.periods import BEGINNING, END, From, To, read_period
from projection_service.views.history.tables import MIDDLE, VERSION_SEARCH, for_each, halved, last_entry, reserve_entry
from projection_service.views.reserve.queries import AssetAsked
from shared.errors import InvalidRequest, NotFound
from shared.events import INT64_MAX, USD, Position, written
from shared.platform.api import AccountIdPath, route

BUCKETS, BUCKETS_MAX = 100, 500
PIECE_POINTS = 20
"""Searched for together, in a millisecond or so; then others have their turn."""

Buckets = Annotated[
    int, Query(ge=1, le=BUCKETS_MAX, description="The points are one more, at equal distances from each other.")
]
MICROSECOND = timedelta(microseconds=1)


class BalancePoint(BaseModel):
    """As of `time`, in cents; `position` is of the account's last event until then, 0 before the first."""

    time: str
    position: int
    balance: int
    held: int
    available: int


class BalancesAnswer(BaseModel):
    account_id: str
    asset: str
    points: list[BalancePoint]


class ReservePoint(BaseModel):
    """As of `time`, in cents; `position` is of the event that changed it last until then, 0 before the first."""

    time: str
    position: int
    amount: int


class ReserveHistoryAnswer(BaseModel):
    asset: str
    points: list[ReservePoint]


# Up to the entry $2.
READ_ACCOUNT_SPAN = Read.in_both(f"""
    WITH RECURSIVE {VERSION_SEARCH}
    SELECT checkpoint.position, asset, first.time, last.time, last.version
    FROM checkpoint
    LEFT JOIN history_accounts AS account ON account.account_id = $1 AND 2 * account.position <= $2
    LEFT JOIN history AS first ON first.entry = 2 * account.position
    LEFT JOIN history AS last ON last.account_id = $1 AND last.version = (SELECT max(low) FROM search)
""")
READ_BALANCES = for_each(
    "moment",
    f"""
    WITH RECURSIVE search (moment, low, rest) AS (
        SELECT moment, CAST(0 AS bigint), CAST($3 AS bigint) FROM ({{asked}}) AS asked
        UNION ALL
        SELECT
            moment,
            {halved(f"SELECT time FROM history WHERE account_id = $2 AND version = {MIDDLE}", "<= moment")}
        FROM search WHERE rest > 0
    )
    SELECT checkpoint.position, moment, after.position, balance, held, overdraft_limit
    FROM checkpoint CROSS JOIN (SELECT moment, max(low) AS version FROM search GROUP BY moment) AS found {{after}}
    """,
    "after.account_id = $2 AND after.version = found.version",
)
# Up to the position $1.
READ_LEDGER_SPAN = Read.in_both("""
    SELECT
        position,
        (SELECT time FROM history WHERE entry = 2 AND CAST($1 AS bigint) > 0),
        (
            SELECT time FROM history
            WHERE entry = 2 * CASE WHEN checkpoint.position < $1 THEN checkpoint.position ELSE $1 END
        )
    FROM checkpoint
""")
READ_RESERVES = for_each(
    "moment",
    f"""
    WITH RECURSIVE search (moment, low, rest) AS (
        SELECT moment, CAST(0 AS bigint), CAST($3 AS bigint) FROM ({{asked}}) AS asked
        UNION ALL
        SELECT
            moment,
            {halved(f"SELECT time FROM history WHERE entry = 2 * ({MIDDLE})", "<= moment")}
        FROM search WHERE rest > 0
    )
    SELECT checkpoint.position, moment, after.position, reserve
    FROM checkpoint CROSS JOIN (SELECT moment, max(low) AS position FROM search GROUP BY moment) AS found {{after}}
    """,
    f"after.entry = {reserve_entry('$2', 'found.position')}",
)


def add_charts(queries: APIRouter, store: ViewStore, past: Past) -> None:
    @route(
        queries,
        "/account/{account_id}/balances",
        "GET",
        summary="One account's balance over time",
        response_model=BalancesAnswer,
    )
    async def balances(
        account_id: AccountIdPath,
        then: Annotated[Then | None, Depends(then_of(past))],
        from_: From = None,
        to: To = None,
        buckets: Buckets = BUCKETS,
    ) -> Response:
        asked = read_period(from_, to)
        entry = INT64_MAX if then is None else last_entry(then.position)
        reached, asset, first, last, version = one_row(await store.read(READ_ACCOUNT_SPAN, account_id, entry))
        position = _position(then, reached)
        if asset is None:
            raise NotFound(f"there is no account {account_id!r} at position {position}.", position_header(position))
        times = moments(asked, first, last, buckets)
        rows = await _read(store.read_piece, READ_BALANCES, (account_id, version), times, position)
        points = [
            {
                "time": moment,
                "position": at or 0,
                "balance": balance or 0,
                "held": held or 0,
                "available": (balance or 0) - (held or 0) + (limit or 0),
            }
            for moment, at, balance, held, limit in rows
        ]
        return answer(_encode({"account_id": account_id, "asset": asset, "points": points}), position)

    @route(
        queries,
        "/reserve/history",
        "GET",
        summary="The sum of all balances in an asset over time",
        response_model=ReserveHistoryAnswer,
    )
    async def reserve_history(
        then: Annotated[Then | None, Depends(then_of(past))],
        asset: AssetAsked = USD,
        from_: From = None,
        to: To = None,
        buckets: Buckets = BUCKETS,
    ) -> Response:
        asked = read_period(from_, to)
        up_to = INT64_MAX if then is None else then.position
        reached, first, last = one_row(await store.read(READ_LEDGER_SPAN, up_to))
        position = _position(then, reached)
        times = moments(asked, first, last, buckets)
        rows = await _read(store.read_piece, READ_RESERVES, (asset, position), times, position)
        points = [{"time": moment, "position": at or 0, "amount": int(amount or 0)} for moment, at, amount in rows]
        return answer(_encode({"asset": asset, "points": points}), position)


def _position(then: Then | None, reached: Position) -> Position:
    """That of the answer. Raises `ProjectionBehind`."""
    if then is None:
        return reached
    check_position(reached, then.position)
    return then.position


def moments(asked: tuple[str, str], first: str | None, last: str | None, buckets: int) -> list[str]:
    """The range that was `asked` for, up to now; an end that was left open is where the `first` or `last` event is.

    Raises `InvalidRequest`.
    """
    begin, end = asked
    now = written(datetime.now(UTC))
    if begin > now:
        raise InvalidRequest([("from", "must not be in the future: nobody knows yet how it will be")])
    end = max(begin, last or BEGINNING) if end == END else min(end, now)
    if begin == BEGINNING:
        begin = min(first or end, end)
    if end == BEGINNING:
        return []  # nothing has happened yet, and no time was asked for
    start = datetime.fromisoformat(begin)
    length = (datetime.fromisoformat(end) - start) // MICROSECOND
    return [written(start + length * number // buckets * MICROSECOND) for number in range(buckets + 1)]


async def _read(
    read: ReadRows, statement: Read, of: tuple[object, object], times: Sequence[str], position: Position
) -> list[tuple[Any, ...]]:
    """A row for each of `times`, as it was when the views were at `position`. Raises `ProjectionBehind`."""
    found: dict[str, tuple[Any, ...]] = {}
    for begin in range(0, len(times), PIECE_POINTS):
        rows = await read(statement, list(times[begin : begin + PIECE_POINTS]), *of)
        check_position(one_row(rows)[0], position)
        found |= {row[1]: tuple(row[1:]) for row in rows}
    return [found[time] for time in times]


def _encode(told: object) -> bytes:
    # The standard library writes integers of any size; the reserve can be over 64 bits.
    return json.dumps(told).encode()
