"""The lines of an account's statement: its events, each with what it changed and what was there after it."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import Raw

from projection_service.view import check_position
from projection_service.view_store import Read, ReadRows, one_row
from projection_service.views.history.periods import BEGINNING, END
from projection_service.views.history.tables import MIDDLE, READ_VERSION, halved, last_entry
from shared.events import AccountId, Asset, Position, Value, Version

PIECE_LINES_FIRST, PIECE_LINES_MIN, PIECE_LINES_MAX = 50, 4, 250
PIECE_CHARS = 96 * 1024
"""About so much is read at a time: nobody else waits longer than some 2 ms."""
ROW_CHARS = 300
"""Of a row beside its event's data, roughly."""

COLUMNS = (
    *("position", "version", "time", "type", "change", "change_of_held", "balance", "held", "available"),
    *("counterpart", "description", "metadata", "reason", "hold_id", "command_id"),
)
Line = tuple[Any, ...]
"""One of `COLUMNS`. Amounts are in cents, `metadata` is JSON; `available` may be over 64 bits."""
VERSION, TYPE, COUNTERPART, DESCRIPTION, METADATA, HOLD_ID = map(
    COLUMNS.index, ("version", "type", "counterpart", "description", "metadata", "hold_id")
)
Order = Literal["newest", "oldest"]

# Times never go back. A bound that is none is not searched for.
TIME_SEARCH = f"""
    {{name}} (low, rest) AS (
        SELECT
            CASE WHEN ${{number}} = '{END}' THEN last ELSE 0 END,
            CASE WHEN ${{number}} IN ('{BEGINNING}', '{END}') THEN 0 ELSE last END
        FROM (SELECT coalesce(max(version), 0) AS last FROM history WHERE account_id = $1) AS account
        UNION ALL
        SELECT
            {halved(f"SELECT time FROM history WHERE account_id = $1 AND version = {MIDDLE}", "< ${number}")}
        FROM {{name}} WHERE rest > 0
    )
"""
# Of versions after `first` up to `last`; looked up as values, as in `tables.py`.
ENDS = """
    SELECT range.position, first, last, name, asset, account.position,
        coalesce((SELECT balance FROM history WHERE account_id = $1 AND version = first), 0),
        coalesce((SELECT balance FROM history WHERE account_id = $1 AND version = last), 0),
        (SELECT history.position FROM history WHERE account_id = $1 AND version = last),
        (SELECT source FROM checkpoint)
    FROM ({}) AS range LEFT JOIN history_accounts AS account ON account.account_id = $1
"""
READ_RANGE = Read.in_both(
    f"""
    WITH RECURSIVE {TIME_SEARCH.format(name="before", number=2)}, {TIME_SEARCH.format(name="until", number=3)}
"""
    + ENDS.format("""
    SELECT position, first, CASE WHEN until < first THEN first ELSE until END AS last
    FROM (
        SELECT position, (SELECT max(low) FROM before) AS first, (SELECT max(low) FROM until) AS until FROM checkpoint
    ) AS found
""")
)
READ_WHOLE_RANGE = Read.in_both(
    ENDS.format("""
    SELECT position, 0 AS first, (SELECT coalesce(max(version), 0) FROM history WHERE account_id = $1) AS last
    FROM checkpoint
""")
)
"""What most ask for, in half the time."""
READ_ENDS = Read.in_both(
    ENDS.format("SELECT position, CAST($2 AS bigint) AS first, CAST($3 AS bigint) AS last FROM checkpoint")
)
# As a join with the checkpoint, SQLite would sort what the index has in order: twice the time.
READ_LINES = Read.in_both("""
    SELECT (SELECT checkpoint.position FROM checkpoint), coalesce(balance, 0), coalesce(held, 0),
        position, version, time, type, coalesce(overdraft_limit, 0), other_account_id, command_id, data
    FROM history WHERE account_id = $1 AND version BETWEEN $2 AND $3
    ORDER BY version
""")
NOTHING = (0, 0, 0)
"""As a row of these: before the first event."""


class _Said(Value, frozen=True):
    """What of an event's data is in a line."""

    description: str | None = None
    metadata: Raw = Raw()
    reason: str | None = None
    hold_id: str | None = None


