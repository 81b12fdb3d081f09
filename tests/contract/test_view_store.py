"""What every view store promises."""

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import apsw
import pytest
from msgspec.structs import astuple, replace

from projection_service.view import Run
from projection_service.view_store import (
    Change,
    Checkpoint,
    CheckpointMoved,
    ImpossibleEvents,
    OtherViews,
    Read,
    ReadRows,
    ViewStore,
)
from projection_service.views.accounts.fold import AccountView
from projection_service.views.accounts.tables import PUT_ACCOUNTS, read_account, read_accounts
from projection_service.views.history.tables import read_history
from projection_service.views.reserve.fold import ReserveView
from projection_service.views.reserve.tables import PUT_RESERVES, READ_ASSETS, changes, read_page, read_reserves
from shared.chain import CHAIN_START
from shared.errors import LedgerError, StoreUnavailable
from shared.events import USD, AccountCreated, AccountId, Position, RecordedEvent, Version
from tests.contract.conftest import ChangeViews, OpenViewStore
from tests.examples import (
    ALICE,
    BOB,
    CREATED,
    CREATED_IN_EUR,
    DEPOSITED,
    INT64_MAX,
    SIGNER,
    SOURCE,
    WITHDRAWN,
    at,
    recorded,
)

BEGINNING = Checkpoint(Position(0), None, CHAIN_START, None)


def checkpoint(position: int) -> Checkpoint:
    if position == 0:
        return BEGINNING
    return Checkpoint(Position(position), SOURCE, position.to_bytes(32), SIGNER.public_key)


def put(*views: AccountView) -> list[Change]:
    return [Change(PUT_ACCOUNTS, [astuple(view) for view in views])]


def put_reserve(amount: int) -> list[Change]:
    return [Change(PUT_RESERVES, [(USD, str(amount), at(1))])]


async def read_reserve(read: ReadRows) -> tuple[int, Position]:
    """That of USD/2, and its position."""
    found = await read_reserves(read, [])
    return found.by_asset[USD].amount, found.position


def view(account_id: AccountId, balance: int, version: int = 1, name: str = "Alice") -> AccountView:
    return AccountView(account_id, name, "EUR/2", balance, 0, 0, "open", Version(version), at(version % 60))


async def test_new_views_are_at_the_start_and_empty(view_store: ViewStore) -> None:
    assert await view_store.checkpoint() == BEGINNING
    assert await read_account(view_store.read, ALICE) == (None, 0)
    assert await read_accounts(view_store.read, [ALICE]) == {}


async def test_what_is_committed_is_read_back(view_store: ViewStore) -> None:
    alice, bob = view(ALICE, INT64_MAX, 7, "Zoë 🏦 'quoted' \"twice\" \\ \n"), view(BOB, 0)
    moved = checkpoint(9)
    await view_store.commit(checkpoint(0), moved, put(alice, bob))
    assert await view_store.checkpoint() == moved
    for read in (view_store.read, partial(view_store.read_for_fold, moved)):
        assert await read_account(read, ALICE) == (alice, 9)
        assert await read_account(read, AccountId("unknown")) == (None, 9)
        assert await read_accounts(read, [ALICE, BOB, AccountId("unknown")]) == {ALICE: alice, BOB: bob}
        assert await read_accounts(read, [BOB]) == {BOB: bob}
        assert await read_accounts(read, []) == {}


@pytest.mark.parametrize("amount", [INT64_MAX + 1, 2**64, 10_000 * INT64_MAX, 2**200])
async def test_a_value_can_be_larger_than_64_bits(view_store: ViewStore, amount: int) -> None:
    await view_store.commit(checkpoint(0), checkpoint(1), put_reserve(amount))
    assert await read_reserve(view_store.read) == (amount, 1)


async def test_a_row_is_replaced_by_its_next_state_and_others_stay(view_store: ViewStore) -> None:
    await view_store.commit(checkpoint(0), checkpoint(1), put(view(ALICE, 100), view(BOB, 0)))
    await view_store.commit(checkpoint(1), checkpoint(2), put(view(ALICE, 70, 2)))
    assert await read_account(view_store.read, ALICE) == (view(ALICE, 70, 2), 2)
    assert await read_account(view_store.read, BOB) == (view(BOB, 0), 2)


async def test_a_commit_takes_as_many_rows_as_a_transaction_has(view_store: ViewStore) -> None:
    views = {account: view(account, 1) for account in (AccountId(f"account-{number}") for number in range(10_000))}
    await view_store.commit(checkpoint(0), checkpoint(10_000), put(*views.values()))
    assert await read_accounts(view_store.read, list(views)) == views


