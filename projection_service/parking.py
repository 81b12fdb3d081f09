"""What is on the queue and not from this ledger is set aside, where people can look at it, and the rest goes on."""

import asyncio
from datetime import UTC, datetime

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, HeadersType
from prometheus_client import CollectorRegistry, Counter

from projection_service.batch import Batch
from shared.chain import ChainAt
from shared.events import Position, UnreadableEvent, decode_events
from shared.messaging import BATCH_CONTENT_TYPE, CONNECT_SECONDS, DELIVERIES_MAX, declare_if_missing
from shared.witness import is_signed

PARKED = "ledger.parked"
"""An exchange and its queue: through the default exchange, a projection would need the right to write to any queue."""
PARKED_MESSAGES_MAX = 10_000
PARKED_BYTES_MAX = 64 * 1024 * 1024
"""Whoever floods us does not fill the broker's disk: the oldest go first."""
PARK_SECONDS = 5
"""A broker that takes longer has fallen silent: nothing else is folded meanwhile, and the feed stands in for it."""
MESSAGE_BYTES_MAX = 512 * 1024
"""The relay's messages have half of it, and our own broker takes twice of it from anybody."""
REASON_CHARS_MAX = 300
PROPERTIES_CHARS_MAX = 4_000

log = structlog.get_logger()


class Misfit(ValueError):
    """A message that is none of this ledger's. `str()` says why."""


def read_message(message: AbstractIncomingMessage, publisher: str, source: str, key: bytes) -> Batch:
    """The events in a message by the broker's user `publisher` and under the signature of the ledger `source`, whose
    public key is `key`; else a `Misfit`.

    What is not by them, or too large, is not even decoded.
    """
    if message.user_id != publisher:
        raise Misfit(f"its user is {message.user_id!r} and not {publisher!r}, as AMQP_PUBLISHER has it")
    if len(message.body) > MESSAGE_BYTES_MAX:
        raise Misfit(f"it has {len(message.body)} bytes, more than {MESSAGE_BYTES_MAX}")
    if message.content_type != BATCH_CONTENT_TYPE or message.content_encoding:
        raise Misfit(f"its content is {message.content_type!r}, encoded as {message.content_encoding!r}")
    end, signature = _signed(message.headers)
    if not is_signed(signature, key, source, end):
        raise Misfit("its signature is not the ledger's")
    try:
        events = decode_events(message.body)
    except UnreadableEvent as error:
        raise Misfit(f"it can't be read: {error}") from error
    for event in events:
        if event.source != source:
            raise Misfit(f"it is of another ledger, {event.source}")
    return Batch(events, end)


def _signed(headers: HeadersType) -> tuple[ChainAt, bytes]:
    position, chain, signature = (headers.get(name) for name in ("last_position", "last_chain", "signature"))
    try:
        return ChainAt(Position(int(position)), bytes.fromhex(chain)), bytes.fromhex(signature)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        raise Misfit("it has no last_position, last_chain and signature that can be read") from error


class Parking:
    """Puts misfits into the queue `ledger.parked`, for the projection whose queue is `parked_by`."""

    def __init__(self, parked_by: str, registry: CollectorRegistry) -> None:
        self._parked_by = parked_by
        self._parked = 0
        self._reported = 0
        self._reason = ""
        self._counter = Counter("projection_parked_messages", "Put into ledger.parked.", registry=registry)

    @property
    def note(self) -> str:
        """For the end of a status; empty as long as there is nothing to say."""
        return f"; {self._parked} messages parked in {PARKED}" if self._parked else ""

    async def park(self, channel: AbstractChannel, misfits: list[tuple[AbstractIncomingMessage, Misfit]]) -> None:
        """Returns when the broker has confirmed that it keeps all of them; `channel` has confirms.

        Fails when `ledger.parked` is gone: the next session declares it, before it consumes.
        """
        exchange = await channel.get_exchange(PARKED, ensure=False)
        async with asyncio.TaskGroup() as group:
            for message, misfit in misfits:
                parked = _parked_message(message, str(misfit)[:REASON_CHARS_MAX], self._parked_by)
                group.create_task(exchange.publish(parked, routing_key="", timeout=PARK_SECONDS))
        self._parked += len(misfits)
        self._reason = str(misfits[-1][1])[:REASON_CHARS_MAX]
        self._counter.inc(len(misfits))

    def report(self) -> None:
        """Log what was parked since the last report: in one line, since somebody may be flooding us."""
        if self._parked > self._reported:
            log.error("messages parked", queue=PARKED, messages=self._parked - self._reported, reason=self._reason)
            self._reported = self._parked


async def declare_parking(channel: AbstractChannel) -> None:
    """For `Parking`, before `channel` has a prefetch or a consumer: see `declare_if_missing`."""
    await declare_if_missing(channel, lambda passive: _declare(channel, passive))


async def _declare(channel: AbstractChannel, passive: bool) -> None:
    queue = await channel.declare_queue(
        PARKED,
        durable=True,
        passive=passive,
        arguments={
            "x-queue-type": "quorum",
            "x-max-length": PARKED_MESSAGES_MAX,
            "x-max-length-bytes": PARKED_BYTES_MAX,
            "x-overflow": "drop-head",
            # Whoever looks at a message and puts it back delivers it, too.
            "x-delivery-limit": DELIVERIES_MAX,
        },
        timeout=CONNECT_SECONDS,
    )
    exchange = await channel.declare_exchange(
        PARKED, aio_pika.ExchangeType.FANOUT, durable=True, passive=passive, timeout=CONNECT_SECONDS
    )
    # Always: whoever made them may have died before this.
    await queue.bind(exchange, timeout=CONNECT_SECONDS)


def _parked_message(message: AbstractIncomingMessage, reason: str, parked_by: str) -> aio_pika.Message:
    # What the broker acts on becomes text: it refuses another's user_id and some reply_to, lets messages expire, and
    # follows headers. A refusal would bring the message back for ever.
    properties = {
        "user_id": message.user_id,
        "exchange": message.exchange,
        "routing_key": message.routing_key,
        "reply_to": message.reply_to,
        "expiration": message.expiration,
        "headers": message.headers,
    }
    return aio_pika.Message(
        message.body,
        headers={
            "parked-reason": reason,
            "parked-by": parked_by,
            "parked-at": datetime.now(UTC).isoformat(),
            "parked-properties": repr(properties)[:PROPERTIES_CHARS_MAX],
        },
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        correlation_id=message.correlation_id,
        message_id=message.message_id,
        timestamp=message.timestamp,
        type=message.type,
        app_id=message.app_id,
    )
