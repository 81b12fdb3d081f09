"""What each event does to the views: given (events) / when (an event) / then (the views)."""

from functools import reduce

import pytest
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from projection_service.views.accounts.fold import AccountView, project_account
from projection_service.views.history.fold import created, encode_row, history_rows
from projection_service.views.holds.fold import HoldView, project_hold
from projection_service.views.reserve.fold import ReserveView, other_assets, project_reserves, reserves_after
from shared.events import (
    AccountClosed,
    AccountCreationRejected,
    AccountFrozen,
    AccountId,
    AccountUnfrozen,
    AmountDeposited,
    CloseRejected,
    DepositRejected,
    Event,
    FreezeRejected,
    HoldPlaced,
    OverdraftLimitRejected,
    OverdraftLimitSet,
    RecordedEvent,
    UnfreezeRejected,
    Version,
    decode_events,
    encode_event,
    join_events,
)
from tests.examples import (
    ALICE,
    BOB,
    CAPTURED,
    CAPTURED_TO_BOB,
    CREATED,
    CREATED_IN_EUR,
    CREATION_REJECTED,
    DEPOSIT_REJECTED,
    DEPOSITED,
    EVENTS,
    EXPIRED,
    HOLD,
    IN_TWO_STREAMS,
    INT64_MAX,
    PLACED,
    RELEASED,
    SOURCE,
    TRANSFERRED,
    WITHDRAWAL_REJECTED,
    WITHDRAWN,
    at,
    cloud_event,
    logged,
    recorded,
)

NO_RESERVE: dict[str, ReserveView] = {}
NOT_FOUND = DepositRejected(5, "salary", "account-not-found")


def alice(balance: int, version: int, changed_at: int) -> AccountView:
    return AccountView(ALICE, "Alice", "USD/2", balance, 0, 0, "open", Version(version), at(changed_at))


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
    assert reduce(lambda view, event: project_account(view, event, ALICE, event.version), stream, None) == account
    assert project_reserves(reserves_after(NO_RESERVE, {}, stream)).get("USD/2", ReserveView(0, None)) == reserve


@pytest.mark.parametrize(
    ("event", "after"),
    [
        (OverdraftLimitSet(50), {"overdraft_limit": 50, "last_updated": at(9)}),
        (OverdraftLimitRejected(0, "limit-in-use"), {}),
        (AccountFrozen("court order"), {"status": "frozen", "last_updated": at(9)}),
        (FreezeRejected("court order", "account-frozen"), {}),
        (AccountUnfrozen("lifted"), {"status": "open", "last_updated": at(9)}),
        (UnfreezeRejected("lifted", "not-frozen"), {}),
        (AccountClosed("moved away"), {"status": "closed", "last_updated": at(9)}),
        (CloseRejected("moved away", "balance-not-zero"), {}),
    ],
)
@pytest.mark.parametrize("before", [alice(100, 2, 2), replace(alice(-40, 2, 2), overdraft_limit=70, status="frozen")])
def test_limits_and_statuses_are_in_the_view(before: AccountView, event: Event, after: dict[str, object]) -> None:
    expected = replace(before, version=3, **after)
    assert project_account(before, recorded(9, event), ALICE, Version(3)) == expected
    assert project_account(None, recorded(9, event), ALICE, Version(3)) is None
    assert expected.available == expected.balance - expected.held + expected.overdraft_limit
    assert project_reserves(reserves_after({"USD/2": ReserveView(5, at(1))}, {}, [recorded(9, event)])) == {}


def test_a_transfer_moves_both_accounts_and_not_the_reserve() -> None:
    event = recorded(9, TRANSFERRED, ALICE, 3)
    bob = AccountView(BOB, "Bob", "USD/2", 5, 0, 0, "open", Version(4), at(4))
    assert project_account(alice(100, 2, 2), event, ALICE, Version(3)) == alice(70, 3, 9)
    assert project_account(bob, event, BOB, Version(9)) == replace(bob, balance=35, version=9, last_updated=at(9))
    for assets in ({}, {ALICE: "EUR/2", BOB: "EUR/2"}):
        assert project_reserves(reserves_after({"USD/2": ReserveView(105, at(4))}, assets, [event])) == {}


IN_EUR = {BOB: "EUR/2"}


