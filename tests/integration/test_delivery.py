"""Messages lost, doubled, reordered, unreadable: the views stay the fold of the log."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.bank import Bank
from tests.integration.broker import (
    EXCHANGE,
    FOLLOWING,
    bind,
    consumers_of,
    eventually,
    first_seen,
    messages_in,
    observe,
    open_channel,
    publish,
    queue_of,
    relay_status,
    until_confirmed,
    until_subscription,
)
from tests.integration.conftest import OpenBank
from tests.integration.load import load, seeded


async def batch(bank: Bank, commands: int) -> int:
    """Record deposits in one transaction; the position of the last one."""
    _, results = await bank.post("/commands", [{"type": "deposit", "account_id": "alice", "amount": 1}] * commands)
    return int(results[-1]["position"])


async def bodies(bank: Bank) -> list[bytes]:
    """Each event of the log as a message of its own."""
    return [json.dumps([event]).encode() for event in await bank.log()]


async def test_messages_that_come_twice_and_in_any_order_count_once(amqp_url: str, bank_on: OpenBank) -> None:
    random = seeded()
    async with bank_on(amqp_url, projections=2) as bank:
        await until_subscription(bank, FOLLOWING)
        async with load(bank):
            for _ in range(5):
                repeated = await bodies(bank) * 2
                random.shuffle(repeated)
                await publish(amqp_url, repeated)
        await until_subscription(bank, FOLLOWING)


async def test_a_message_that_overtakes_others_leaves_no_hole(amqp_url: str, bank_on: OpenBank) -> None:
    """The relay is kept out, and its messages come from a broker that reverses them."""
    async with bank_on(amqp_url) as bank:
        await bank.create("alice")
        await until_subscription(bank, FOLLOWING)
        async with unbound(bank, amqp_url):
            await batch(bank, 20)
            await publish(amqp_url, reversed(await bodies(bank)), queue_of(bank.projection))
            await bank.check_views()
        assert "filling a hole from the feed" in bank.projection.log.read_text()


@asynccontextmanager
async def unbound(bank: Bank, amqp_url: str) -> AsyncIterator[None]:
    """The projection's queue is off the exchange: what the relay publishes does not reach it."""
    async with open_channel(amqp_url) as channel:
        queue = await channel.get_queue(queue_of(bank.projection))
        await queue.unbind(EXCHANGE)
        yield
        await queue.bind(EXCHANGE)


async def test_a_lost_last_message_is_found_by_comparing_with_the_head(amqp_url: str, bank_on: OpenBank) -> None:
    """No later message shows that one is missing."""
    await bind(amqp_url, "somebody-else")
    async with bank_on(amqp_url) as bank:
        await bank.create("alice")
        await until_subscription(bank, FOLLOWING)
        async with unbound(bank, amqp_url):
            await until_confirmed(bank, await batch(bank, 3))
            await bank.check_views()


async def test_views_that_a_power_cut_took_back_are_brought_up_to_date_from_the_feed(
    amqp_url: str, bank_on: OpenBank
) -> None:
    """Their messages have been acknowledged, and don't come again."""
    async with bank_on(amqp_url) as bank:
        await bank.create("alice")
        await bank.check_views()
        await bank.projection.stop()
        (views,) = Path(bank.projection.environment["DATA_DIR"]).glob("projection-*.sqlite3")
        before = views.read_bytes()
        await bank.projection.start()
        await until_subscription(bank, FOLLOWING)
        await bank.deposit("alice", 1250)
        await bank.check_views()
        await bank.projection.stop()
        views.write_bytes(before)
        await bank.projection.start()
        await bank.check_views()


async def test_a_queue_purged_under_load_loses_nothing(amqp_url: str, bank_on: OpenBank) -> None:
    async with bank_on(amqp_url, projections=2) as bank:
        await until_subscription(bank, FOLLOWING)
        async with load(bank) as clients, open_channel(amqp_url) as channel:
            queue = await channel.get_queue(queue_of(bank.projection))
            for _ in range(30):
                await queue.purge()
                await clients.go_on(10)


async def test_a_queue_deleted_under_load_is_declared_again_and_loses_nothing(amqp_url: str, bank_on: OpenBank) -> None:
    async with bank_on(amqp_url, projections=2) as bank:
        await until_subscription(bank, FOLLOWING)
        async with load(bank) as clients:
            for _ in range(3):
                async with open_channel(amqp_url) as channel:
                    await channel.queue_delete(queue_of(bank.projection))
                await clients.go_on(50)
                await until_subscription(bank, FOLLOWING)


