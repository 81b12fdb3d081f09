"""The history in SQL, and what a run of events adds to it."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from projection_service.view import Run
from projection_service.view_store import Change, ImpossibleEvents, Read, ReadRows, Write, one_row
from projection_service.views.accounts.tables import StatesAfter
from projection_service.views.history.fold import HistoryRow, created, encode_row, history_rows, reserve_runs
from projection_service.views.history.holds import hold_changes
from projection_service.views.reserve.fold import ReservesAfter
from shared.events import INT64_MAX, AccountId, Position, Version

CHAIN_EVENTS = 256
"""The chain is kept at least once in so many events, and one run more."""
PIECE_ROWS = 500
"""Made at a time, and then written: all those of a page would take some megabytes, and one by one they take a tenth
longer, since SQLite and Python then drive each other's code out of the processor's caches."""
EVENT = (
    *("entry", "account_id", "version", "position", "type", "time", "event_id", "command_id", "traceparent"),
    *("amount", "data", "other_account_id", "other_version"),
)
ROW = ", ".join([*EVENT, "balance, held, overdraft_limit, status, last_updated, reserve"])
# Limited before it is joined: an account may have millions.
PAGE = f"""
    SELECT checkpoint.position, source, page.*
    FROM checkpoint LEFT JOIN (SELECT {ROW} FROM history WHERE %s) AS page ON true
    ORDER BY page.entry
"""
READ_HISTORY = Read.in_both(PAGE % "account_id = $1 AND version > $2 AND position <= $3 ORDER BY version LIMIT $4")
READ_ALL = Read.in_both(PAGE % "entry > $1 AND entry % 2 = 0 ORDER BY entry LIMIT $2")
# Searches go by halves: `low` still holds, and `rest` numbers after it may. What is looked up on the way is a value,
# never joined: PostgreSQL might take all rows of an account for it, or the whole table, at each step.
MIDDLE = "low + (rest + 1) / 2"


def halved(looked_up: str, holds: str) -> str:
    """SQL for the next `low` and `rest`: `looked_up` gives the value at `MIDDLE`, which `holds` compares."""
    return f"CASE WHEN ({looked_up}) {holds} THEN {MIDDLE} ELSE low END, rest / 2"


def for_each(name: str, sql: str, where: str) -> Read:
    """`{asked}` in it are the rows of the parameter $1, each a text `name`; `{after}` joins the one row of the history
    `where` that is so. PostgreSQL may read all of it to find that row unless it is told that there is one."""
    sqlite = sql.format(
        asked=f"SELECT value AS {name} FROM json_each($1)", after=f"LEFT JOIN history AS after ON {where}"
    )
    postgres = sql.format(
        asked=f"SELECT {name} FROM unnest($1::text[]) AS asked ({name})",
        after=f"LEFT JOIN LATERAL (SELECT * FROM history AS after WHERE {where} LIMIT 1) AS after ON true",
    )
    return Read(sqlite.replace("$", "?"), postgres)


# Versions have no holes, and grow as entries do, which the index on them has, too.
VERSION_SEARCH = f"""
    search (low, rest) AS (
        SELECT CAST(0 AS bigint), coalesce(max(version), 0) FROM history WHERE account_id = $1
        UNION ALL
        SELECT
            {halved(f"SELECT entry FROM history WHERE account_id = $1 AND version = {MIDDLE}", "<= $2")}
        FROM search WHERE rest > 0
    )