@pytest.mark.parametrize(
    ("events", "after"),
    [
        ([recorded(1, DEPOSITED, BOB)], {"EUR/2": ReserveView(100, at(1))}),
        ([recorded(1, DEPOSITED, BOB), recorded(2, WITHDRAWN, BOB)], {"EUR/2": ReserveView(70, at(2))}),
        (
            [recorded(1, DEPOSITED, BOB), recorded(2, DEPOSITED), recorded(3, DEPOSIT_REJECTED, BOB)],
            {"EUR/2": ReserveView(100, at(1)), "USD/2": ReserveView(105, at(2))},
        ),
        # Of an account whose creation was never seen.
        ([recorded(1, DEPOSITED, AccountId("carol"))], {"USD/2": ReserveView(105, at(1))}),
        # No ledger lets it be; it adds up all the same.
        ([recorded(1, TRANSFERRED)], {"USD/2": ReserveView(-25, at(1)), "EUR/2": ReserveView(30, at(1))}),
        ([recorded(1, CREATED_IN_EUR, BOB)], {"EUR/2": ReserveView(0, None)}),
        ([recorded(1, CREATED_IN_EUR, BOB), recorded(2, DEPOSITED, BOB)], {"EUR/2": ReserveView(100, at(2))}),
        ([recorded(1, DEPOSITED, BOB), recorded(2, CREATED_IN_EUR, ALICE)], {"EUR/2": ReserveView(100, at(1))}),
    ],
)
def test_money_is_in_the_reserve_of_its_accounts_asset(
    events: list[RecordedEvent], after: dict[str, ReserveView]
) -> None:
    assert project_reserves(reserves_after({"USD/2": ReserveView(5, at(1))}, IN_EUR, events)) == after


def test_only_the_creation_of_an_account_says_what_it_is_in_and_usd_needs_no_saying() -> None:
    rejected = AccountCreationRejected("Alice", "account-already-exists", "EUR/2")
    stream: list[Event] = [CREATED, rejected, DEPOSITED, CREATION_REJECTED]
    events = [recorded(position, event) for position, event in enumerate(stream, 1)]
    assert other_assets(events) == {}
    assert other_assets([*events, recorded(5, CREATED_IN_EUR, BOB)]) == IN_EUR


def test_the_view_of_an_account_says_what_it_is_in() -> None:
    created = project_account(None, recorded(1, CREATED_IN_EUR), ALICE, Version(1))
    assert created == replace(alice(0, 1, 1), asset="EUR/2")
    changes: list[Event] = [DEPOSITED, OverdraftLimitSet(5), AccountFrozen("court order"), DEPOSIT_REJECTED]
    for event in changes:
        changed = project_account(created, recorded(2, event), ALICE, Version(2))
        assert changed is not None
        assert changed.asset == "EUR/2"


@pytest.mark.parametrize(
    ("event", "change", "change_of_held"),
    [
        (PLACED, 0, 60),
        (CAPTURED, -40, -60),
        (CAPTURED_TO_BOB, -40, -60),
        (RELEASED, 0, -60),
        (EXPIRED, 0, -60),
    ],
)
def test_what_is_held_is_in_the_view_and_leaves_the_reserve_only_when_it_leaves_the_bank(
    event: Event, change: int, change_of_held: int
) -> None:
    before = replace(alice(100, 2, 2), held=60)
    after = replace(before, balance=100 + change, held=60 + change_of_held, version=3, last_updated=at(9))
    assert project_account(before, recorded(9, event), ALICE, Version(3)) == after
    assert after.available == after.balance - after.held
    reserves = project_reserves(reserves_after({"USD/2": ReserveView(100, at(1))}, {}, [recorded(9, event)]))
    assert reserves == ({"USD/2": ReserveView(60, at(9))} if event == CAPTURED else {})


def test_a_capture_into_another_account_is_there_for_both() -> None:
    bob = AccountView(BOB, "Bob", "USD/2", 5, 3, 0, "open", Version(4), at(4))
    changed = project_account(bob, recorded(9, CAPTURED_TO_BOB), BOB, Version(9))
    assert changed == AccountView(BOB, "Bob", "USD/2", 45, 3, 0, "open", Version(9), at(9))