async def test_a_commit_takes_changes_of_several_views_and_changes_without_rows(view_store: ViewStore) -> None:
    await view_store.commit(checkpoint(0), checkpoint(1), [*put(view(ALICE, 100)), *put_reserve(100)])
    await view_store.commit(checkpoint(1), checkpoint(2), [*put(), *put_reserve(50)])
    await view_store.commit(checkpoint(2), checkpoint(3), [])
    assert await read_account(view_store.read, ALICE) == (view(ALICE, 100), 3)
    assert (await read_reserve(view_store.read))[0] == 50


DAVE, ERIN = AccountId("dave"), AccountId("erin")
OF_THREE_ASSETS = [
    recorded(1, CREATED, ALICE, 1),
    recorded(2, CREATED_IN_EUR, BOB, 1),
    recorded(3, DEPOSITED, ALICE, 2),
    recorded(4, DEPOSITED, BOB, 2),
    recorded(5, AccountCreated("Dave", "EUR/2"), DAVE, 1),
    recorded(6, DEPOSITED, DAVE, 2),
    recorded(7, AccountCreated("Erin", "BTC/8"), ERIN, 1),
    recorded(8, WITHDRAWN, BOB, 3),
]
THE_RESERVES = [("BTC/8", ReserveView(0, None)), ("EUR/2", ReserveView(170, at(8))), (USD, ReserveView(100, at(3)))]


async def fold_reserves(store: ViewStore, events: Sequence[RecordedEvent], page: int) -> None:
    for first in range(0, len(events), page):
        expected, moved = checkpoint(first), checkpoint(min(first + page, len(events)))
        run = Run(partial(store.read_for_fold, expected), events[first : first + page], moved.chain)
        changed = await changes(run)
        await store.commit(expected, moved, changed)


@pytest.mark.parametrize("page", range(1, 9))
async def test_the_reserves_of_all_assets_are_the_same_in_runs_of_any_size(view_store: ViewStore, page: int) -> None:
    """What an account is in, only its first event says."""
    assert await read_page(view_store.read, "", 10) == ([(USD, ReserveView(0, None))], 0)
    await fold_reserves(view_store, OF_THREE_ASSETS, page)
    assert await read_page(view_store.read, "", 10) == (THE_RESERVES, 8)
    found = await read_reserves(view_store.read, ["EUR/2", "GBP/2"])
    assert (found.position, found.by_asset) == (8, {"EUR/2": THE_RESERVES[1][1], USD: THE_RESERVES[2][1]})


async def test_the_reserves_are_read_in_pages_in_the_order_of_their_assets(view_store: ViewStore) -> None:
    """The order of their bytes, whatever the language of the database is."""
    names = sorted(["B/2", "A/2", "AA/2", "A1/2", "Z/2", "USD/10", "USD/1", "USDT/2", USD])
    await view_store.commit(BEGINNING, checkpoint(1), [Change(PUT_RESERVES, [(name, "1", None) for name in names])])
    page, _ = await read_page(view_store.read, "", 100)
    assert [asset for asset, _ in page] == names
    for first in range(len(names)):
        assert await read_page(view_store.read, names[first], 2) == (page[first + 1 : first + 3], 1)


async def test_what_accounts_are_in_is_not_looked_up_while_all_are_in_usd(view_store: ViewStore) -> None:
    asked: list[Read] = []

    async def ask(read: Read, *parameters: object) -> Sequence[Sequence[Any]]:
        asked.append(read)
        return await view_store.read(read, *parameters)

    await changes(Run(ask, [recorded(1, CREATED, ALICE, 1), recorded(2, DEPOSITED, ALICE, 2)], CHAIN_START))
    assert READ_ASSETS not in asked
    await fold_reserves(view_store, OF_THREE_ASSETS, 8)
    await changes(Run(ask, [recorded(9, DEPOSITED, ALICE, 3)], CHAIN_START))
    assert READ_ASSETS in asked


async def test_a_deposit_whose_account_was_never_seen_is_in_usd(view_store: ViewStore) -> None:
    await fold_reserves(view_store, [recorded(1, DEPOSITED, BOB, 1), *OF_THREE_ASSETS[2:3]], 1)
    assert await read_reserve(view_store.read) == (200, 2)


OTHERS = {
    "at the start": BEGINNING,
    "before": checkpoint(4),
    "after": checkpoint(6),
    "of another history": replace(checkpoint(5), chain=bytes(32)),
    "of another ledger": replace(checkpoint(5), source="/ledgers/another"),
    "of no ledger": replace(checkpoint(5), source=None),
    "under another key": replace(checkpoint(5), key=bytes(32)),
    "under no key": replace(checkpoint(5), key=None),
}


