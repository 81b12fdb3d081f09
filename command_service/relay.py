"""From the event log to the fanout exchange: in order, confirmed, at least once."""

import asyncio
import time

import structlog
from aio_pika.abc import AbstractChannel, AbstractExchange
from aio_pika.exceptions import ChannelClosed, PublishError
from prometheus_client import CollectorRegistry, Gauge

from command_service.event_log import EventLog, Lease
from command_service.event_log.runs import RUN_EVENTS_MAX
from shared.events import Position
from shared.messaging import EXCHANGE, batch_message, broker_user, declare_exchange, open_channel
from shared.platform.sessions import keep_running
from shared.platform.watermark import Watermark
from shared.witness import Signer

MESSAGE_EVENTS_MAX = 8 * RUN_EVENTS_MAX
MESSAGE_BYTES_MAX = 256 * 1024
WINDOW_MESSAGES_MAX = 64
CONFIRM_SECONDS = 30
CURSOR_SECONDS = 0.25
RENEW_SECONDS = 1
STANDBY_SECONDS = 1
IDLE_SECONDS = 60
FIRST_QUEUE_SECONDS = 60
"""A ledger that starts for the first time is usually ahead of its first projection, by less than this."""

log = structlog.get_logger()


class Relay:
    """Publishes what lies behind the stored cursor.

    The cursor moves only over the contiguous confirmed prefix, and at the latest `CURSOR_SECONDS` after it:
    if we die before that, the next session publishes those events again, and consumers drop them by position.
    """

    def __init__(
        self, event_log: EventLog, signer: Signer, head: Watermark, amqp_url: str, registry: CollectorRegistry
    ) -> None:
        self._event_log = event_log
        self._signer = signer
        self._head = head
        self._amqp_url = amqp_url
        self._user = broker_user(amqp_url)
        self._confirmed = Position(0)
        self._publishing = False
        self._started = time.monotonic()
        self.status = "connecting"
        """For people: "publishing", or why not."""
        Gauge(
            "ledger_relay_confirmed_position", "Everything up to here was confirmed.", registry=registry
        ).set_function(lambda: self._confirmed)
        Gauge("relay_publishing", "1 while this replica is the one that publishes.", registry=registry).set_function(
            lambda: self._publishing
        )

    @property
    def confirmed(self) -> Position:
        """The broker has confirmed everything up to here; 0 until the log has been asked where it was."""
        return self._confirmed

    async def run(self) -> None:
        """Publish for ever, in sessions: a new connection after every failure, resumed from the cursor."""
        await keep_running(self._session, lambda: self._confirmed, self._failed)

    def _failed(self, error: Exception, backoff_seconds: float) -> None:
        match error:
            case PublishError():
                reason = f"no queue is bound to {EXCHANGE}"
            case TimeoutError():
                reason = f"no confirm in {CONFIRM_SECONDS} s: is there a queue bound to {EXCHANGE} that takes nothing?"
            case _:
                reason = str(error) or repr(error)
        self.status = f"not publishing: {reason}"
        retry_seconds = round(backoff_seconds, 2)
        is_first = self._confirmed == 0 and time.monotonic() - self._started < FIRST_QUEUE_SECONDS
        if isinstance(error, PublishError) and is_first:
            log.info("relay waits for a first queue", reason=reason, retry_seconds=retry_seconds)
        else:
            log.warning("relay session ended", reason=reason, retry_seconds=retry_seconds)

    async def _session(self) -> None:
        self._confirmed = await self._event_log.published()
        # A message that no queue takes comes back as a failure: with nobody bound yet, events wait in the log.
        async with open_channel(self._amqp_url, "counting-house relay", publisher_confirms=True) as channel:
            exchange = await declare_exchange(channel)
            async with asyncio.TaskGroup() as group:
                group.create_task(_fail_when_closed(channel))
                group.create_task(self._lead(exchange))

    async def _lead(self, exchange: AbstractExchange) -> None:
        while (lease := await self._event_log.acquire_lease()) is None:
            self.status = "standing by: another replica publishes"
            await asyncio.sleep(STANDBY_SECONDS)
            self._confirmed = await self._event_log.published()
        self._confirmed = lease.published
        self._publishing, self.status = True, "publishing"
        log.info("relay publishes", exchange=exchange.name, after=self._confirmed)
        window: asyncio.Queue[tuple[Position, asyncio.Task[object]]] = asyncio.Queue(WINDOW_MESSAGES_MAX)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._publish(exchange, window, group))
                group.create_task(self._confirm(window))
                group.create_task(self._save_cursor(lease))
        finally:
            self._publishing = False
            await self._event_log.end_lease(lease, self._confirmed)

    async def _publish(
        self,
        exchange: AbstractExchange,
        window: "asyncio.Queue[tuple[Position, asyncio.Task[object]]]",
        group: asyncio.TaskGroup,
    ) -> None:
        sent = self._confirmed
        while True:
            await self._head.reach(Position(sent + 1), IDLE_SECONDS)
            page = await self._event_log.read(sent, MESSAGE_EVENTS_MAX, MESSAGE_BYTES_MAX)
            if not page.events:
                continue
            signature = self._signer.sign(page.end)
            message = batch_message(Position(sent + 1), page.events, page.end, signature, self._user)
            sent = page.end.position
            # Tasks start in the order in which they are made, and each takes the channel's lock first.
            publication = group.create_task(
                exchange.publish(message, routing_key="", mandatory=True, timeout=CONFIRM_SECONDS)
            )
            await window.put((sent, publication))

    async def _confirm(self, window: "asyncio.Queue[tuple[Position, asyncio.Task[object]]]") -> None:
        while True:
            last, publication = await window.get()
            await publication
            self._confirmed = last

    async def _save_cursor(self, lease: Lease) -> None:
        saved, renew = self._confirmed, time.monotonic() + RENEW_SECONDS
        while True:
            await asyncio.sleep(CURSOR_SECONDS)
            if self._confirmed > saved or time.monotonic() > renew:
                saved, renew = self._confirmed, time.monotonic() + RENEW_SECONDS
                await self._event_log.save_published(lease, saved)


async def _fail_when_closed(channel: AbstractChannel) -> None:
    await channel.closed()
    raise ChannelClosed(None, "the broker closed the connection")
