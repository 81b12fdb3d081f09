"""What each event does to the views: given (events) / when (an event) / then (the two views)."""

from functools import reduce

import pytest

from projection_service.views import AccountView, ReserveView, project_account, project_reserve
from shared.events import AmountDeposited, DepositRejected, Event, RecordedEvent, Version
from tests.examples import (
    ALICE,
    BOB,
    CREATED,
    CREATION_REJECTED,
    DEPOSIT_REJECTED,
    DEPOSITED,
    INT64_MAX,
    WITHDRAWAL_REJECTED,
    WITHDRAWN,
    at,
    recorded,
)

NOT_FOUND = DepositRejected(5, "salary", "account-not-found")


def alice(balance: int, version: int, changed_at: int) -> AccountView:
    return AccountView(ALICE, "Alice", balance, Version(version), at(changed_at))


@pytest.mark.parametrize(
    ("events", "account", "reserve"),
    [
        ([], None, ReserveView(0, None)),
        ([CREATED], alice(0, 1, 1), ReserveView(0, None)),
        ([CREATED, DEPOSITED], alice(100, 2, 2), ReserveView(100, at(2))),
        ([CREATED, DEPOSITED, WITHDRAWN], alice(70, 3, 3), ReserveView(70, at(3))),
        ([CREATED, DEPOSITED, CREATION_REJECTED], alice(100, 3, 2), ReserveView(100, at(2))),
        ([CREATED, DEPOSITED, DEPOSIT_REJECTED], alice(100, 3, 2), ReserveView(100, at(2))),
        ([CREATED, DEPOSITED, WITHDRAWAL_REJECTED], alice(100, 3, 2), ReserveView(100, at(2))),
        ([CREATED, DEPOSITED, WITHDRAWAL_REJECTED, WITHDRAWN], alice(70, 4, 4), ReserveView(70, at(4))),
        ([NOT_FOUND], None, ReserveView(0, None)),
        ([NOT_FOUND, CREATED], alice(0, 2, 2), ReserveView(0, None)),
        ([NOT_FOUND, CREATED, DEPOSITED], alice(100, 3, 3), ReserveView(100, at(3))),
    ],
)
def test_events_move_the_views(events: list[Event], account: AccountView | None, reserve: ReserveView) -> None:
    stream = [recorded(position, event) for position, event in enumerate(events, 1)]
    assert reduce(project_account, stream, None) == account
    assert reduce(project_reserve, stream, ReserveView(0, None)) == reserve


def test_the_reserve_is_the_sum_of_all_accounts_and_can_be_larger_than_64_bits() -> None:
    full = AmountDeposited(INT64_MAX, "salary")
    deposits: list[RecordedEvent] = [recorded(n, full, ALICE if n % 2 else BOB) for n in range(1, 6)]
    reserve = reduce(project_reserve, deposits, ReserveView(0, None))
    assert reserve == ReserveView(5 * INT64_MAX, at(5))
    assert reserve.amount > 2**64