# In less time than the stores take to look into JSON.
_decode = msgspec.json.Decoder(_Said).decode


class Range(NamedTuple):
    """The versions after `first` up to `last`, as they were known at `position`."""

    first: Version
    last: Version
    position: Position


class Place(NamedTuple):
    """Between two lines of a range: all up to the version `at` come before it, or all after that, the newest first."""

    range: Range
    at: Version


class Ends(NamedTuple):
    """What the account is, its balances before and after a range, in cents, and the ledger that says so."""

    name: str
    asset: Asset
    opening_balance: int
    closing_balance: int
    source: str


async def read_range(
    read: ReadRows, account_id: AccountId, begin: str, end: str, at: Position | None = None
) -> tuple[Range, Ends | None]:
    """The account's events of times from `begin` on and before `end`, and none after the position `at`. No ends when
    there is no such account there.

    Raises `ProjectionBehind` when the views are not there yet.
    """
    is_whole = (begin, end) == (BEGINNING, END)
    rows = await (read(READ_WHOLE_RANGE, account_id) if is_whole else read(READ_RANGE, account_id, begin, end))
    position, first, last, *ends = one_row(rows)
    if at is None:
        range_ = Range(Version(first), Version(last), Position(position))
        return range_, _ends(range_, *ends)
    check_position(position, at)
    (version,) = one_row(await read(READ_VERSION, account_id, last_entry(at)))
    first = min(first, version)
    range_ = Range(Version(first), Version(max(first, min(last, version))), at)
    return range_, await read_ends(read, account_id, range_)


async def read_ends(read: ReadRows, account_id: AccountId, asked: Range) -> Ends | None:
    """None when there is no such account at that position. Raises `ProjectionBehind`, and ValueError when the range has
    more than was there."""
    reached, _, _, *ends = one_row(await read(READ_ENDS, account_id, asked.first, asked.last))
    check_position(reached, asked.position)
    return _ends(asked, *ends)


def _ends(
    asked: Range,
    name: str | None,
    asset: Asset,
    created: Position,
    opening: int,
    closing: int,
    closed_at: Position | None,
    source: str,
) -> Ends | None:
    """Raises ValueError."""
    if asked.last and (closed_at is None or closed_at > asked.position):
        raise ValueError("the range ends after its position")
    return None if name is None or created > asked.position else Ends(name, asset, opening, closing, source)


class Reader:
    """Reads the lines from `place` on, a piece at a time."""

    def __init__(self, read: ReadRows, account_id: AccountId, place: Place, order: Order) -> None:
        self._read = read
        self._account_id = account_id
        self._order = order
        self._lines_max = PIECE_LINES_FIRST
        self.place = place

    @property
    def is_at_the_end(self) -> bool:
        range_, at = self.place
        return at == (range_.first if self._order == "newest" else range_.last)

    async def next(self, lines_max: int) -> list[Line]:
        """Some lines, while it is not at the end. Raises `ProjectionBehind` when the views are put back meanwhile."""
        (first, last, position), at = self.place
        count = min(lines_max, self._lines_max)
        low, high = (max(first, at - count), at) if self._order == "newest" else (at, min(last, at + count))
        rows = await self._read(READ_LINES, self._account_id, low, high)
        check_position(rows[0][0] if rows else Position(0), position)
        lines = _lines(rows if low else [NOTHING, *rows])
        row_chars = ROW_CHARS + sum([len(row[-1]) for row in rows]) // len(rows)
        self._lines_max = min(PIECE_LINES_MAX, max(PIECE_LINES_MIN, PIECE_CHARS // row_chars))
        self.place = self.place._replace(at=Version(low if self._order == "newest" else high))
        return lines[::-1] if self._order == "newest" else lines


def _lines(rows: Sequence[Sequence[Any]]) -> list[Line]:
    """Of each row but the first, which says what was before."""
    return [
        (
            position,
            version,
            time,
            type_,
            balance - before[1],
            held - before[2],
            balance,
            held,
            balance - held + limit,
            other,
            said.description,
            str(said.metadata, "utf-8") or None,
            said.reason,
            said.hold_id,
            command_id,
        )
        for before, (_, balance, held, position, version, time, type_, limit, other, command_id, data) in pairwise(rows)
        for said in [_decode(data)]
    ]
