"""What each event changes in the reserve. Pure."""

from shared.events import RecordedEvent, Value, entries


class ReserveView(Value, frozen=True):
    """The sum of all balances, in cents: it can be larger than any 64-bit number.

    `last_updated` is None before the first deposit.
    """

    amount: int
    last_updated: str | None


def project_reserve(reserve: ReserveView, recorded: RecordedEvent) -> ReserveView:
    """The reserve after `recorded`. What goes from one account to another does not change it."""
    change = sum([change for _, change, _ in entries(recorded.account_id, recorded.event)])
    return ReserveView(reserve.amount + change, recorded.time) if change else reserve
