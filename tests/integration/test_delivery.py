"""Messages lost, doubled, reordered, unreadable, forged: the views stay the fold of the log."""

import asyncio
import json
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import pytest
from aio_pika.exceptions import ChannelNotFoundEntity

from tests.bank import Bank
from tests.faults.link import Link
from tests.integration.broker import (
    CONTENT_TYPE,
    EXCHANGE,
    FOLLOWING,
    LIMIT_SECONDS,
    PARKED,
    bind,
    consumers_of,
    eventually,
    first_seen,
    messages_in,
    messages_of,
    metric,
    observe,
    open_channel,
    publish,
    publish_messages,
    queue_of,
    relay_status,
    take,
    take_parked,
    until_confirmed,
    until_subscription,
)
from tests.integration.conftest import OpenBank
from tests.integration.load import load, seeded


async def batch(bank: Bank, commands: int) -> int:
    """Record deposits in one transaction; the position of the last one."""
    _, results = await bank.post("/commands", [{"type": "deposit", "account_id": "alice", "amount": 1}] * commands)
    return int(results[-1]["position"])


async def test_messages_that_come_twice_and_in_any_order_count_once(amqp_url: str, bank_on: OpenBank) -> None:
    random = seeded()
    async with bank_on(amqp_url, projections=2) as bank:
        await until_subscription(bank, FOLLOWING)
        async with load(bank):
            for _ in range(5):
                repeated = await messages_of(bank, amqp_url, random.randrange(1, 5)) * 2
                random.shuffle(repeated)
                await publish_messages(amqp_url, repeated)
        await until_subscription(bank, FOLLOWING)


async def test_a_message_that_overtakes_others_leaves_no_hole(amqp_url: str, bank_on: OpenBank) -> None:
    """The relay is kept out, and its messages come from a broker that reverses them."""
    async with bank_on(amqp_url) as bank:
        await bank.create("alice")
        await until_subscription(bank, FOLLOWING)
        async with unbound(bank, amqp_url):
            await batch(bank, 20)
            await publish_messages(amqp_url, reversed(await messages_of(bank, amqp_url)), queue_of(bank.projection))
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


@pytest.mark.parametrize("with_broker", [False, True], ids=["no broker", "a broker"])
async def test_a_backup_that_is_put_into_the_views_under_a_running_projection_is_brought_up_to_date(
    vhost_url: str, bank_on: OpenBank, with_broker: bool
) -> None:
    """The file stays the same one, and the ledger has nothing new to say."""
    async with bank_on(vhost_url if with_broker else "") as bank:
        await bank.create("alice")
        await bank.check_views()
        (views,) = Path(bank.projection.environment["DATA_DIR"]).glob("projection-*.sqlite3")
        with closing(sqlite3.connect(views)) as live, closing(sqlite3.connect(":memory:")) as backup:
            live.backup(backup)
            await bank.deposit("alice", 1250)
            await bank.check_views()
            backup.backup(live)
        await asyncio.sleep(0.2)
        status, account = await bank.query("/account/alice", min_position=2, wait=30)
        assert (status, account["balance"]) == (200, 1250)


async def test_a_projection_whose_views_are_away_is_not_ready(vhost_url: str, bank_on: OpenBank) -> None:
    """The ledger has nothing new, so that nobody writes to them."""
    async with bank_on(vhost_url) as bank:
        await bank.create("alice")
        await bank.check_views()
        (views,) = Path(bank.projection.environment["DATA_DIR"]).glob("projection-*.sqlite3")
        with closing(sqlite3.connect(views)) as live:
            live.execute("ALTER TABLE checkpoint RENAME TO away")
            assert "tables are gone" in (await bank.projection.wait_for("/readyz", 503))["detail"]
            live.execute("ALTER TABLE away RENAME TO checkpoint")
        await bank.projection.wait_for("/readyz")


async def test_the_queue_is_read_while_the_feed_is_silent(amqp_url: str, bank_on: OpenBank) -> None:
    """Also in a new session, and when it is time to look at the head."""
    async with bank_on(amqp_url) as bank:
        feed = Link(bank.command.port)
        await feed.open()
        await bank.projection.stop()
        bank.projection.environment["LEDGER_URL"] = f"http://127.0.0.1:{feed.port}"
        await bank.projection.start()
        await bank.create("alice")
        await until_subscription(bank, FOLLOWING)
        try:
            with feed.stalled():
                for _ in range(8):
                    _, receipt = await bank.deposit("alice", 1)
                    status, _ = await bank.query("/account/alice", min_position=receipt["position"], wait=2)
                    assert status == 200
                    await asyncio.sleep(1)
                async with open_channel(amqp_url) as channel:
                    await channel.queue_delete(queue_of(bank.projection))
                await asyncio.sleep(1)
                await eventually(lambda: consumers(amqp_url, bank), bool, "the queue to be consumed again")
                _, receipt = await bank.deposit("alice", 1)
                assert (await bank.query("/account/alice", min_position=receipt["position"], wait=2))[0] == 200
            await bank.check_views()
        finally:
            await feed.close()


