"""How it was at any position before: accounts and reserves, as their queries told them then."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime

from projection_service.view import AskedPast, Past, Reach, Then, check_position
from projection_service.view_store import Read, ReadRows, ViewStore, one_row
from projection_service.views.accounts.fold import AccountView
from projection_service.views.accounts.queries import told as told_account
from projection_service.views.history.holds import read_holds
from projection_service.views.history.tables import (
    MIDDLE,
    VERSION_SEARCH,
    for_each,
    halved,
    last_entry,
    reserve_entry,
    state_of,
)
from projection_service.views.reserve.fold import ReserveView
from projection_service.views.reserve.queries import EMPTY
from projection_service.views.reserve.queries import told as told_reserve
from shared.errors import InvalidRequest
from shared.events import TIME_RULE, USD, AccountId, Asset, HoldId, Position, as_written, written
from shared.platform.watermark import Peer

PIECE_ACCOUNTS_MAX = 50
"""Searched for together: with a thousand events each, in 1.4 ms when the operating system has to fetch them."""
PIECE_ASSETS_MAX = 100
"""Looked at together: some of them may not have been there. Then others have their turn."""

# Positions have no holes, and times never go back.
READ_POSITION = Read.in_both(f"""
    WITH RECURSIVE search (low, rest) AS (
        SELECT CAST(0 AS bigint), position FROM checkpoint
        UNION ALL
        SELECT
            {halved(f"SELECT time FROM history WHERE entry = 2 * ({MIDDLE})", "<= $1")}
        FROM search WHERE rest > 0
    )
    SELECT position, (SELECT max(low) FROM search) FROM checkpoint
""")
READ_ACCOUNT = Read.in_both(f"""
    WITH RECURSIVE {VERSION_SEARCH}
    SELECT checkpoint.position, after.account_id, name, asset, {state_of("after")}
    FROM checkpoint
    LEFT JOIN history AS after
        ON after.account_id = $1 AND version = (SELECT max(low) FROM search) AND balance IS NOT NULL
    LEFT JOIN history_accounts AS account ON account.account_id = after.account_id
""")
READ_ACCOUNTS = for_each(
    "account_id",
    f"""
    WITH RECURSIVE search (account_id, low, rest) AS (
        SELECT
            account_id, CAST(0 AS bigint),
            coalesce((SELECT max(version) FROM history WHERE history.account_id = asked.account_id), 0)
        FROM ({{asked}}) AS asked
        UNION ALL
        SELECT
            account_id,
            {halved(f"SELECT entry FROM history WHERE account_id = search.account_id AND version = {MIDDLE}", "<= $2")}
        FROM search WHERE rest > 0
    )
    SELECT checkpoint.position, after.account_id, name, asset, {state_of("after")}
    FROM checkpoint
    CROSS JOIN (SELECT account_id, max(low) AS version FROM search GROUP BY account_id) AS found
    {{after}}
    LEFT JOIN history_accounts AS account ON account.account_id = after.account_id
    """,
    "after.account_id = found.account_id AND after.version = found.version AND after.balance IS NOT NULL",
)
# The creation of an account is no deposit.
READ_RESERVE = Read.in_both(f"""
    SELECT checkpoint.position, reserve, CASE WHEN type <> 'account-created' THEN time END
    FROM checkpoint LEFT JOIN history ON entry = {reserve_entry("$1", "$2")}
""")
READ_ASSETS = Read.in_both("""
    SELECT asset, asset = $3 OR EXISTS (
        SELECT 1 FROM history_reserves AS after WHERE after.asset = page.asset AND position <= $2
    )
    FROM (SELECT asset FROM reserve WHERE asset > $1 ORDER BY asset LIMIT $4) AS page
    ORDER BY asset
