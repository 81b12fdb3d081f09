"""What every view store promises."""

import asyncio

import pytest

from projection_service.view_store import Checkpoint, CheckpointMoved, ViewStore
from projection_service.views import AccountView, ReserveView
from shared.chain import CHAIN_START
from shared.events import AccountId, Position, Version
from shared.problems import LedgerError
from tests.contract.conftest import OpenViewStore
from tests.examples import ALICE, BOB, INT64_MAX, SIGNER, SOURCE, at

BEGINNING = Checkpoint(Position(0), None, ReserveView(0, None), CHAIN_START, None)


def checkpoint(position: int, reserve: int) -> Checkpoint:
    return Checkpoint(Position(position), SOURCE, ReserveView(reserve, at(1)), position.to_bytes(32), SIGNER.public_key)


def view(account_id: AccountId, balance: int, version: int = 1, name: str = "Alice") -> AccountView:
    return AccountView(account_id, name, balance, Version(version), at(version % 60))


async def test_new_views_are_at_the_start_and_empty(view_store: ViewStore) -> None:
    assert await view_store.checkpoint() == BEGINNING
    assert await view_store.account(ALICE) == (None, 0)
    assert await view_store.accounts({ALICE}) == {}


async def test_what_is_committed_is_read_back(view_store: ViewStore) -> None:
    views = {
        ALICE: view(ALICE, INT64_MAX, 7, "Zoë 🏦 'quoted' \"twice\" \\ \n"),
        BOB: view(BOB, 0),
    }
    moved = checkpoint(9, INT64_MAX)
    await view_store.commit(Position(0), moved, views)
    assert await view_store.checkpoint() == moved
    assert await view_store.account(ALICE) == (views[ALICE], 9)
    assert await view_store.account(AccountId("unknown")) == (None, 9)
    assert await view_store.accounts({ALICE, BOB, AccountId("unknown")}) == views
    assert await view_store.accounts({BOB}) == {BOB: views[BOB]}
    assert await view_store.accounts(set()) == {}


@pytest.mark.parametrize("reserve", [INT64_MAX + 1, 2**64, 10_000 * INT64_MAX, 2**200])
async def test_the_reserve_can_be_larger_than_64_bits(view_store: ViewStore, reserve: int) -> None:
    await view_store.commit(Position(0), checkpoint(1, reserve), {})
    assert (await view_store.checkpoint()).reserve.amount == reserve


async def test_a_view_is_replaced_by_its_next_state_and_others_stay(view_store: ViewStore) -> None:
    await view_store.commit(Position(0), checkpoint(1, 100), {ALICE: view(ALICE, 100), BOB: view(BOB, 0)})
    await view_store.commit(Position(1), checkpoint(2, 70), {ALICE: view(ALICE, 70, 2)})
    assert await view_store.account(ALICE) == (view(ALICE, 70, 2), 2)
    assert await view_store.account(BOB) == (view(BOB, 0), 2)


async def test_a_commit_takes_as_many_accounts_as_a_transaction_has(view_store: ViewStore) -> None:
    views = {account: view(account, 1) for account in (AccountId(f"account-{number}") for number in range(10_000))}
    await view_store.commit(Position(0), checkpoint(10_000, 10_000), views)
    assert await view_store.accounts(views.keys()) == views


@pytest.mark.parametrize("expected", [0, 4, 6])
async def test_a_commit_from_another_checkpoint_writes_nothing(view_store: ViewStore, expected: int) -> None:
    before = checkpoint(5, 100)
    await view_store.commit(Position(0), before, {ALICE: view(ALICE, 100)})
    with pytest.raises(CheckpointMoved):
        await view_store.commit(Position(expected), checkpoint(9, 0), {ALICE: view(ALICE, 0, 9), BOB: view(BOB, 0)})
    assert await view_store.checkpoint() == before
    assert await view_store.accounts({ALICE, BOB}) == {ALICE: view(ALICE, 100)}
    await view_store.commit(Position(5), checkpoint(6, 0), {})


async def test_views_that_cannot_be_written_leave_the_checkpoint_where_it_was(view_store: ViewStore) -> None:
    with pytest.raises(LedgerError):
        await view_store.commit(Position(0), checkpoint(2, 99), {ALICE: view(ALICE, 100), BOB: view(BOB, -1)})
    assert await view_store.checkpoint() == BEGINNING
    assert await view_store.accounts({ALICE, BOB}) == {}
    await view_store.commit(Position(0), checkpoint(1, 100), {ALICE: view(ALICE, 100)})


async def test_one_of_several_writers_moves_the_checkpoint(open_view_store: OpenViewStore) -> None:
    async with open_view_store() as one, open_view_store() as other:
        results = await asyncio.gather(
            *(
                store.commit(Position(0), checkpoint(1, balance), {ALICE: view(ALICE, balance)})
                for balance, store in enumerate([one, other, one, other])
            ),
            return_exceptions=True,
        )
        (winner,) = [balance for balance, result in enumerate(results) if result is None]
        assert sum(isinstance(result, CheckpointMoved) for result in results) == 3
        for store in (one, other):
            assert await store.checkpoint() == checkpoint(1, winner)
            assert await store.account(ALICE) == (view(ALICE, winner), 1)


async def test_several_processes_can_open_new_views_at_the_same_time(open_view_store: OpenViewStore) -> None:
    async def look() -> Checkpoint:
        async with open_view_store() as store:
            return await store.checkpoint()

    assert await asyncio.gather(*(look() for _ in range(4))) == [BEGINNING] * 4


async def test_a_commit_that_is_cancelled_is_whole_or_not_there(view_store: ViewStore) -> None:
    for moment in range(20):
        before = await view_store.checkpoint()
        moved = checkpoint(before.position + 1, before.position + 1)
        views = {ALICE: view(ALICE, moved.position)}
        committing = asyncio.create_task(view_store.commit(before.position, moved, views))
        for _ in range(moment // 2):
            await asyncio.sleep(0.0001)
        committing.cancel()
        await asyncio.wait([committing])
        # Accounts are read where commits are written, and so after a commit that still goes on.
        accounts, after = await view_store.accounts({ALICE}), await view_store.checkpoint()
        assert after in (before, moved)
        assert (accounts[ALICE].balance if accounts else 0) == after.position


async def test_a_view_and_its_position_are_of_one_moment(view_store: ViewStore) -> None:
    """Each commit writes its position as the balance and the reserve, so that a mixture shows."""
    last = 50

    async def write() -> None:
        for position in range(1, last + 1):
            await view_store.commit(
                Position(position - 1), checkpoint(position, position), {ALICE: view(ALICE, position)}
            )

    writing = asyncio.create_task(write())
    seen = 0
    while seen < last:
        account, position = await view_store.account(ALICE)
        assert (account.balance if account else 0) == position
        stored = await view_store.checkpoint()
        assert stored.reserve.amount == stored.position >= position >= seen
        seen = position
        await asyncio.sleep(0)  # a store may answer without ever waiting
        if writing.done():
            await writing
    await writing


async def test_all_of_it_is_there_when_the_store_is_opened_again(open_view_store: OpenViewStore) -> None:
    moved = checkpoint(2, 2**64)
    async with open_view_store() as store:
        await store.commit(Position(0), moved, {ALICE: view(ALICE, 100)})
    async with open_view_store() as store:
        assert await store.checkpoint() == moved
        assert await store.account(ALICE) == (view(ALICE, 100), 2)
        await store.commit(Position(2), checkpoint(3, 0), {})
