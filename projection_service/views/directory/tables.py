"""The directory in SQL: pages of the view accounts' table, through the indexes that are all there is of this view."""

from functools import lru_cache
from typing import Literal

from projection_service.view import Run
from projection_service.view_store import Change, Read, ReadRows, one_row
from projection_service.views.accounts.fold import AccountView
from projection_service.views.accounts.tables import PUT_ACCOUNTS
from shared.events import INT64_MAX, NAME_CHARS_MAX, Asset, Position, Status, Value

SCAN_ROWS_MAX = 500
"""Looked at for a page, however many of them its filters leave: in SQLite, where nobody else has a turn meanwhile, they
take 1.4 ms when they have to be fetched from the operating system."""

Sort = Literal["name", "id", "balance", "last_updated"]
Order = Literal["asc", "desc"]

INT64_MIN = -INT64_MAX - 1
AFTER_IDS = "~"
"""After every id, and every time."""
AFTER_NAMES = "\U0010ffff" * (NAME_CHARS_MAX + 1)

TYPES = dict(column.split() for column in PUT_ACCOUNTS.columns.split(", "))
COLUMNS = ", ".join(TYPES)
IN_BYTES = ("name", "last_updated")
"""Text that PostgreSQL would put in an order of its own."""


class Place(Value, frozen=True):
    """Of an account in a list: what the list is sorted by, and the account's id."""

    key: str | int
    id: str


class Listed(Value, frozen=True):
    """Which accounts are asked for, and in which order. None stands for any; amounts are in cents.

    For `sort` balance, `asset` is there.
    """

    sort: Sort
    order: Order
    prefix: str = ""
    asset: Asset | None = None
    status: Status | None = None
    min_balance: int = INT64_MIN
    max_balance: int = INT64_MAX


class Page(Value, frozen=True):
    """`last` is the place up to which the list was read, None at its end."""

    accounts: list[AccountView]
    last: Place | None
    position: Position


async def changes(run: Run) -> list[Change]:
    """The stores keep their indexes themselves."""
    return []


async def read_page(read: ReadRows, listed: Listed, after: Place | None, accounts_max: int) -> Page:
    """The accounts that come after the place `after`, of one moment. It may end before it has `accounts_max`, even
    without any: then `last` says where it goes on."""
    statement, names = _statement(listed.sort, listed.order, listed.status not in (None, "open"))
    low, high = _bounds(listed)
    if after is not None and listed.order == "asc":
        low = max(low, (after.key, after.id))
    elif after is not None:
        high = min(high, (after.key, after.id))
    values: dict[str, object] = {
        "low_key": low[0],
        "low_id": low[1],
        "high_key": high[0],
        "high_id": high[1],
        "prefix": listed.prefix,
        "after_prefix": _after_prefix(listed.prefix),
        "asset": listed.asset,
        "status": listed.status,
        "min_balance": listed.min_balance,
        "max_balance": listed.max_balance,
        "rows": accounts_max + 1,
    }
    rows = await read(statement, *(values[name] for name in names))
    position, is_found, *_ = one_row(rows)
    accounts = [AccountView(*row[2:]) for row in rows[:accounts_max] if row[1]]
    if is_found is None or (len(rows) <= accounts_max and rows[-1][1]):
        return Page(accounts, None, Position(position))
    # Either there is one more, or the last row is where the scan has ended.
    last = rows[accounts_max - 1] if len(rows) > accounts_max and rows[-1][1] else rows[-1]
    account = AccountView(*last[2:])
    return Page(accounts, Place(getattr(account, listed.sort), account.id), Position(position))


def _bounds(listed: Listed) -> tuple[tuple[str | int, str], tuple[str | int, str]]:
    """Between which places the list is."""
    match listed.sort:
        case "name":
            return (listed.prefix, ""), (_after_prefix(listed.prefix), "")
        case "balance":
            return (listed.min_balance, ""), (listed.max_balance, AFTER_IDS)
        case _:
            return ("", ""), (AFTER_IDS, AFTER_IDS)


@lru_cache(maxsize=256)
def _after_prefix(prefix: str) -> str:
    """What is after all names that begin with it, and before all others after them."""
    for end in range(len(prefix), 0, -1):
        code = ord(prefix[end - 1]) + 1
        if code <= 0x10FFFF:
            # No text has a surrogate.
            return prefix[: end - 1] + chr(0xE000 if code == 0xD800 else code)
    return AFTER_NAMES


@lru_cache
def _statement(sort: Sort, order: Order, has_status_index: bool) -> tuple[Read, list[str]]:
    """With the names of its parameters, in their order.

    In a compound, what comes later is not looked at once there are rows enough: so the end of the scan is found only
    for a page that has come to it.
    """
    names: list[str] = []

    def parameter(name: str) -> str:
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}"

    key = f"{sort}{{C}}" if sort in IN_BYTES else sort
    if sort == "id":
        place, low, high = "id", parameter("low_id"), parameter("high_id")
        ordered = f"id {order}"
    else:
        place = f"({key}, id)"
        low = f"({parameter('low_key')}, {parameter('low_id')})"
        high = f"({parameter('high_key')}, {parameter('high_id')})"
        ordered = f"{key} {order}, id {order}"
    scanned = [f"{place} > {low}", f"{place} < {high}"]
    if sort == "balance":
        scanned.append(f"asset = {parameter('asset')}")
    index = "" if sort == "id" else f"directory_by_{sort}"
    if has_status_index:
        scanned += ["status <> 'open'", f"status = {parameter('status')}"]
        index = f"directory_status_by_{sort}"
    asset, status = parameter("asset"), parameter("status")
    end = ", ".join(name if name in ("id", sort) else f"CAST(NULL AS {type_})" for name, type_ in TYPES.items())
    sql = f"""
        SELECT checkpoint.position, page.*
        FROM checkpoint LEFT JOIN (
            SELECT 1 AS is_found, {COLUMNS} FROM (
                SELECT {COLUMNS} FROM accounts{{INDEXED}} WHERE {" AND ".join(scanned)}
                ORDER BY {ordered} LIMIT {SCAN_ROWS_MAX}
            ) AS scanned
            WHERE (CAST({asset} AS text) IS NULL OR asset = {asset})
                AND (CAST({status} AS text) IS NULL OR status = {status})
                AND balance BETWEEN {parameter("min_balance")} AND {parameter("max_balance")}
                AND name{{C}} >= {parameter("prefix")} AND name{{C}} < {parameter("after_prefix")}
            UNION ALL
            SELECT 0, ends.* FROM (
                SELECT {end} FROM accounts{{INDEXED}} WHERE {" AND ".join(scanned)} ORDER BY {ordered}
                LIMIT 1 OFFSET {SCAN_ROWS_MAX - 1}
            ) AS ends
            LIMIT {parameter("rows")}
        ) AS page ON true
    """
    # SQLite may look at a sample of the table, if somebody has made one, and think another index as good.
    indexed = f" INDEXED BY {index}" if index else ""
    return Read(sql.format(C="", INDEXED=indexed).replace("$", "?"), sql.format(C=' COLLATE "C"', INDEXED="")), names
