"""The holds that were open at a position, in SQL, and what a run of events changes there.

However many an account has had, only those that were open then are looked at.
"""

from collections.abc import AsyncIterator, Mapping, Sequence

import msgspec

from projection_service.view import Run, check_position
from projection_service.view_store import Change, Read, ReadRows, Write, one_row
from projection_service.views.history.fold import OPEN_FORK, forks, hold_rows
from shared.events import HOLD_EVENTS, INT64_MAX, AccountId, HoldId, HoldPlaced, Position, Value

PIECE_INTERVALS_MAX = 500
"""Looked at together; then others have their turn. A page looks at all that were open then."""
PIECE_HOLDS_MAX = 50
"""Read together: with metadata, the event of each may have some kilobytes."""

# An id may have been a million holds', one after another: the last of them is looked up.
READ_PLACED_SQL = """
    SELECT value ->> 0 AS account_id, value ->> 1 AS hold_id, (
        SELECT placed FROM history_holds
        WHERE account_id = value ->> 0 AND hold_id = value ->> 1 ORDER BY placed DESC LIMIT 1
    ) AS placed
    FROM {}
"""
READ_PLACED = Read(READ_PLACED_SQL.format("json_each(?1)"), READ_PLACED_SQL.format("json_array_elements($1) AS asked"))
PUT_HOLDS = Write(
    "account_id text, hold_id text, placed bigint, ended bigint, fork bigint",
    """
    INSERT INTO history_holds (account_id, hold_id, placed, ended, fork) SELECT * FROM changed WHERE true
    ON CONFLICT (account_id, hold_id, placed) DO UPDATE SET ended = excluded.ended, fork = excluded.fork
    """,
)
# Of the account $1, at the position $3: for each fork of $2 at most $4, after the given end or beginning. Those at a
# fork before the position were open at the fork, and are asked for by their ends; the others by their beginnings.
READ_OPEN_SQL = """
    SELECT checkpoint.position, found.fork, found.key, found.hold_id, found.placed
    FROM checkpoint LEFT JOIN (
        {by_ended}
        UNION ALL
        {by_placed}
    ) AS found ON true
"""
# SQLite, which has no LATERAL, finds first where the last of so many is.
ASKED = "(SELECT CAST(value ->> 0 AS bigint) AS fork, CAST(value ->> 1 AS bigint) AS after FROM {}) AS asked"
OF_SQLITE = f"""
    SELECT asked.fork, hold.{{key}} AS key, hold.hold_id, hold.placed
    FROM {ASKED.format("json_each(?2)")} CROSS JOIN history_holds AS hold
    WHERE {{is_side}} AND hold.account_id = ?1 AND hold.fork = asked.fork AND hold.{{key}} > asked.after
        AND hold.{{key}} <= min({{last}}, coalesce((
            SELECT one.{{key}} FROM history_holds AS one
            WHERE one.account_id = ?1 AND one.fork = asked.fork AND one.{{key}} > asked.after
            ORDER BY one.{{key}} LIMIT 1 OFFSET ?4 - 1
        ), {{last}}))
"""
OF_POSTGRES = f"""
    SELECT asked.fork, hold.*
    FROM {ASKED.format("json_array_elements($2) AS listed")} CROSS JOIN LATERAL (
        SELECT {{key}} AS key, hold_id, placed FROM history_holds
        WHERE {{is_side}} AND account_id = $1 AND fork = asked.fork AND {{key}} > asked.after AND {{key}} <= {{last}}
        ORDER BY {{key}} LIMIT $4
    ) AS hold
"""


def _read_open(of_side: str, parameter: str) -> str:
    at = f"{parameter}3"
    return READ_OPEN_SQL.format(
        by_ended=of_side.format(key="ended", is_side=f"asked.fork <= {at}", last=INT64_MAX),
        by_placed=of_side.format(key="placed", is_side=f"asked.fork > {at}", last=at),
    )


READ_OPEN = Read(_read_open(OF_SQLITE, "?"), _read_open(OF_POSTGRES, "$"))
READ_HOLDS = Read(
    *(
        f"""
        SELECT checkpoint.position, account.position, event.position, event.amount, event.time, event.data
        FROM checkpoint
        LEFT JOIN history_accounts AS account ON account.account_id = {parameter}1 AND account.position <= {parameter}2
        LEFT JOIN history AS event ON event.entry {among}
        """
        for parameter, among in (("?", "IN (SELECT value FROM json_each(?3))"), ("$", "= ANY($3)"))
    )
)

_encode = msgspec.json.Encoder().encode


class _Said(Value, frozen=True):
    """What of the event that placed it is in no column of its row."""

    description: str
    expires_at: str | None = None


_decode = msgspec.json.Decoder(_Said).decode


async def hold_changes(run: Run) -> Change:
    events = [recorded for recorded in run.events if type(recorded.event) in HOLD_EVENTS]
    ended = {
        (event.account_id, event.event.hold_id)  # type: ignore[union-attr]
        for event in events
        if type(event.event) is not HoldPlaced
    }
    placed = await run.read(READ_PLACED, _encode(list(ended)).decode()) if ended else []
    return Change(PUT_HOLDS, hold_rows(events, {(row[0], row[1]): row[2] for row in placed if row[2] is not None}))


async def read_holds(
    read: ReadRows, account_id: AccountId, at: Position, after: HoldId, holds_max: int
) -> Sequence[Mapping[str, object]] | None:
    """Those that were open, after the id `after`, in the order of their ids; None when there was no such account.

    Raises `ProjectionBehind`.
    """
    first: list[tuple[HoldId, Position]] = []
    async for piece in _open_at(read, account_id, at):
        first = sorted({*first, *(hold for hold in piece if hold[0] > after)})[:holds_max]
    told: list[Mapping[str, object]] = []
    for begin in range(0, max(1, len(first)), PIECE_HOLDS_MAX):
        page = first[begin : begin + PIECE_HOLDS_MAX]
        rows = await read(READ_HOLDS, account_id, at, [2 * placed for _, placed in page])
        reached, created, *_ = one_row(rows)
        check_position(reached, at)
        if created is None:
            return None
        events = {position: row for _, _, position, *row in rows}
        told += [_told(hold_id, *events[placed]) for hold_id, placed in page]
    return told


async def _open_at(read: ReadRows, account_id: AccountId, at: Position) -> AsyncIterator[list[tuple[HoldId, Position]]]:
    """With where they were placed; some may come twice. Raises `ProjectionBehind`."""
    reached = at
    # Those that are open still come first: whichever ends while they are gone through is met here or among the others.
    for is_open in (True, False):
        asked = {fork: at if fork <= at else 0 for fork in ([OPEN_FORK] if is_open else forks(at, reached))}
        while asked:
            count = max(1, PIECE_INTERVALS_MAX // len(asked))
            rows = await read(READ_OPEN, account_id, _encode(list(asked.items())).decode(), at, count)
            reached = one_row(rows)[0]
            check_position(reached, at)
            found = [row[1:] for row in rows if row[1] is not None]
            yield [(hold_id, placed) for _, _, hold_id, placed in found]
            keys: dict[int, list[int]] = {}
            for fork, key, *_ in found:
                keys.setdefault(fork, []).append(key)
            asked = {fork: max(some) for fork, some in keys.items() if len(some) == count}


def _told(hold_id: HoldId, amount: int, time: str, data: str) -> dict[str, object]:
    """As the query of those that are open now tells it."""
    said = _decode(data)
    return {
        "hold_id": hold_id,
        "amount": amount,
        "expires_at": said.expires_at,
        "description": said.description,
        "placed_at": time,
    }
