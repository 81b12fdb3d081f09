"""The broker as a third party sees it: queues of our own beside those of the projections."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, HeadersType
from aio_pika.exceptions import CONNECTION_EXCEPTIONS, ChannelNotFoundEntity

from scripts.rabbitmq import RabbitMQNode
from tests.bank import Bank, Service

T = TypeVar("T")

EXCHANGE = "ledger.events"
PARKED = "ledger.parked"
CONTENT_TYPE = "application/cloudevents-batch+json"
FOLLOWING = "following ledger.projection."
QUORUM = {"x-queue-type": "quorum"}
LIMIT_SECONDS = 60


async def eventually(read: Callable[[], Awaitable[T]], accept: Callable[[T], bool], what: str) -> T:
    """Read until `accept` likes it; that value. Fails with the last one, saying `what` was waited for."""
    value: T | None = None
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            while True:
                value = await read()
                if accept(value):
                    return value
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"waited {LIMIT_SECONDS} s for {what}; last: {value!r}") from None


@asynccontextmanager
async def open_channel(amqp_url: str) -> AsyncIterator[AbstractChannel]:
    async with await aio_pika.connect(amqp_url) as connection:
        yield await connection.channel()


class Observer:
    """A queue that is bound to the exchange, and what came to it so far."""

    def __init__(self) -> None:
        self.messages: list[AbstractIncomingMessage] = []

    @property
    def positions(self) -> list[int]:
        """Of every event, in the order of their coming."""
        return [position for message in self.messages for position in positions_in(message)]

    async def reach(self, position: int) -> None:
        async def highest() -> int:
            return max(self.positions, default=0)

        await eventually(highest, lambda reached: reached >= position, f"position {position} on the exchange")


def positions_in(message: AbstractIncomingMessage) -> list[int]:
    return [int(event["sequence"]) for event in json.loads(message.body)]


@asynccontextmanager
async def observe(amqp_url: str, queue_name: str | None = None) -> AsyncIterator[Observer]:
    """Take every message from a queue of our own; `queue_name` names one that was bound before with `bind`."""
    observer = Observer()

    async def receive(message: AbstractIncomingMessage) -> None:
        observer.messages.append(message)
        await message.ack()

    async with open_channel(amqp_url) as channel:
        if queue_name is None:
            queue = await channel.declare_queue(exclusive=True)
            await queue.bind(await declare_exchange(channel))
        else:
            queue = await channel.get_queue(queue_name)
        await queue.consume(receive)
        yield observer


async def bind(amqp_url: str, queue_name: str) -> None:
    """A queue that survives the broker: it collects until somebody observes it."""
    async with open_channel(amqp_url) as channel:
        queue = await channel.declare_queue(queue_name, durable=True, arguments=dict(QUORUM))
        await queue.bind(await declare_exchange(channel))


async def declare_exchange(channel: AbstractChannel) -> aio_pika.abc.AbstractExchange:
    return await channel.declare_exchange(EXCHANGE, aio_pika.ExchangeType.FANOUT, durable=True)


async def publish(amqp_url: str, bodies: Iterable[bytes], queue_name: str | None = None) -> None:
    """Send messages to everybody, or to one queue, as a broker that repeats itself would: with the relay's user."""
    user = urlsplit(amqp_url).username
    messages = [aio_pika.Message(body, content_type=CONTENT_TYPE, user_id=user) for body in bodies]
    await publish_messages(amqp_url, messages, queue_name)


async def messages_of(bank: Bank, amqp_url: str, events: int = 1, after: int = 0) -> list[aio_pika.Message]:
    """The log after a position as messages of so many events, with the signatures that the feed gives to everybody."""
    messages: list[aio_pika.Message] = []
    while True:
        async with bank.http.get(f"{bank.command.url}/events?after={after}&limit={events}") as response:
            body, told = await response.read(), response.headers
        if body == b"[]":
            return messages
        last = after + len(json.loads(body))
        headers = proof(last, told["Ledger-Chain"], told["Ledger-Signature"])
        user = urlsplit(amqp_url).username
        messages.append(aio_pika.Message(body, content_type=CONTENT_TYPE, user_id=user, headers=headers))
        after = last


def proof(last_position: int, last_chain: str, signature: str) -> HeadersType:
    return {"last_position": last_position, "last_chain": last_chain, "signature": signature}