"""
"""The version of the account $1 after the entry $2 is its greatest `low`."""
READ_VERSION = Read.in_both(f"WITH RECURSIVE {VERSION_SEARCH} SELECT max(low) FROM search")
ADD_HISTORY = Write(
    "entry bigint, account_id text, version bigint, position bigint, type text, time text, event_id text, "
    "command_id text, traceparent text, amount bigint, data json, other_account_id text, "
    "other_version bigint, balance bigint, held bigint, overdraft_limit bigint, status text, "
    "last_updated text, reserve numeric",
    f"INSERT INTO history ({ROW}) SELECT * FROM changed WHERE true",
)
ADD_ACCOUNTS = Write(
    "account_id text, name text, asset text, position bigint",
    "INSERT INTO history_accounts (account_id, name, asset, position) SELECT * FROM changed WHERE true",
)
ADD_RESERVES = Write(
    "asset text, position bigint, since bigint",
    "INSERT INTO history_reserves (asset, position, since) SELECT * FROM changed WHERE true",
)
ADD_CHAIN = Write(
    "position bigint, chain bytea",
    "INSERT INTO history_chain (position, chain) SELECT * FROM changed WHERE true",
)


def state_of(row: str) -> str:
    """SQL for the account after the event in `row`, as an `AccountView` has it from its balance on. Where that is NULL,
    there is no account."""
    return (
        f"{row}.balance, coalesce({row}.held, 0), coalesce({row}.overdraft_limit, 0), coalesce({row}.status, 'open'), "
        f"{row}.version, coalesce({row}.last_updated, {row}.time)"
    )


def reserve_entry(asset: str, position: str) -> str:
    """SQL for the entry that has the reserve of the asset as it was at the position, NULL before it began.

    That is where the run before has left it, unless the position is in the one that changes it next: then in there.
    """
    return f"""coalesce(
        (
            SELECT inside.entry FROM history AS inside
            WHERE inside.entry <= 2 * {position} AND inside.entry >= 2 * (
                SELECT since FROM history_reserves WHERE asset = {asset} AND position > {position}
                ORDER BY position LIMIT 1
            ) AND inside.reserve IS NOT NULL
                AND (SELECT asset FROM history_accounts WHERE account_id = inside.account_id) = {asset}
            ORDER BY inside.entry DESC LIMIT 1
        ),
        (SELECT 2 * max(position) FROM history_reserves WHERE asset = {asset} AND position <= {position})
    )"""


def last_entry(position: Position) -> int:
    """The greatest that the event at `position` may have."""
    return min(2 * position + 1, INT64_MAX)


async def read_history(
    read: ReadRows, account_id: AccountId, after: Version, events_max: int, up_to: Position
) -> tuple[list[bytes], Position]:
    """The account's events after version `after` and up to position `up_to`, encoded, and the position at which that
    holds, read at one moment."""
    events, position = _page(await read(READ_HISTORY, account_id, after, up_to, events_max))
    return [encoded for _, encoded in events], position


async def read_stream(
    read: ReadRows, account_id: AccountId | None, after: Position, events_max: int
) -> tuple[list[tuple[Position, bytes]], Position]:
    """Events after position `after`, those of the account or all, each with its position; and up to which position
    there are no others."""
    if account_id is None:
        rows = await read(READ_ALL, last_entry(after), events_max)
    else:
        ((version,),) = await read(READ_VERSION, account_id, last_entry(after))
        rows = await read(READ_HISTORY, account_id, version, INT64_MAX, events_max)
    events, position = _page(rows)
    return events, events[-1][0] if len(events) == events_max else position


def _page(rows: Sequence[Sequence[Any]]) -> tuple[list[tuple[Position, bytes]], Position]:
    position, source, first, *_ = one_row(rows)
    if first is None:
        return [], Position(position)
    return [(Position(row[5]), encode_row(row[2:], source)) for row in rows], Position(position)


async def changes(run: Run) -> list[Change]:
    before, last = run.events[0].position - 1, run.events[-1].position
    return [
        Change(ADD_HISTORY, _rows(run)),
        Change(ADD_ACCOUNTS, created(run.events)),
        Change(ADD_RESERVES, reserve_runs(run.shared(ReservesAfter), run.events[0].position)),
        Change(ADD_CHAIN, [(last, run.chain)] if before // CHAIN_EVENTS < last // CHAIN_EVENTS else []),
        await hold_changes(run),
    ]


def _rows(run: Run) -> Iterator[HistoryRow]:
    reserves = {position: amount for _, position, amount, _ in run.shared(ReservesAfter)}
    rows = history_rows(run.events, iter(run.shared(StatesAfter)), reserves)
    try:
        while piece := list(islice(rows, PIECE_ROWS)):
            yield from piece
    except ValueError as error:
        raise ImpossibleEvents(f"it can't be kept: {error}") from error
