"""Waiting for a position, without polling and without leaving anything behind."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

import pytest

from shared.errors import CorruptStore, Overloaded
from shared.events import Position
from shared.platform.watermark import WAKES_MAX, Peer, Watermark, follow

FOR_EVER_SECONDS = 60.0
A_MOMENT_SECONDS = 0.01
MANY = 2000


def wait_for(
    watermark: Watermark, position: int, seconds: float = FOR_EVER_SECONDS, peer: Peer | None = None
) -> "asyncio.Task[bool]":
    return asyncio.create_task(watermark.reach(Position(position), seconds, peer))


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("position", [0, 4, 5])
@pytest.mark.parametrize("wait_seconds", [0, FOR_EVER_SECONDS])
async def test_a_position_that_is_reached_is_not_waited_for(position: int, wait_seconds: float) -> None:
    assert await Watermark(Position(5)).reach(Position(position), wait_seconds)


@pytest.mark.parametrize("wait_seconds", [-1, 0, A_MOMENT_SECONDS])
async def test_a_position_that_does_not_come_in_time_is_not_reached(wait_seconds: float) -> None:
    watermark = Watermark(Position(5))
    assert not await watermark.reach(Position(6), wait_seconds)
    assert not watermark._waiting


@pytest.mark.parametrize("advanced_to", [6, 9])
async def test_a_waiter_is_woken_when_its_position_is_reached_or_passed(advanced_to: int) -> None:
    watermark = Watermark(Position(5))
    waiting = wait_for(watermark, 6)
    await settle()
    assert not waiting.done()
    watermark.advance(Position(advanced_to))
    assert await waiting
    assert watermark.position == advanced_to


async def test_an_older_position_changes_nothing() -> None:
    watermark = Watermark(Position(5))
    waiting = wait_for(watermark, 6)
    await settle()
    watermark.advance(Position(4))
    watermark.advance(Position(5))
    await settle()
    assert watermark.position == 5
    assert not waiting.done()
    watermark.close()
    await waiting


async def test_each_of_many_waiters_is_woken_at_its_own_position() -> None:
    watermark = Watermark(Position(0))
    waiting = {(position, copy): wait_for(watermark, position) for copy in range(3) for position in (9, 2, 5, 1, 7)}
    await settle()
    for reached in (1, 4, 5, 8, 9):
        watermark.advance(Position(reached))
        await settle()
        assert {position for (position, _), task in waiting.items() if task.done()} == {
            position for position in (1, 2, 5, 7, 9) if position <= reached
        }
    assert all(await asyncio.gather(*waiting.values()))
    assert not watermark._waiting


async def test_a_waiter_that_is_cancelled_leaves_nothing_behind_and_hurts_nobody() -> None:
    watermark = Watermark(Position(0))
    waiting = [wait_for(watermark, position) for position in (3, 1, 2)]
    await settle()
    waiting[1].cancel()
    waiting[2].cancel()
    await settle()
    assert all(task.cancelled() for task in waiting[1:])
    assert watermark.waits == 1
    watermark.advance(Position(3))
    assert await waiting[0]


async def test_a_waiter_that_timed_out_leaves_the_others_in_order() -> None:
    watermark = Watermark(Position(0))
    waiting = [wait_for(watermark, position) for position in (5, 4, 3, 2)]
    await settle()
    assert not await watermark.reach(Position(1), A_MOMENT_SECONDS)
    assert watermark.waits == 4
    watermark.advance(Position(4))
    await settle()
    assert [task.done() for task in waiting] == [False, True, True, True]
    watermark.advance(Position(5))
    assert await waiting[0]


async def test_closing_releases_every_waiter_now_and_from_now_on() -> None:
    watermark = Watermark(Position(5))
    waiting = [wait_for(watermark, position) for position in (6, 7)]
    await settle()
    watermark.close()
    assert await asyncio.gather(*waiting) == [False, False]
    assert not await watermark.reach(Position(6), FOR_EVER_SECONDS)
    assert await watermark.reach(Position(5), FOR_EVER_SECONDS)
    assert not watermark._waiting


async def test_a_peer_that_leaves_is_not_waited_for_now_and_from_now_on() -> None:
    watermark = Watermark(Position(5))
    leaving, staying = Peer(), Peer()
    waiting = [wait_for(watermark, 6, peer=peer) for peer in (leaving, staying)]
    await settle()
    leaving.leave()
    await settle()
    assert [task.done() for task in waiting] == [True, False]
    assert not await watermark.reach(Position(6), FOR_EVER_SECONDS, leaving)
    assert await watermark.reach(Position(5), FOR_EVER_SECONDS, leaving)
    watermark.advance(Position(6))
    assert await asyncio.gather(*waiting) == [False, True]


async def test_more_waits_than_the_limit_are_refused_until_one_ends() -> None:
    watermark = Watermark(Position(0), waits_max=2)
    waiting = [wait_for(watermark, 1) for _ in range(2)]
    await settle()
    with pytest.raises(Overloaded, match="2 requests wait"):
        await watermark.reach(Position(1), FOR_EVER_SECONDS)
    assert not await watermark.reach(Position(1), 0)
    waiting[0].cancel()
    await settle()
    waiting[0] = wait_for(watermark, 1)
    await settle()
    watermark.advance(Position(1))
    assert await asyncio.gather(*waiting) == [True, True]


async def turns_while(tasks: "Sequence[asyncio.Task[bool]]") -> int:
    """Turns of the event loop until all `tasks` have ended: so often did somebody else get a chance."""
    turns = 0
    while not all(task.done() for task in reversed(tasks)):
        await asyncio.sleep(0)
        turns += 1
    return turns


@pytest.mark.parametrize("end", ["reached", "left", "closed"])
async def test_others_get_their_turn_while_very_many_waits_end_together(end: str) -> None:
    watermark, peer = Watermark(Position(0), waits_max=MANY), Peer()
    waiting = [wait_for(watermark, position % 100 + 1, peer=peer) for position in range(MANY)]
    await settle()
    ends: dict[str, Callable[[], None]] = {
        "reached": partial(watermark.advance, Position(MANY)),
        "left": peer.leave,
        "closed": watermark.close,
    }
    ends[end]()
    assert await turns_while(waiting) >= MANY // WAKES_MAX
    assert (watermark.waits, watermark._waiting) == (0, [])


async def test_others_get_their_turn_while_very_many_waits_time_out_together() -> None:
    watermark = Watermark(Position(0), waits_max=MANY + 1)
    stays = wait_for(watermark, 1)
    waiting = [wait_for(watermark, 1, A_MOMENT_SECONDS) for _ in range(MANY)]
    assert await turns_while(waiting) >= MANY // WAKES_MAX
    assert (watermark.waits, len(watermark._waiting)) == (1, 1)
    stays.cancel()


async def test_what_waits_that_ended_leave_behind_is_never_more_than_those_that_go_on() -> None:
    watermark = Watermark(Position(0))
    waiting = [wait_for(watermark, position) for position in range(1, 1001)]
    await settle()
    for task in waiting[:990]:
        task.cancel()
        await settle()
        assert len(watermark._waiting) <= 2 * watermark.waits
    watermark.advance(Position(1000))
    assert await asyncio.gather(*waiting[990:]) == [True] * 10


async def test_who_follows_a_store_that_cannot_be_right_hears_of_it() -> None:
    async def read() -> Position:
        raise CorruptStore("the tables hold other views")

    with pytest.raises(CorruptStore):
        await follow(read, Watermark(Position(0)))


async def test_a_watermark_that_goes_back_is_waited_for_again() -> None:
    watermark = Watermark(Position(5))
    watermark.move(Position(3))
    assert not await watermark.reach(Position(5), 0.01)
    waiting = asyncio.create_task(watermark.reach(Position(5), 30))
    await asyncio.sleep(0)
    watermark.move(Position(5))
    assert await waiting
