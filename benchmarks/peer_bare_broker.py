"""The bare broker: how long RabbitMQ takes from the publication of a message to its delivery when it is idle.

`python -m benchmarks.peer_bare_broker SECONDS AMQP_URL` prints the median in milliseconds. A durable fanout exchange, a
quorum queue with one active consumer, and persistent messages with confirms, as the ledger and its projections have
them; one message at a time, each after a rest. There is no ledger and no view.

Beside the load that the ledger has meanwhile it would take longer by what is to be measured with it. Without a rest it
takes two thirds: nothing has had the time to go to sleep.
"""

import asyncio
import statistics
import sys
import time

import aio_pika

from shared.messaging import open_channel

NAME = "bench.bare"
MESSAGE = aio_pika.Message(bytes(380), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
"""As large as one with a deposit."""
REST_SECONDS = 0.01


async def main(seconds: float, amqp_url: str) -> float:
    async with (
        open_channel(amqp_url, NAME, publisher_confirms=True) as publisher,
        open_channel(amqp_url, NAME, publisher_confirms=False) as consumer,
    ):
        exchange = await publisher.declare_exchange(NAME, aio_pika.ExchangeType.FANOUT, durable=True)
        queue = await consumer.declare_queue(
            NAME, durable=True, arguments={"x-queue-type": "quorum", "x-single-active-consumer": True}
        )
        await queue.bind(NAME)
        delivered: asyncio.Queue[float] = asyncio.Queue()

        async def receive(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            delivered.put_nowait(time.perf_counter())
            await message.ack()

        await queue.consume(receive)
        samples: list[float] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            await asyncio.sleep(REST_SECONDS)
            begin = time.perf_counter()
            await exchange.publish(MESSAGE, routing_key="", mandatory=True)
            samples.append(await delivered.get() - begin)
        return statistics.median(samples) * 1000


if __name__ == "__main__":
    print(asyncio.run(main(float(sys.argv[1]), sys.argv[2])))