def test_a_hold_is_in_the_view_while_it_is_open() -> None:
    placed = recorded(9, HoldPlaced(HOLD, 60, "books", at(30)))
    assert project_hold(placed) == HoldView(ALICE, HOLD, 60, at(30), "books", at(9))
    for end in (CAPTURED, CAPTURED_TO_BOB, RELEASED, EXPIRED):
        assert project_hold(recorded(10, end)) is None


def test_the_reserve_is_the_sum_of_all_accounts_and_can_be_larger_than_64_bits() -> None:
    full = AmountDeposited(INT64_MAX, "salary")
    deposits: list[RecordedEvent] = [recorded(n, full, ALICE if n % 2 else BOB) for n in range(1, 6)]
    reserve = project_reserves(reserves_after(NO_RESERVE, {}, deposits))["USD/2"]
    assert reserve == ReserveView(5 * INT64_MAX, at(5))
    assert reserve.amount > 2**64


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("traceparent", [UNSET, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"])
def test_an_event_comes_out_of_the_history_byte_for_byte(event: Event, traceparent: str | UnsetType) -> None:
    encoded = encode_event(cloud_event(7, event, version=3, traceparent=traceparent))
    (recorded,) = decode_events(join_events([encoded]))
    before = {ALICE: alice(100, 2, 2), BOB: replace(alice(5, 6, 2), id=BOB, held=7)}
    states = [project_account(before[name], recorded, name, version) for name, version in recorded.streams()]
    rows = list(history_rows([recorded], iter(states), {recorded.position: 2**64}))
    assert [encode_row(row, SOURCE) for row in rows] == [encoded] * len(rows)
    assert [row[:3] for row in rows] == [(14, ALICE, 3), (15, BOB, 7)][: len(rows)]
    assert len(rows) == (2 if event in IN_TWO_STREAMS else 1)
    assert {row[3:5] for row in rows} == {(7, event.type)}
    assert {row[9] for row in rows} == {getattr(event, "amount", None)}
    assert [row[13:18] for row in rows] == [kept(state, recorded.time) for state in states]
    assert [row[18] for row in rows] == [str(2**64), None][: len(rows)]


def kept(account: AccountView | None, time: str) -> tuple[object, ...]:
    """None stands for what most accounts have most of the time."""
    if account is None:
        return (None,) * 5
    usual = {"held": 0, "overdraft_limit": 0, "status": "open", "last_updated": time}
    found = {name: getattr(account, name) for name in usual}
    return account.balance, *(None if found[name] == usual[name] else found[name] for name in usual)


def test_an_event_of_no_account_has_no_account_after_it() -> None:
    (row,) = history_rows([recorded(1, NOT_FOUND)], iter([None]), {})
    assert row[13:] == (None,) * 6
    assert list(created([recorded(1, NOT_FOUND)])) == []


def test_what_is_said_of_an_account_once_is_kept_with_where_it_was_said() -> None:
    events = [recorded(1, CREATED), recorded(2, DEPOSITED), recorded(3, CREATED_IN_EUR, BOB)]
    assert list(created(events)) == [(ALICE, "Alice", "USD/2", 1), (BOB, "Alice", "EUR/2", 3)]


ODD = r'"zo\u00eb \ud83c\udfe6 / \/ \" \\u0000"'


def test_what_another_encoder_wrote_into_the_data_stays_as_it_is() -> None:
    written = b'{ "amount":100,"description":%b,"more":[1e3] }' % ODD.encode()
    (first, last) = logged(1, DEPOSITED).split(b'{"amount":100,"description":"salary"}')
    encoded = first + written + last
    (recorded,) = decode_events(join_events([encoded]))
    (row,) = history_rows([recorded], iter([None]), {})
    assert encode_row(row, SOURCE) == encoded


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (b'"id":"event-1",', b""),
        (b'"id":"event-1"', b'"id":"\\u0000"'),
        (b'"commandid":"command-1"', b'"commandid":1'),
        (b'"commandid":"command-1"', b'"commandid":"command-1","traceparent":""'),
        (b'"salary"', b'"salary","more":"\xff"'),
    ],
)
def test_an_event_that_cannot_be_kept_whole_is_refused(good: bytes, bad: bytes) -> None:
    encoded = logged(1, DEPOSITED)
    assert good in encoded
    (recorded,) = decode_events(join_events([encoded.replace(good, bad)]))
    with pytest.raises(ValueError, match=r"."):
        list(history_rows([recorded], iter([None]), {}))