""")


def past(store: ViewStore, reach: Reach) -> Past:
    async def then(asked: AskedPast, peer: Peer) -> Then | None:
        at, as_of = asked.at_position, asked.as_of
        if at is not None and as_of is not None:
            raise InvalidRequest([("as_of", "is for who does not say at_position: send one of them")])
        time = None if as_of is None else _gone_by(as_of)
        min_position = max(asked.min_position, at or 0)
        await reach(asked.model_copy(update={"min_position": min_position}), peer)
        if time is not None:
            at, reached = await read_position(store.read, time)
            check_position(reached, min_position)
        return None if at is None else _At(store, Position(at))

    return then


def _gone_by(as_of: str) -> str:
    """As events have their time. Raises `InvalidRequest`."""
    try:
        time = as_written(as_of)
    except ValueError:
        raise InvalidRequest([("as_of", f"must be {TIME_RULE}; in a query, + is written %2B")]) from None
    if time > written(datetime.now(UTC)):
        raise InvalidRequest([("as_of", "must not be in the future: nobody knows yet how it will be")])
    return time


async def read_position(read: ReadRows, time: str) -> tuple[Position, Position]:
    """That of the last event of `time` or before, 0 when there is none; and up to which position that is known."""
    reached, position = one_row(await read(READ_POSITION, time))
    return Position(position), Position(reached)


async def read_account(read: ReadRows, account_id: AccountId, at: Position) -> AccountView | None:
    """Raises `ProjectionBehind`."""
    reached, *row = one_row(await read(READ_ACCOUNT, account_id, last_entry(at)))
    check_position(reached, at)
    return None if row[0] is None else AccountView(*row)


async def read_accounts(read: ReadRows, ids: Sequence[AccountId], at: Position) -> AsyncIterator[Sequence[AccountView]]:
    """Those of `ids` that there were, in no order, in pieces. Raises `ProjectionBehind`."""
    for begin in range(0, len(ids), PIECE_ACCOUNTS_MAX):
        rows = await read(READ_ACCOUNTS, list(ids[begin : begin + PIECE_ACCOUNTS_MAX]), last_entry(at))
        check_position(one_row(rows)[0], at)
        yield [AccountView(*row) for _, *row in rows if row[0] is not None]


async def read_reserve(read: ReadRows, asset: Asset, at: Position) -> ReserveView:
    """Raises `ProjectionBehind`."""
    reached, amount, last_updated = one_row(await read(READ_RESERVE, asset, at))
    check_position(reached, at)
    return EMPTY if amount is None else ReserveView(int(amount), last_updated)


class _At:
    def __init__(self, store: ViewStore, position: Position) -> None:
        self._read = store.read
        self._read_piece = store.read_piece
        self.position = position

    async def account(self, account_id: AccountId) -> Mapping[str, object] | None:
        view = await read_account(self._read, account_id, self.position)
        return None if view is None else told_account(view)

    async def accounts(self, ids: Sequence[AccountId]) -> Mapping[AccountId, Mapping[str, object]]:
        found = read_accounts(self._read_piece, ids, self.position)
        return {view.id: told_account(view) async for piece in found for view in piece}

    async def holds(
        self, account_id: AccountId, after: HoldId, holds_max: int
    ) -> Sequence[Mapping[str, object]] | None:
        return await read_holds(self._read_piece, account_id, self.position, after, holds_max)

    async def reserve(self, asset: Asset) -> Mapping[str, object]:
        return told_reserve(asset, await read_reserve(self._read, asset, self.position))

    async def reserves(self, after: str, assets_max: int) -> Sequence[Mapping[str, object]]:
        found: list[Mapping[str, object]] = []
        while len(found) < assets_max:
            page = await self._read_piece(READ_ASSETS, after, self.position, USD, PIECE_ASSETS_MAX)
            there = [asset for asset, was_there in page if was_there][: assets_max - len(found)]
            found += [await self.reserve(asset) for asset in there]
            if len(page) < PIECE_ASSETS_MAX:
                break
            after = page[-1][0]
        return found