async def consumers(amqp_url: str, bank: Bank) -> int:
    try:
        return await consumers_of(amqp_url, queue_of(bank.projection))
    except ChannelNotFoundEntity:
        return 0


async def test_a_queue_that_was_taken_from_the_exchange_is_bound_again(amqp_url: str, bank_on: OpenBank) -> None:
    await bind(amqp_url, "somebody-else")
    async with bank_on(amqp_url) as bank:
        await bank.create("alice")
        await until_subscription(bank, FOLLOWING)
        async with open_channel(amqp_url) as channel:
            await (await channel.get_queue(queue_of(bank.projection))).unbind(EXCHANGE)

        async def seconds_to_the_view() -> float:
            began = time.monotonic()
            _, receipt = await bank.deposit("alice", 1)
            assert (await bank.query("/account/alice", min_position=receipt["position"], wait=30))[0] == 200
            return time.monotonic() - began

        await seconds_to_the_view()
        assert sorted([await seconds_to_the_view() for _ in range(5)])[2] < 1


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


def forged(event: dict[str, Any], position: int, **changes: object) -> bytes:
    """A message with one event, in everything else like `event`."""
    return json.dumps([{**event, "sequence": f"{position:020d}", "accountversion": position, **changes}]).encode()


MISFITS: dict[str, tuple[Callable[[dict[str, Any]], bytes], dict[str, Any]]] = {
    "not JSON": (lambda _: b"not JSON", {}),
    "unknown": (lambda event: forged(event, 2, type="account-melted"), {}),
    "bad types": (lambda event: forged(event, 2, type="amount-deposited", data={"amount": "1"}), {}),
    "another ledger's": (lambda event: forged(event, 2, source="/ledgers/another"), {}),
    "too large": (lambda _: b"[" + b" " * 512 * 1024 + b"]", {}),
    "content type": (lambda event: forged(event, 2), {"content_type": "application/json"}),
    "encoding": (lambda event: forged(event, 2), {"content_encoding": "gzip"}),
    "past the head": (lambda event: forged(event, 3), {}),
    "far past the head": (lambda event: forged(event, 2**63 - 1), {}),
    "no user": (lambda event: forged(event, 2), {"user_id": None}),
    "hostile properties": (
        lambda _: b"",
        {"reply_to": "amq.rabbitmq.reply-to.nobody", "headers": {"CC": ["ledger.parked"], "large": "x" * 100_000}},
    ),
}


@pytest.mark.parametrize("misfit", MISFITS)
async def test_a_message_that_is_not_the_ledgers_is_parked_and_the_projection_goes_on(
    amqp_url: str, bank_on: OpenBank, misfit: str
) -> None:
    async with bank_on(amqp_url) as bank:
        await bank.create("alice")
        await until_subscription(bank, FOLLOWING)
        (event,) = await bank.check_views()
        make, properties = MISFITS[misfit]
        user = urlsplit(amqp_url).username
        # Under a true signature, or it would be a misfit for the want of one.
        (signed,) = await messages_of(bank, amqp_url)
        good = {"content_type": CONTENT_TYPE, "user_id": user, "headers": signed.headers}
        message = aio_pika.Message(make(event), **{**good, **properties})
        queue = queue_of(bank.projection)
        await publish_messages(amqp_url, [message])
        (parked,) = await take_parked(amqp_url, 1)
        assert parked.body == message.body
        assert parked.content_type == message.content_type
        assert parked.content_encoding == message.content_encoding
        assert parked.headers["parked-by"] == queue
        assert parked.headers["parked-reason"]
        assert datetime.fromisoformat(str(parked.headers["parked-at"])) <= datetime.now(UTC)
        assert f"'user_id': {message.user_id!r}" in str(parked.headers["parked-properties"])
        await bank.deposit("alice", 1)
        await bank.check_views()
        assert await metric(bank, bank.projection, "projection_parked_messages_total") == 1
        ready = await bank.projection.wait_for("/readyz")
        assert ready["subscription"] == f"following {queue}; 1 messages parked in {PARKED}"

        # It will not come again. What the feed has brought before its message came may.
        await bank.projection.stop()
        assert message.body not in [waiting.body for waiting in await take(amqp_url, queue)]


async def test_a_message_that_the_amqp_library_fails_at_costs_the_queue_and_no_event(
    amqp_url: str, bank_on: OpenBank
) -> None:
    nested: dict[str, Any] = {}
    for _ in range(5000):
        nested = {"a": nested}
    async with bank_on(amqp_url) as bank:
        await bank.create("alice")
        await until_subscription(bank, FOLLOWING)
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(100_000)  # to write it down
        try:
            await publish_messages(amqp_url, [aio_pika.Message(b"[]", headers=nested)], queue_of(bank.projection))
        finally:
            sys.setrecursionlimit(limit)

        async def removed() -> str:
            return bank.projection.log.read_text()

        await eventually(removed, lambda log: "removing the queue, to make it anew" in log, "the queue to be removed")
        await bank.deposit("alice", 1)
        await until_subscription(bank, FOLLOWING)
        await bank.check_views()


