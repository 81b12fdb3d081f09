"""What each event changes in an account's open holds. Pure."""

from shared.events import AccountId, HoldId, HoldPlaced, RecordedEvent, Value


class HoldView(Value, frozen=True):
    """An open hold as queries see it. The amount is in cents; `expires_at` is None when it never does."""

    account_id: AccountId
    hold_id: HoldId
    amount: int
    expires_at: str | None
    description: str
    placed_at: str


def project_hold(recorded: RecordedEvent) -> HoldView | None:
    """The hold that `recorded`, one of `HOLD_EVENTS`, is of; None when it is not open any more."""
    event = recorded.event
    if not isinstance(event, HoldPlaced):
        return None
    return HoldView(
        recorded.account_id, event.hold_id, event.amount, event.expires_at, event.description, recorded.time
    )
