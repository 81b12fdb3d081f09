"""What must be so in views of one position, whoever built them; and where the old ones were otherwise."""

from collections.abc import Collection, Sequence

from projection_service.view import View
from projection_service.view_store.beside import Both
from projection_service.view_store.kept import parts
from shared.events import Value

NAMED_MAX = 3
"""So many of the rows that are not as they should be are named."""
TEXT_CHARS_MAX = 60

# Sums of 64-bit amounts do not fit in 64 bits: halves of them do.
SUMS = "SELECT asset, sum(balance >> 32), sum(balance & 4294967295) FROM accounts GROUP BY asset"
RESERVES = "SELECT asset, amount FROM reserve"
HELD = f"""
    SELECT id, held, coalesce(held_now, 0) FROM accounts LEFT JOIN (
        SELECT account_id, sum(amount) AS held_now FROM holds GROUP BY account_id
    ) AS open_holds ON account_id = id
    WHERE held <> coalesce(held_now, 0) ORDER BY id LIMIT {NAMED_MAX}
"""
HOLES = f"""
    SELECT account_id, count(*), min(version), max(version) FROM history GROUP BY account_id
    HAVING min(version) <> 1 OR max(version) <> count(*) ORDER BY account_id LIMIT {NAMED_MAX}
"""
VERSIONS = f"""
    SELECT id, version, coalesce(last_version, 0) FROM accounts LEFT JOIN (
        SELECT account_id, max(version) AS last_version FROM history GROUP BY account_id
    ) AS ends ON account_id = id
    WHERE version <> coalesce(last_version, 0) ORDER BY id LIMIT {NAMED_MAX}
"""
ENDS = f"""
    SELECT id, accounts.balance, accounts.held, history.balance, coalesce(history.held, 0)
    FROM accounts JOIN history ON account_id = id AND history.version = accounts.version
    WHERE history.balance IS NULL OR history.balance <> accounts.balance OR coalesce(history.held, 0) <> accounts.held
    ORDER BY id LIMIT {NAMED_MAX}
"""
OPEN_HOLDS = f"""
    SELECT id, held, coalesce(held_now, 0) FROM accounts LEFT JOIN (
        SELECT history_holds.account_id, sum(amount) AS held_now
        FROM history_holds JOIN history ON entry = 2 * placed WHERE ended IS NULL GROUP BY history_holds.account_id
    ) AS open_holds ON open_holds.account_id = id
    WHERE accounts.held <> coalesce(held_now, 0) ORDER BY id LIMIT {NAMED_MAX}
"""
LAST_RESERVES = f"""
    SELECT reserve.asset, reserve.amount, history.reserve
    FROM reserve
    JOIN (SELECT asset, max(position) AS position FROM history_reserves GROUP BY asset) AS ends USING (asset)
    JOIN history ON entry = 2 * ends.position
    WHERE history.reserve IS NULL OR reserve.amount <> history.reserve ORDER BY 1 LIMIT {NAMED_MAX}
"""


class Difference(Value, frozen=True):
    """Between an old table and the new one: so many rows, and what is told of the first of them."""

    table: str
    rows: int
    first: Sequence[str]


