"""What each event changes in the reserves. Pure."""

from collections.abc import Iterable, Mapping

from shared.events import USD, AccountCreated, AccountId, Asset, Position, RecordedEvent, Value, entries


class ReserveView(Value, frozen=True):
    """The sum of all balances in one asset, in cents: it can be larger than any 64-bit number.

    `last_updated` is None before the first deposit.
    """

    amount: int
    last_updated: str | None


class ReservesAfter(list[tuple[Asset, Position, int, str | None]]):
    """Each change of a reserve, in the order of the log: of which one, the event's position, the amount after it in
    cents, the event's time. The first of one that is not in USD/2 is the creation of an account, and has no time."""


def other_assets(events: Iterable[RecordedEvent]) -> dict[AccountId, Asset]:
    """Of the accounts that `events` create and that are not in USD/2: what they are in."""
    assets: dict[AccountId, Asset] = {}
    for recorded in events:
        event = recorded.event
        if type(event) is AccountCreated and event.asset != USD:
            assets[recorded.account_id] = event.asset
    return assets


def reserves_after(
    reserves: Mapping[Asset, ReserveView], assets: Mapping[AccountId, Asset], events: Iterable[RecordedEvent]
) -> ReservesAfter:
    """What `events` change of `reserves`. `assets` has the accounts that are not in USD/2."""
    amounts = {asset: reserve.amount for asset, reserve in reserves.items()}
    after = ReservesAfter()
    for recorded in events:
        event = recorded.event
        moved = entries(recorded.account_id, event)
        if not moved and type(event) is AccountCreated and event.asset != USD and event.asset not in amounts:
            amounts[event.asset] = 0
            after.append((event.asset, recorded.position, 0, None))
        if len(moved) > 1 and len({assets.get(account_id, USD) for account_id, _, _ in moved}) == 1:
            continue  # what goes from one account to another is neither made nor lost
        for account_id, change, _ in moved:
            if change:
                asset = assets.get(account_id, USD)
                amount = amounts[asset] = amounts.get(asset, 0) + change
                after.append((asset, recorded.position, amount, recorded.time))
    return after


def project_reserves(after: ReservesAfter) -> dict[Asset, ReserveView]:
    """The reserves that were changed, as the last change left them."""
    last = {asset: (amount, time) for asset, _, amount, time in after}
    return {asset: ReserveView(*reserve) for asset, reserve in last.items()}