async def publish_messages(amqp_url: str, messages: Iterable[aio_pika.Message], queue_name: str | None = None) -> None:
    async with open_channel(amqp_url) as channel:
        exchange = channel.default_exchange if queue_name else await channel.get_exchange(EXCHANGE)
        for message in messages:
            await exchange.publish(message, routing_key=queue_name or "")


async def take_parked(amqp_url: str, number: int) -> list[AbstractIncomingMessage]:
    """The messages in `ledger.parked`, once there are so many of them; they are gone from there then."""

    async def waiting() -> int:
        with suppress(ChannelNotFoundEntity):
            return await messages_in(amqp_url, PARKED)
        return 0

    await eventually(waiting, lambda parked: parked >= number, f"{number} parked messages")
    return await take(amqp_url, PARKED)


async def take(amqp_url: str, queue_name: str) -> list[AbstractIncomingMessage]:
    """What waits there; it is gone from there then."""
    taken: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
    async with open_channel(amqp_url) as channel:
        queue = await channel.get_queue(queue_name)
        # One with a single active consumer can't be asked for one message.
        await queue.consume(taken.put, no_ack=True)
        return [await taken.get() for _ in range(queue.declaration_result.message_count or 0)]


def encoded(events: object) -> bytes:
    """As the ledger writes it, to the byte: the chain goes over that."""
    return json.dumps(events, separators=(",", ":"), ensure_ascii=False).encode()


def first_seen(positions: Iterable[int]) -> list[int]:
    """The positions in the order in which each came for the first time."""
    return list(dict.fromkeys(positions))


def queue_of(projection: Service) -> str:
    return f"ledger.projection.{projection.environment['PROJECTION_NAME']}"


async def messages_in(amqp_url: str, queue_name: str) -> int:
    """Those that wait. Those that a consumer has and did not acknowledge are not counted."""
    async with open_channel(amqp_url) as channel:
        return (await channel.get_queue(queue_name)).declaration_result.message_count or 0


async def consumers_of(amqp_url: str, queue_name: str) -> int:
    """How many consume it; 0 too when there is no such queue, or no broker."""
    with suppress(*CONNECTION_EXCEPTIONS):
        async with open_channel(amqp_url) as channel:
            return (await channel.get_queue(queue_name)).declaration_result.consumer_count or 0
    return 0


async def get_json(bank: Bank, url: str) -> tuple[int, dict[str, Any]]:
    async with bank.http.get(url) as response:
        return response.status, await response.json(content_type=None)


async def relay_status(bank: Bank) -> str:
    """What the command service says of its relay; it is ready whatever the broker does."""
    status, answer = await get_json(bank, f"{bank.command.url}/readyz")
    assert status == 200
    return str(answer["relay"])


async def until_relay(bank: Bank, beginning: str) -> str:
    return await eventually(
        lambda: relay_status(bank), lambda status: status.startswith(beginning), f"the relay to be {beginning!r}"
    )


async def subscription_status(bank: Bank, projection: Service) -> str:
    """What a projection that is ready follows; why it is not, otherwise."""
    _, answer = await get_json(bank, f"{projection.url}/readyz")
    return str(answer.get("subscription") or answer["detail"])


async def until_subscription(bank: Bank, beginning: str) -> None:
    for projection in bank.projections:
        await eventually(
            lambda projection=projection: subscription_status(bank, projection),  # type: ignore[misc]
            lambda status: status.startswith(beginning),
            f"the subscription to be {beginning!r}",
        )


def value_of(metric: str, metrics: str) -> float:
    return next(float(line.split()[1]) for line in metrics.splitlines() if line.startswith(f"{metric} "))


async def metric(bank: Bank, service: Service, name: str) -> float:
    async with bank.http.get(f"{service.url}/metrics") as response:
        return value_of(name, await response.text())


async def until_confirmed(bank: Bank, position: int) -> None:
    """Until the broker has confirmed everything up to `position`."""

    async def confirmed() -> float:
        return await metric(bank, bank.command, "ledger_relay_confirmed_position")

    await eventually(confirmed, lambda reached: reached >= position, f"position {position} to be confirmed")


@asynccontextmanager
async def frozen(node: RabbitMQNode) -> AsyncIterator[None]:
    """The broker keeps its connections and its port, and does nothing at all: what a lost network looks like."""
    pid = int((await asyncio.to_thread(node.ctl, "eval", "os:getpid().")).strip().strip('"'))
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
