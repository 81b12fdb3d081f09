"""Queries that read in pieces take turns, however many there are."""

import asyncio

from projection_service.view_store import Read, in_turns

READ = Read.in_both("SELECT 1")


async def test_at_each_turn_of_the_event_loop_one_piece_begins() -> None:
    turn, begun = 0, list[tuple[int, int]]()

    async def count() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async def rows(read: Read, *parameters: object) -> list[tuple[object, ...]]:
        assert read is READ
        begun.append((turn, int(str(parameters[0]))))
        return [parameters]

    pieces = in_turns(rows)

    async def page(number: int) -> None:
        for _ in range(3):
            assert await pieces(READ, number) == [(number,)]

    counting = asyncio.create_task(count())
    await asyncio.gather(*map(page, range(20)))
    counting.cancel()
    turns = [at for at, _ in begun]
    assert len(set(turns)) == len(turns) == 60
    # And in the order in which they came: nobody has two before another has one.
    assert [number for _, number in begun] == [*range(20)] * 3


async def test_a_piece_that_takes_its_time_holds_up_nobody() -> None:
    ready = asyncio.Event()

    async def rows(read: Read, *parameters: object) -> list[tuple[object, ...]]:
        assert read is READ
        if parameters == ("slow",):
            await ready.wait()
        return [parameters]

    pieces = in_turns(rows)
    slow = asyncio.create_task(asyncio.wait_for(pieces(READ, "slow"), 60))
    await asyncio.wait_for(pieces(READ, "quick"), 60)
    assert not slow.done()
    ready.set()
    assert await slow == [("slow",)]
