"""What each event changes in the reserve. Pure."""

from shared.events import AmountDeposited, AmountWithdrawn, RecordedEvent, Value


class ReserveView(Value, frozen=True):
    """The sum of all balances, in cents: it can be larger than any 64-bit number.

    `last_updated` is None before the first deposit.
    """

    amount: int
    last_updated: str | None


def project_reserve(reserve: ReserveView, recorded: RecordedEvent) -> ReserveView:
    """The reserve after `recorded`. A new account has nothing in it yet, and a rejection moves nothing."""
    match recorded.event:
        case AmountDeposited(amount=amount):
            return ReserveView(reserve.amount + amount, recorded.time)
        case AmountWithdrawn(amount=amount):
            return ReserveView(reserve.amount - amount, recorded.time)
        case _:
            return reserve
