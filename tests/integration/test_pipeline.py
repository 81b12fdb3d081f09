"""`/pipeline` with a broker: what was published, what waits in the queue, and what is said while the broker is away."""

import asyncio

from aio_pika.abc import AbstractIncomingMessage

from projection_service.pipeline import LOOK_SECONDS
from scripts.rabbitmq import RabbitMQNode
from tests.http.test_pipeline import pipeline, until
from tests.integration.broker import FOLLOWING, open_channel, queue_of, until_confirmed, until_subscription
from tests.integration.conftest import OpenBank

AWAY = "following the feed: "


async def test_it_says_what_the_broker_has_confirmed_and_how_much_waits_in_the_queue(
    amqp_url: str, bank_on: OpenBank
) -> None:
    async with bank_on(amqp_url) as bank:
        await until_subscription(bank, FOLLOWING)
        await bank.create("alice")
        every = {"head": 1, "published": 1, "applied": 1, "lag_events": 0, "queue_messages": 0, "broker": "connected"}
        assert (await until(bank, **every))["problem"] is None
        await bank.projection.stop()
        async with open_channel(amqp_url) as channel:
            # Somebody else is the one active consumer, and takes one message.
            await channel.set_qos(prefetch_count=1)
            taken: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
            await (await channel.get_queue(queue_of(bank.projection))).consume(taken.put)
            await bank.projection.start()
            await until(bank, broker="connected")
            for position in range(2, 7):
                await bank.deposit("alice", 1)
                await until_confirmed(bank, position)
            await until(bank, head=6, published=6, applied=6, queue_messages=4)
            await bank.deposit("alice", 1)
            await until_confirmed(bank, 7)
            await asyncio.sleep(2 * LOOK_SECONDS + 0.5)
            # Who asks seldom is not told what was so when he asked last.
            assert (await pipeline(bank))["published"] == 7


async def test_a_broker_that_is_away_is_said_in_words_and_nothing_stands_still(
    private_node: RabbitMQNode, bank_on: OpenBank
) -> None:
    async with bank_on(private_node.amqp_url) as bank:
        await until_subscription(bank, FOLLOWING)
        await bank.create("alice")
        await until(bank, published=1, applied=1, broker="connected", queue_messages=0)
        # RabbitMQ 3.10 forgets a quorum queue that was declared half a second before it is killed.
        await asyncio.sleep(2)
        await asyncio.to_thread(private_node.kill)
        await until_subscription(bank, AWAY)
        await bank.deposit("alice", 1)
        told = await until(bank, head=2, published=1, applied=2, queue_messages=None, lag_events=0)
        assert told["broker"] != "connected"
        assert str(told["broker"]) in str(told["problem"])
        await asyncio.to_thread(private_node.start)
        await until(bank, head=2, published=2, applied=2, broker="connected", queue_messages=0, problem=None)
