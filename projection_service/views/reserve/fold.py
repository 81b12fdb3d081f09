"""What each event changes in the reserves. Pure."""

from collections.abc import Iterable, Mapping

from shared.events import USD, AccountCreated, AccountId, Asset, RecordedEvent, Value, entries


class ReserveView(Value, frozen=True):
    """The sum of all balances in one asset, in cents: it can be larger than any 64-bit number.

    `last_updated` is None before the first deposit.
    """

    amount: int
    last_updated: str | None


EMPTY = ReserveView(0, None)


def other_assets(events: Iterable[RecordedEvent]) -> dict[AccountId, Asset]:
    """Of the accounts that `events` create and that are not in USD/2: what they are in."""
    assets: dict[AccountId, Asset] = {}
    for recorded in events:
        event = recorded.event
        if type(event) is AccountCreated and event.asset != USD:
            assets[recorded.account_id] = event.asset
    return assets


def project_reserves(
    reserves: Mapping[Asset, ReserveView], assets: Mapping[AccountId, Asset], events: Iterable[RecordedEvent]
) -> dict[Asset, ReserveView]:
    """Those of `reserves` that `events` change, after them. `assets` has the accounts that are not in USD/2."""
    amounts: dict[Asset, int] = {}
    times: dict[Asset, str] = {}
    for recorded in events:
        moved = entries(recorded.account_id, recorded.event)
        if len(moved) > 1 and len({assets.get(account_id, USD) for account_id, _, _ in moved}) == 1:
            continue  # what goes from one account to another is neither made nor lost
        for account_id, change, _ in moved:
            if change:
                asset = assets.get(account_id, USD)
                amounts[asset] = amounts.get(asset, 0) + change
                times[asset] = recorded.time
    return {
        asset: ReserveView(reserves.get(asset, EMPTY).amount + amount, times[asset])
        for asset, amount in amounts.items()
    }