async def contradictions(both: Both, views: Collection[str]) -> list[str]:
    """What does not add up among `views`."""
    found: list[str] = []
    if {"accounts", "reserve"} <= set(views):
        sums = {asset: (int(high) << 32) + int(low) for asset, high, low in await both.rows(SUMS)}
        reserves = {asset: int(amount) for asset, amount in await both.rows(RESERVES)}
        found += [
            f"the balances in {asset!a} sum up to {sums.get(asset, 0)}, and the reserve is {reserves.get(asset, 0)}"
            for asset in sorted(sums.keys() | reserves)
            if sums.get(asset, 0) != reserves.get(asset, 0)
        ]
    if {"accounts", "holds"} <= set(views):
        found += [f"{id_!a} has {held} held, and open holds of {sum_}" for id_, held, sum_ in await both.rows(HELD)]
    if "history" in views:
        found += [
            f"the history of {id_!a} has {events} events, with versions from {first} to {last}"
            for id_, events, first, last in await both.rows(HOLES)
        ]
    if {"accounts", "history"} <= set(views):
        found += [
            f"{id_!a} is at version {version}, and its history ends with {last}"
            for id_, version, last in await both.rows(VERSIONS)
        ]
        found += [
            f"{id_!a} has {balance} and {held} held, and at the end of its history {last} and {last_held}"
            for id_, balance, held, last, last_held in await both.rows(ENDS)
        ]
        found += [
            f"{id_!a} has {held} held, and at the end of its history open holds of {sum_}"
            for id_, held, sum_ in await both.rows(OPEN_HOLDS)
        ]
    if {"reserve", "history"} <= set(views):
        found += [
            f"the reserve of {asset!a} is {amount}, and at the end of its history {last}"
            for asset, amount, last in await both.rows(LAST_RESERVES)
        ]
    return found


async def differences(both: Both, views: Collection[View]) -> list[Difference]:
    """Where the old tables of `views` are not as the new ones, of the same position."""
    found = [
        await _difference(both, name, name in view.sparse)
        for view in views
        for kind, name in parts(view.name)
        if kind == "TABLE"
    ]
    return [difference for difference in found if difference.rows]


async def _difference(both: Both, table: str, is_sparse: bool) -> Difference:
    """Where `is_sparse`, a row that only one of them has is none."""
    key, others = await both.columns(table)
    where = f" ON {' AND '.join(f'o.{column} = n.{column}' for column in key)}"
    changed = f"FROM {both.old}{table} AS o JOIN {both.new}{table} AS n {where}" + (
        f" WHERE {' OR '.join(both.unlike(column) for column in others)}" if others else " WHERE 1 = 0"
    )
    missing = f"FROM {both.new}{table} AS n LEFT JOIN {both.old}{table} AS o {where} WHERE o.{key[0]} IS NULL"
    added = f"FROM {both.old}{table} AS o LEFT JOIN {both.new}{table} AS n {where} WHERE n.{key[0]} IS NULL"
    rows = 0
    for part in (changed,) if is_sparse else (changed, missing, added):
        rows += (await both.rows(f"SELECT count(*) {part}"))[0][0]
    if not rows:
        return Difference(table, 0, [])
    pairs = ", ".join(f"o.{column}, n.{column}" for column in others)
    names, olds = (", ".join(f"{side}.{column}" for column in key) for side in "no")
    told = [
        f"{_name(row[: len(key)])}: {_changes(others, row[len(key) :])}"
        for row in await both.rows(f"SELECT {', '.join(filter(None, [names, pairs]))} {changed} LIMIT {NAMED_MAX}")
    ]
    told += [f"{_name(row)} was missing" for row in await both.rows(f"SELECT {names} {missing} LIMIT {NAMED_MAX}")]
    told += [f"{_name(row)} is not there now" for row in await both.rows(f"SELECT {olds} {added} LIMIT {NAMED_MAX}")]
    return Difference(table, rows, told[:NAMED_MAX])


def _name(key: Sequence[object]) -> str:
    return ", ".join(_shown(value) for value in key)


def _changes(columns: Sequence[str], pairs: Sequence[object]) -> str:
    sides = zip(columns, pairs[::2], pairs[1::2], strict=True)
    return ", ".join(f"{column} {_shown(old)} is now {_shown(new)}" for column, old, new in sides if old != new)


def _shown(value: object) -> str:
    """In ASCII and of bounded length: it may be anything that a client has sent."""
    text = ascii(value) if isinstance(value, (str, bytes)) else str(value)
    return text if len(text) <= TEXT_CHARS_MAX else f"{text[:TEXT_CHARS_MAX]}…"
