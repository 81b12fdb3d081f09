"""The reserves in SQL, and what a run of events changes there."""

from collections.abc import Collection, Iterable

from projection_service.view import Run
from projection_service.view_store import Change, Read, ReadRows, Write, one_row
from projection_service.views.reserve.fold import ReserveView, other_assets, project_reserves, reserves_after
from shared.events import USD, AccountId, Asset, Position, RecordedEvent, Value, entries

READ_RESERVES = Read(
    sqlite="""
        SELECT position, EXISTS (SELECT 1 FROM reserve_assets), asset, amount, last_updated
        FROM checkpoint, reserve WHERE asset IN (SELECT value FROM json_each(?1))
    """,
    postgres="""
        SELECT position, EXISTS (SELECT 1 FROM reserve_assets), asset, amount, last_updated
        FROM checkpoint, reserve WHERE asset = ANY($1)
    """,
)
READ_PAGE = Read.in_both("""
    SELECT position, page.*
    FROM checkpoint LEFT JOIN (
        SELECT asset, amount, last_updated FROM reserve WHERE asset > $1 ORDER BY asset LIMIT $2
    ) AS page ON true
    ORDER BY page.asset
""")
READ_ASSETS = Read(
    sqlite="SELECT account_id, asset FROM reserve_assets WHERE account_id IN (SELECT value FROM json_each(?1))",
    postgres="SELECT account_id, asset FROM reserve_assets WHERE account_id = ANY($1)",
)
PUT_RESERVES = Write(
    "asset text, amount numeric, last_updated text",
    """
    INSERT INTO reserve (asset, amount, last_updated) SELECT * FROM changed WHERE true
    ON CONFLICT (asset) DO UPDATE SET amount = excluded.amount, last_updated = excluded.last_updated
    """,
)
ADD_ASSETS = Write(
    "account_id text, asset text", "INSERT INTO reserve_assets (account_id, asset) SELECT * FROM changed WHERE true"
)


class Reserves(Value, frozen=True):
    """At one moment: that of USD/2, and those of the assets that were asked for and are there."""

    position: Position
    has_others: bool
    """Is any account not in USD/2?"""
    by_asset: dict[Asset, ReserveView]


async def read_reserves(read: ReadRows, assets: Collection[Asset]) -> Reserves:
    # That of USD/2 is there, or somebody is reading the table back.
    rows = await read(READ_RESERVES, list({USD, *assets}))
    position, has_others, *_ = one_row(rows)
    by_asset = {asset: ReserveView(int(amount), last_updated) for _, _, asset, amount, last_updated in rows}
    return Reserves(Position(position), bool(has_others), by_asset)


async def read_page(read: ReadRows, after: str, assets_max: int) -> tuple[list[tuple[Asset, ReserveView]], Position]:
    """The reserves of the assets after `after`, in their order, and the position at which they hold."""
    rows = await read(READ_PAGE, after, assets_max)
    position, first, *_ = one_row(rows)
    found = [] if first is None else rows
    return [(asset, ReserveView(int(amount), last_updated)) for _, asset, amount, last_updated in found], position


async def changes(run: Run) -> list[Change]:
    created = other_assets(run.events)
    assets, reserves = created, await read_reserves(run.read, created.values())
    if reserves.has_others:
        assets = {**await _read_assets(run.read, run.events), **created}
        reserves = await read_reserves(run.read, set(assets.values()))
    after = reserves_after(reserves.by_asset, assets, run.events)
    run.share(after)
    rows = [(asset, str(reserve.amount), reserve.last_updated) for asset, reserve in project_reserves(after).items()]
    return [Change(PUT_RESERVES, rows), Change(ADD_ASSETS, created.items())]


async def _read_assets(read: ReadRows, events: Iterable[RecordedEvent]) -> dict[AccountId, Asset]:
    """Of the accounts in `events` that are not in USD/2."""
    ids = {account_id for event in events for account_id, *_ in entries(event.account_id, event.event)}
    return {row[0]: row[1] for row in await read(READ_ASSETS, list(ids))}