async def test_a_parking_that_was_deleted_is_made_anew(amqp_url: str, bank_on: OpenBank) -> None:
    async with bank_on(amqp_url) as bank:
        for delete_exchange in (True, False):
            await until_subscription(bank, FOLLOWING)
            async with open_channel(amqp_url) as channel:
                await channel.queue_delete(PARKED)
                if delete_exchange:
                    await channel.exchange_delete(PARKED)
            await publish(amqp_url, [b"not JSON"], queue_of(bank.projection))
            assert len(await take_parked(amqp_url, 1)) == 1


async def test_an_event_whose_message_was_garbled_comes_from_the_feed(amqp_url: str, bank_on: OpenBank) -> None:
    async with bank_on(amqp_url) as bank:
        await bank.create("alice")
        await until_subscription(bank, FOLLOWING)
        async with unbound(bank, amqp_url):
            await batch(bank, 3)
            await publish(amqp_url, [b"[garbled"], queue_of(bank.projection))
            await bank.check_views()
        assert len(await take_parked(amqp_url, 1)) == 1


async def test_a_flood_of_garbage_neither_stops_a_projection_nor_makes_it_hammer_the_feed(
    amqp_url: str, bank_on: OpenBank
) -> None:
    garbage = 3000
    async with bank_on(amqp_url) as bank:
        await until_subscription(bank, FOLLOWING)
        async with load(bank) as clients:
            for _ in range(3):
                await publish(amqp_url, [b"garbage"] * (garbage // 3))
                await clients.go_on(20)
            await take_parked(amqp_url, garbage)
        await until_subscription(bank, FOLLOWING)

        async def reported() -> list[int]:
            lines = [json.loads(line) for line in bank.projection.log.read_text().splitlines()]
            return [line["messages"] for line in lines if line["event"] == "messages parked"]

        # The head is compared before each report: not a thousand times.
        reports = await eventually(reported, lambda reports: sum(reports) == garbage, "all to be reported")
        assert len(reports) < garbage / 30


async def test_a_projection_that_dies_again_and_again_loses_no_message_to_a_delivery_limit(
    amqp_url: str, bank_on: OpenBank
) -> None:
    """RabbitMQ 4 drops what was delivered 20 times, unless it is told otherwise."""
    async with bank_on(amqp_url) as bank:
        await until_subscription(bank, FOLLOWING)
        await bank.projection.stop()
        queue_name = queue_of(bank.projection)
        await publish(amqp_url, [b"[]"], queue_name)

        for _ in range(25):
            delivered = asyncio.Event()

            async def receive(_: object, delivered: asyncio.Event = delivered) -> None:
                delivered.set()

            async with open_channel(amqp_url) as channel, asyncio.timeout(LIMIT_SECONDS):
                await (await channel.get_queue(queue_name)).consume(receive)
                await delivered.wait()


async def test_a_queue_that_an_earlier_state_declared_otherwise_is_made_anew(amqp_url: str, bank_on: OpenBank) -> None:
    async with bank_on(amqp_url) as bank:
        await until_subscription(bank, FOLLOWING)
        await bank.projection.stop()
        async with open_channel(amqp_url) as channel:
            await channel.queue_delete(queue_of(bank.projection))
            await channel.declare_queue(
                queue_of(bank.projection),
                durable=True,
                arguments={"x-queue-type": "quorum", "x-single-active-consumer": True},
            )
        await bank.projection.start()
        await bank.create("alice")
        await until_subscription(bank, FOLLOWING)
        await bank.check_views()
        assert "removing the queue, to make it anew" in bank.projection.log.read_text()


async def test_a_first_start_warns_of_nothing(vhost_url: str, bank_on: OpenBank) -> None:
    async with bank_on(vhost_url, projections=0) as bank:
        await bank.create("alice")
        await eventually(
            lambda: relay_status(bank), lambda status: "no queue is bound" in status, "the relay to say why it waits"
        )
        await bind(vhost_url, "collector")
        await until_confirmed(bank, 1)
        assert levels(bank) == {"info"}
        # Once something was published, nobody there to take it is a warning.
        async with open_channel(vhost_url) as channel:
            await channel.queue_delete("collector")
        await bank.deposit("alice", 1)

        async def warned() -> set[str]:
            return levels(bank)

        await eventually(warned, lambda levels: "warning" in levels, "a warning")


def levels(bank: Bank) -> set[str]:
    return {json.loads(line)["level"] for line in bank.command.log.read_text().splitlines()}


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