async def test_without_any_queue_bound_events_wait_in_the_log(vhost_url: str, bank_on: OpenBank) -> None:
    async with bank_on(vhost_url, projections=0) as bank:
        await bank.create("alice")
        await eventually(
            lambda: relay_status(bank), lambda status: "no queue is bound" in status, "the relay to say why it waits"
        )
        last = await batch(bank, 10)
        async with observe(vhost_url) as observer:
            await observer.reach(last)
            assert first_seen(observer.positions) == list(range(1, last + 1))


async def test_a_restarted_relay_goes_on_from_its_cursor_in_order(amqp_url: str, bank_on: OpenBank) -> None:
    await bind(amqp_url, "collector")
    async with bank_on(amqp_url, projections=0) as bank:
        await bank.create("alice")
        for _ in range(3):
            await bank.command.kill()
            await bank.command.start()
            last = await batch(bank, 50)
        await until_confirmed(bank, last)
        assert await bank.command.stop() == 0
        await bank.command.start()
        last = await batch(bank, 1)
        await until_confirmed(bank, last)
        async with observe(amqp_url, "collector") as observer:
            await observer.reach(last)
            positions = observer.positions
    assert first_seen(positions) == list(range(1, last + 1))
    # After a clean stop the cursor is where the confirms were: nothing is sent again.
    assert positions.count(last - 1) == 1


@pytest.mark.parametrize("in_queue", [True, False])
async def test_a_backlog_of_10_000_events_is_caught_up(amqp_url: str, bank_on: OpenBank, in_queue: bool) -> None:
    """From the queue that collected them, or from the feed when the projection is new."""
    async with bank_on(amqp_url) as bank:
        await bank.create("alice")
        if in_queue:
            await until_subscription(bank, FOLLOWING)
        await bank.projection.kill()
        for _ in range(10):
            last = await batch(bank, 1000)
        if in_queue:
            await until_confirmed(bank, last)
        await bank.projection.start()
        assert len(await bank.check_views()) == 10_001
        await bank.projection.wait_for("/readyz")

        async def waiting() -> int:
            return await messages_in(amqp_url, queue_of(bank.projection))

        await eventually(waiting, lambda messages: messages == 0, "the queue to be empty")


POISON = [
    b"not JSON",
    b'[{"specversion": "1.0", "type": "account-closed"}]',
    "another ledger's",
]


@pytest.mark.parametrize("poison", POISON, ids=["not JSON", "unknown", "another ledger's"])
async def test_a_message_that_cannot_be_read_stops_the_projection_and_is_kept(
    amqp_url: str, bank_on: OpenBank, poison: bytes | str
) -> None:
    async with bank_on(amqp_url) as bank:
        await bank.create("alice")
        await until_subscription(bank, FOLLOWING)
        await bank.check_views()
        if isinstance(poison, str):
            (event,) = await bank.log()
            poison = json.dumps([{**event, "source": "/ledgers/another", "sequence": f"{2:020d}"}]).encode()
        queue = queue_of(bank.projection)
        await publish(amqp_url, [poison], queue)
        problem = await bank.projection.wait_for("/readyz", 503)
        assert queue in problem["detail"]
        await bank.deposit("alice", 1)
        await eventually(
            lambda: messages_in(amqp_url, queue), lambda messages: messages >= 1, "the message to be back in its queue"
        )
        assert await bank.query("/reserve") == (200, {"amount": 0, "last_updated": None})
        # A restart does not step over it either.
        await bank.projection.kill()
        await bank.projection.start()
        await bank.projection.wait_for("/readyz", 503)
        # The operator takes it out, as the message says.
        await bank.projection.stop()

        async def free() -> int:
            return await consumers_of(amqp_url, queue)

        await eventually(free, lambda consumers: consumers == 0, "the queue to be free")
        async with open_channel(amqp_url) as channel:
            await (await channel.get_queue(queue)).purge()
        await bank.projection.start()
        await bank.check_views()


async def test_a_spare_projection_takes_over_when_the_active_one_is_killed(amqp_url: str, bank_on: OpenBank) -> None:
    """Two processes of one name share one queue and one file: one consumes, both show what it stored."""
    async with bank_on(amqp_url, projections=2) as bank:
        active, spare = bank.projections
        await until_subscription(bank, FOLLOWING)
        await spare.stop()
        spare.environment["PROJECTION_NAME"] = active.environment["PROJECTION_NAME"]
        await spare.start()
        async with load(bank) as clients:
            await clients.go_on(100)
            await active.kill()
            await clients.go_on(100)
            await active.start()