@pytest.mark.parametrize("expected", OTHERS.values(), ids=OTHERS.keys())
async def test_a_commit_from_another_checkpoint_writes_nothing(view_store: ViewStore, expected: Checkpoint) -> None:
    before = checkpoint(5)
    await view_store.commit(checkpoint(0), before, put(view(ALICE, 100)))
    changes = [*put(view(ALICE, 0, 9), view(BOB, 0)), *put_reserve(9)]
    with pytest.raises(CheckpointMoved):
        await view_store.commit(expected, checkpoint(9), changes)
    assert await view_store.checkpoint() == before
    assert await read_accounts(view_store.read, [ALICE, BOB]) == {ALICE: view(ALICE, 100)}
    assert (await read_reserve(view_store.read))[0] == 0
    await view_store.commit(checkpoint(5), checkpoint(6), [])


@pytest.mark.parametrize("expected", ["at the start", "before", "after", "of another history"])
async def test_what_is_read_for_a_fold_is_of_the_expected_checkpoint(view_store: ViewStore, expected: str) -> None:
    """Also when the views will be there again by the time of the commit."""
    await view_store.commit(checkpoint(0), checkpoint(5), put(view(ALICE, 100)))
    for ids in ([ALICE], [BOB], []):
        with pytest.raises(CheckpointMoved):
            await read_accounts(partial(view_store.read_for_fold, OTHERS[expected]), ids)
    with pytest.raises(CheckpointMoved):
        await read_reserve(partial(view_store.read_for_fold, OTHERS[expected]))
    await view_store.commit(checkpoint(5), checkpoint(6), [])


@pytest.mark.parametrize("table", ["checkpoint", "reserve"])
async def test_tables_that_are_read_back_one_by_one_are_views_that_are_away(
    open_view_store: OpenViewStore, change_views: ChangeViews, table: str
) -> None:
    async with open_view_store() as store:
        before = await store.checkpoint()
        await change_views(f"CREATE TABLE kept AS SELECT * FROM {table}")
        await change_views(f"DELETE FROM {table}")
        for read in (store.read, partial(store.read_for_fold, before)):
            with pytest.raises(StoreUnavailable, match="one transaction"):
                await read_reserve(read)
        if table == "checkpoint":
            for asked in (
                store.checkpoint(),
                read_account(store.read, ALICE),
                read_history(store.read, ALICE, Version(0), 1, Position(1)),
            ):
                with pytest.raises(StoreUnavailable, match="one transaction"):
                    await asked
            with pytest.raises(StoreUnavailable, match="one transaction"):
                async with open_view_store():
                    pass
        await change_views(f"INSERT INTO {table} SELECT * FROM kept")
        await store.commit(before, checkpoint(1), put_reserve(7))


async def test_rows_that_the_tables_refuse_leave_everything_where_it_was(view_store: ViewStore) -> None:
    with pytest.raises(ImpossibleEvents, match="balance"):
        await view_store.commit(checkpoint(0), checkpoint(2), put(view(ALICE, 100), view(BOB, -1)))
    assert await view_store.checkpoint() == BEGINNING
    assert await read_accounts(view_store.read, [ALICE, BOB]) == {}
    await view_store.commit(checkpoint(0), checkpoint(1), put(view(ALICE, 100)))


async def test_rows_that_fail_while_they_are_made_leave_everything_where_it_was(view_store: ViewStore) -> None:
    def rows() -> Iterator[tuple[object, ...]]:
        yield astuple(view(ALICE, 100))
        raise ImpossibleEvents("made up")

    with pytest.raises(ImpossibleEvents, match="made up"):
        await view_store.commit(checkpoint(0), checkpoint(2), [Change(PUT_ACCOUNTS, rows())])
    assert await view_store.checkpoint() == BEGINNING
    assert await read_account(view_store.read, ALICE) == (None, 0)


async def test_one_of_several_writers_moves_the_checkpoint(open_view_store: OpenViewStore) -> None:
    async with open_view_store() as one, open_view_store() as other:
        results = await asyncio.gather(
            *(
                store.commit(checkpoint(0), checkpoint(1), put(view(ALICE, balance)))
                for balance, store in enumerate([one, other, one, other])
            ),
            return_exceptions=True,
        )
        (winner,) = [balance for balance, result in enumerate(results) if result is None]
        assert sum(isinstance(result, CheckpointMoved) for result in results) == 3
        for store in (one, other):
            assert await store.checkpoint() == checkpoint(1)
            assert await read_account(store.read, ALICE) == (view(ALICE, winner), 1)


async def test_several_processes_can_open_new_views_at_the_same_time(open_view_store: OpenViewStore) -> None:
    async def look() -> Checkpoint:
        async with open_view_store() as store:
            return await store.checkpoint()

    assert await asyncio.gather(*(look() for _ in range(4))) == [BEGINNING] * 4


