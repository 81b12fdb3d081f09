"""The contract on the broker: one durable fanout exchange, and messages that carry a run of events."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import aio_pika
import uuid_utils
from aio_pika.abc import AbstractChannel, AbstractExchange
from aio_pika.exceptions import CONNECTION_EXCEPTIONS, AMQPError, ChannelInvalidStateError, ChannelNotFoundEntity

from shared.chain import ChainAt
from shared.events import Position, join_events

EXCHANGE = "ledger.events"
BATCH_CONTENT_TYPE = "application/cloudevents-batch+json"
MESSAGE_TYPE = "ledger.events"
CONNECT_SECONDS = 10
CLOSE_SECONDS = 5
HEARTBEAT_SECONDS = 10
DELIVERIES_MAX = 2**31 - 1
"""Without end, on every version: RabbitMQ 4 drops a message of a quorum queue after 20 deliveries when it is not told
otherwise, and its own word for no limit, -1, is none at all to RabbitMQ 3.10, which drops at the first one."""

BROKER_ERRORS = (AMQPError, ChannelInvalidStateError, OSError, TimeoutError)
"""What a broker that is down, cut off or unwilling looks like from here."""

T = TypeVar("T")


@asynccontextmanager
async def open_channel(amqp_url: str, name: str, publisher_confirms: bool) -> AsyncIterator[AbstractChannel]:
    """A channel on a plain connection of its own, whose loss its owner notices: a robust one hides it.

    With `publisher_confirms`, a message that no queue takes fails too. Raises `BROKER_ERRORS`.
    """
    connection = await _opened(
        aio_pika.connect(
            amqp_url,
            timeout=CONNECT_SECONDS,
            client_properties={"connection_name": name},
            heartbeat=HEARTBEAT_SECONDS,
        )
    )
    try:
        opening = connection.channel(publisher_confirms=publisher_confirms, on_return_raises=publisher_confirms)
        yield await _opened(asyncio.wait_for(opening, CONNECT_SECONDS))
    finally:
        # A broker that reads nothing more would hold up the closing for ever; the process is worth more.
        await asyncio.wait({asyncio.create_task(connection.close())}, timeout=CLOSE_SECONDS)


async def _opened(opening: Awaitable[T]) -> T:
    """Raises `BROKER_ERRORS`: a peer that hangs up half-way is a RuntimeError or StopAsyncIteration in aio-pika."""
    try:
        return await opening
    except BROKER_ERRORS:
        raise
    except CONNECTION_EXCEPTIONS as error:
        raise ConnectionError(f"the broker hung up: {error!r}") from error


async def declare_if_missing(channel: AbstractChannel, declare: Callable[[bool], Awaitable[T]]) -> T:
    """What `declare(passive)` finds, or makes where nothing is found.

    Only the making takes the right to configure, and with it to delete: users with least rights find what was made for
    them. The broker closes a channel that looks for what is not there; it is opened anew, without its prefetch.
    https://www.rabbitmq.com/docs/access-control
    """
    try:
        return await declare(True)
    except ChannelNotFoundEntity:
        await _opened(asyncio.wait_for(channel.reopen(), CONNECT_SECONDS))
        return await declare(False)


async def declare_exchange(channel: AbstractChannel) -> AbstractExchange:
    """Both services do it alike, so that neither has to be started first."""
    return await declare_if_missing(
        channel,
        lambda passive: channel.declare_exchange(
            EXCHANGE, aio_pika.ExchangeType.FANOUT, durable=True, passive=passive, timeout=CONNECT_SECONDS
        ),
    )


def broker_user(amqp_url: str) -> str:
    """Who logs in with this URL: the AMQP user_id that the broker allows on its messages, and no other."""
    return unquote(urlsplit(amqp_url).username or "guest")


def batch_message(
    first: Position, events: list[bytes], end: ChainAt, signature: bytes, user_id: str
) -> aio_pika.Message:
    """The message for a run of encoded events that starts at position `first` and ends where the ledger's
    chain is `end`, under its `signature`; published by the broker's `user_id`.

    https://www.rabbitmq.com/docs/validated-user-id
    """
    return aio_pika.Message(
        join_events(events),
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        content_type=BATCH_CONTENT_TYPE,
        message_id=str(uuid_utils.uuid7()),
        type=MESSAGE_TYPE,
        app_id="command-service",
        user_id=user_id,
        timestamp=datetime.now(UTC),
        headers={
            "first_position": first,
            "last_position": end.position,
            "last_chain": end.chain.hex(),
            "signature": signature.hex(),
        },
    )