async def test_a_commit_that_is_cancelled_is_whole_or_not_there(view_store: ViewStore) -> None:
    for moment in range(20):
        before = await view_store.checkpoint()
        moved = checkpoint(before.position + 1)
        committing = asyncio.create_task(view_store.commit(before, moved, put(view(ALICE, moved.position))))
        for _ in range(moment // 2):
            await asyncio.sleep(0.0001)
        committing.cancel()
        await asyncio.wait([committing])
        # What is read for a fold is read where commits are written, and so after a commit that still goes on.
        try:
            after, accounts = moved, await read_accounts(partial(view_store.read_for_fold, moved), [ALICE])
        except CheckpointMoved:
            after = await view_store.checkpoint()
            accounts = await read_accounts(partial(view_store.read_for_fold, after), [ALICE])
        assert after in (before, moved)
        assert (accounts[ALICE].balance if accounts else 0) == after.position


async def test_a_view_and_its_position_are_of_one_moment(view_store: ViewStore) -> None:
    """Each commit writes its position as the balance and the reserve, so that a mixture shows."""
    last = 50

    async def write() -> None:
        for position in range(1, last + 1):
            changes = [*put(view(ALICE, position)), *put_reserve(position)]
            await view_store.commit(checkpoint(position - 1), checkpoint(position), changes)

    writing = asyncio.create_task(write())
    seen = 0
    while seen < last:
        account, position = await read_account(view_store.read, ALICE)
        assert (account.balance if account else 0) == position
        reserve, later = await read_reserve(view_store.read)
        assert reserve == later >= position >= seen
        seen = position
        await asyncio.sleep(0)  # a store may answer without ever waiting
        if writing.done():
            await writing
    await writing


async def test_all_of_it_is_there_when_the_store_is_opened_again(open_view_store: OpenViewStore) -> None:
    moved = checkpoint(2)
    async with open_view_store() as store:
        await store.commit(checkpoint(0), moved, [*put(view(ALICE, 100)), *put_reserve(2**64)])
    async with open_view_store() as store:
        assert await store.checkpoint() == moved
        assert await read_account(store.read, ALICE) == (view(ALICE, 100), 2)
        assert (await read_reserve(store.read))[0] == 2**64
        await store.commit(checkpoint(2), checkpoint(3), [])


async def test_a_view_that_was_not_there_from_the_first_event_on_is_refused(open_view_store: OpenViewStore) -> None:
    async with open_view_store("accounts"):
        pass
    # Nothing is in them yet.
    async with open_view_store("accounts", "reserve") as store:
        await store.commit(checkpoint(0), checkpoint(1), put_reserve(7))
    with pytest.raises(OtherViews, match=r"without directory and history.*PROJECTION_NAME .*to accounts,reserve\."):
        async with open_view_store():
            pass
    async with open_view_store("reserve", "accounts") as store:
        assert (await read_reserve(store.read))[0] == 7


async def test_a_view_that_is_no_longer_kept_is_gone_and_does_not_come_back(open_view_store: OpenViewStore) -> None:
    async with open_view_store() as store:
        await store.commit(checkpoint(0), checkpoint(1), put(view(ALICE, 100)))
    async with open_view_store("accounts") as store:
        assert await read_account(store.read, ALICE) == (view(ALICE, 100), 1)
        # A bug of whoever asks, which SQLite's error is told as.
        with pytest.raises((LedgerError, apsw.SQLError), match="reserve"):
            await read_reserve(store.read)
        await store.commit(checkpoint(1), checkpoint(2), [])
    with pytest.raises(OtherViews, match="without directory and history and holds and reserve"):
        async with open_view_store():
            pass


@pytest.mark.parametrize(
    ("position", "before", "after"),
    [
        (0, ["accounts"], ["accounts", "reserve"]),
        (0, ["accounts", "reserve"], ["accounts"]),
        (5, ["accounts", "reserve"], ["accounts"]),
    ],
)
async def test_a_process_whose_views_are_others_now_commits_nothing_more(
    open_view_store: OpenViewStore, position: int, before: list[str], after: list[str]
) -> None:
    async with open_view_store(*before) as one:
        if position:
            await one.commit(checkpoint(0), checkpoint(position), [])
        async with open_view_store(*after) as other:
            with pytest.raises(CheckpointMoved):
                await one.commit(checkpoint(position), checkpoint(6), put(view(ALICE, 1)))
            with pytest.raises(OtherViews, match="another PROJECTION_VIEWS"):
                await one.checkpoint()
            assert await read_account(other.read, ALICE) == (None, position)
            await other.commit(checkpoint(position), checkpoint(6), put(view(ALICE, 2)))
