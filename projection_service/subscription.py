"""One gapless run of events out of two sources: the feed, and the live messages of the broker."""

import asyncio
import time
from collections.abc import Awaitable
from contextlib import AsyncExitStack, suppress
from typing import TypeVar

import structlog
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage, AbstractQueue
from aio_pika.exceptions import ChannelPreconditionFailed, InvalidFrameError
from prometheus_client import CollectorRegistry, Gauge

from projection_service.batch import Batch, Hole, Unproven
from projection_service.feed import Feed, FeedUnavailable
from projection_service.head_watch import HeadWatch
from projection_service.parking import Misfit, Parking, declare_parking, read_message
from projection_service.projection import ForeignLedger, OtherHistory, Projection
from shared.errors import CorruptStore, LedgerError, NotReady
from shared.events import Position, RecordedEvent
from shared.messaging import CONNECT_SECONDS, DELIVERIES_MAX, declare_exchange, open_channel
from shared.platform.sessions import keep_running

QUEUE_PREFIX = "ledger.projection."
PREFETCH_MESSAGES = 100
TRANSACTION_EVENTS_MAX = 5_000
HEAD_CHECK_SECONDS = 5
MEND_SECONDS = 0.5
"""So long after a message was parked the head is compared, once for all that were parked meanwhile."""
LONG_POLL_SECONDS = HEAD_CHECK_SECONDS
"""No longer: views that somebody has put back wait for its end."""
NO_PROGRESS_SECONDS_MIN = 0.05
NO_PROGRESS_SECONDS_MAX = 5.0
STAND_IN_SECONDS = 0.5
"""A page of the feed takes up to this long while the broker is awaited: so late is its coming noticed."""

T = TypeVar("T")

log = structlog.get_logger()


class SubscriptionLost(LedgerError):
    """The broker closed the channel or took the queue away."""


class UnreadableFrame(LedgerError):
    """The AMQP library fails at a message before we see it: it can't be parked, nor what waits behind it read."""


class Subscription:
    """Keeps a projection up to date, in sessions: after any trouble, from the checkpoint again.

    Nothing is acknowledged before it is committed or parked, nothing is skipped, and nothing is sent back to the
    queue. The checkpoint moves by events of the feed and of messages by `publisher`, a user of the broker, alone.
    """

    def __init__(
        self,
        projection: Projection,
        feed: Feed,
        amqp_url: str | None,
        publisher: str,
        name: str,
        registry: CollectorRegistry,
    ) -> None:
        self._projection = projection
        self._feed = feed
        self._amqp_url = amqp_url
        self._publisher = publisher
        self._queue_name = QUEUE_PREFIX + name
        self._parking = Parking(self._queue_name, registry)
        self._caught_up = False
        self._status = "starting"
        self._trouble = ""
        self._messages = 0
        self._stopped = False
        self._no_progress_seconds = 0.0
        self._ask_again = time.monotonic()
        self._reading = asyncio.Lock()
        self._parked = asyncio.Event()
        self._channel: AbstractChannel | None = None
        """While the queue is followed."""
        self.queue_messages: int | None = None
        """How many waited in the queue when it was last looked at; None while it is not followed."""
        self._seen_time: str | None = None
        """Of the last event in the views when it was last looked at."""
        self.head = HeadWatch(projection, registry)
        Gauge("projection_following", "1 while the ledger is followed.", registry=registry).set_function(
            lambda: self._status.startswith("following")
        )
        Gauge("projection_stopped", "1 after a stop that only a person can end.", registry=registry).set_function(
            lambda: self._stopped
        )

    def check_ready(self) -> str:
        """What the subscription is doing.

        Raises `NotReady` with the reason: before it has caught up, after it has stopped, while views that were put back
        catch up again, and while nobody can tell how far behind it is.
        """
        if self._stopped or not self._caught_up:
            raise NotReady(f"at position {self._projection.position}: {self._status}")
        if self.head.have_gone_back:
            raise NotReady(f"at position {self._projection.position}: the views were put back, and catch up again")
        if not self.head.is_in_sight:
            raise NotReady(
                f"at position {self._projection.position}: the head of the log was last seen "
                f"{self.head.age_seconds():.0f} s ago, in {self._feed.name}. {self.head.note}{self._status}"
            )
        return self._status + self._parking.note

    @property
    def broker(self) -> str | None:
        """ "connected", or for people why not; None without one."""
        if self._amqp_url is None:
            return None
        return "connected" if self._channel else self._trouble or "connecting"

    @property
    def time_of_last_event(self) -> str | None:
        """Of those in the views; None when there is none, or nobody has seen it yet. Such times never go back."""
        return max(filter(None, [self._projection.last_event_time, self._seen_time]), default=None)

    @property
    def problem(self) -> str | None:
        """For people: what is not as it should be."""
        try:
            said = self.check_ready()
        except NotReady as error:
            return str(error)
        return None if said in ("following the feed", f"following {self._queue_name}") else said

    async def look(self) -> None:
        """See how far the ledger and the broker are, beside what is read to be folded.

        Raises `LedgerError`, and `BROKER_ERRORS` where the session with the broker ends, too.
        """
        asked_at = self._projection.position
        page = await self._feed.read(Position(max(0, asked_at - 1)), events_max=1)
        self._projection.check_ledger(page, asked_at)
        self.head.glimpsed(page.head, page.published)
        if page.batch.end.position == asked_at and page.batch.events:
            self._seen_time = page.batch.events[-1].time
        if (channel := self._channel) is not None:
            queue = await channel.declare_queue(self._queue_name, passive=True, timeout=CONNECT_SECONDS)
            self.queue_messages = queue.declaration_result.message_count if self._channel is channel else None

    async def run(self) -> None:
        """Follow the ledger for ever; stop, and keep the reason, at what can't be read or is of another ledger."""
        try:
            if self._amqp_url is None:
                await keep_running(self._follow_feed, lambda: self._projection.position, self._failed)
            else:
                # What the feed brings in the meantime is no progress of a session with the broker.
                await keep_running(
                    lambda: self._follow_broker(str(self._amqp_url)),
                    lambda: self._messages,
                    self._failed,
                    lambda seconds: self._follow_feed_until(asyncio.sleep(seconds)),
                )
        except CorruptStore as error:
            self._stopped = True
            self.head.lose()
            self._status = f"stopped: {error}"
            log.error("subscription stopped", reason=str(error))
        # The service goes on to answer queries, and to say that it is not ready.
        await asyncio.Event().wait()

    def _failed(self, error: Exception, backoff_seconds: float) -> None:
        self._trouble = str(error) or repr(error)
        self._status = f"not following: {self._trouble}"
        log.warning("subscription session ended", reason=self._trouble, retry_seconds=round(backoff_seconds, 2))

    async def _follow_feed(self) -> None:
        await self._projection.reload()
        await self._catch_up()
        self._status = "following the feed"
        while True:
            await asyncio.sleep(self._pause_seconds())
            await self._keep_reading(LONG_POLL_SECONDS)

    async def _follow_broker(self, amqp_url: str) -> None:
        await self._projection.reload()
        async with AsyncExitStack() as stack:
            opening = open_channel(amqp_url, f"counting-house {self._queue_name}", publisher_confirms=True)
            channel = await self._follow_feed_until(stack.enter_async_context(opening))
            exchange = await declare_exchange(channel)
            await declare_parking(channel)
            await channel.set_qos(prefetch_count=PREFETCH_MESSAGES, timeout=CONNECT_SECONDS)
            try:
                queue = await self._declare_queue(channel, exchange)
            except ChannelPreconditionFailed as error:
                await self._remove_queue(amqp_url, str(error), if_unused=True)
                raise SubscriptionLost(f"the queue {self._queue_name} was not what it has to be: removed") from error
            if self._projection.source is None or self._projection.key is None:
                # Before that, nobody can tell whose messages are in the queue.
                await self._read_page()
            try:
                await self._follow_queue(channel, exchange, queue)
            except* UnreadableFrame as error:
                await self._remove_queue(amqp_url, str(error.exceptions[0]), if_unused=False)
                raise

    async def _follow_feed_until(self, awaited: Awaitable[T]) -> T:
        """Let the feed stand in for a broker that is away or slow to answer, until `awaited` is done."""
        task = asyncio.ensure_future(awaited)
        try:
            while not (await asyncio.wait({task}, timeout=self._pause_seconds()))[0]:
                try:
                    await self._keep_reading(STAND_IN_SECONDS)
                    trouble = f"the broker: {self._trouble}" if self._trouble else "connecting to the broker"
                    self._status = f"following the feed: {trouble}"
                except CorruptStore:
                    raise
                except LedgerError as error:
                    self._status = f"not following: {error}"
        finally:
            task.cancel()
            await asyncio.wait({task})
        return task.result()

    async def _declare_queue(self, channel: AbstractChannel, exchange: AbstractExchange) -> AbstractQueue:
        """https://www.rabbitmq.com/docs/quorum-queues and https://www.rabbitmq.com/docs/consumers"""
        queue = await channel.declare_queue(
            self._queue_name,
            durable=True,
            arguments={
                "x-queue-type": "quorum",
                "x-single-active-consumer": True,
                "x-delivery-limit": DELIVERIES_MAX,
            },
            timeout=CONNECT_SECONDS,
        )
        await queue.bind(exchange, timeout=CONNECT_SECONDS)
        return queue

    async def _remove_queue(self, amqp_url: str, reason: str, if_unused: bool) -> None:
        """Make room for a new one where ours was declared otherwise by another state of this program, which can't be
        changed, or holds what can't be received. Nothing is lost: its events are in the log."""
        async with open_channel(amqp_url, f"counting-house {self._queue_name}", publisher_confirms=False) as channel:
            queue = await channel.declare_queue(self._queue_name, passive=True, timeout=CONNECT_SECONDS)
            if if_unused and queue.declaration_result.consumer_count:
                raise SubscriptionLost(f"another program consumes {self._queue_name}: stop it. The broker: {reason}")
            log.error("removing the queue, to make it anew", queue=self._queue_name, reason=reason)
            # A quorum queue can't be told to go only if it is unused.
            await queue.delete(if_unused=False, if_empty=False, timeout=CONNECT_SECONDS)

    async def _catch_up(self) -> None:
        while not await self._read_page():
            pass

    async def _keep_reading(self, wait_seconds: float) -> None:
        """As `_read_page`; what brings nothing and does not wait for it makes `_pause_seconds` longer and longer."""
        asked_at, asked = self._projection.position, time.monotonic()
        longer = min(max(NO_PROGRESS_SECONDS_MIN, 2 * self._no_progress_seconds), NO_PROGRESS_SECONDS_MAX)
        try:
            await self._read_page(wait_seconds)
            if self._projection.position > asked_at or time.monotonic() - asked >= wait_seconds:
                longer = 0
        finally:
            self._no_progress_seconds = longer
            self._ask_again = time.monotonic() + longer

    def _pause_seconds(self) -> float:
        """Until `_keep_reading` is due again."""
        return max(0, self._ask_again - time.monotonic())

    async def _read_page(self, wait_seconds: float = 0) -> bool:
        """Apply one page of the feed; True when that reaches the head.

        Raises `FeedUnavailable` also when the feed says that there is more and gives nothing new.
        """
        async with self._reading:
            try:
                return await self._apply_page(wait_seconds)
            except (ForeignLedger, OtherHistory):
                # Before that is a reason to stop for ever: an old answer may have come from somewhere, and the views
                # may have been put back together with the ledger.
                await self._projection.reload()
                return await self._apply_page(0)

    async def _apply_page(self, wait_seconds: float) -> bool:
        asked_at = self._projection.position
        page = await self._feed.read(asked_at, wait_seconds)
        self._projection.check_ledger(page, asked_at)
        self._status = "catching up" if not self._caught_up else self._status
        events = await self._projection.following(page, self._feed)
        self.head.is_at_least(page.head)  # whether the views can be written or not
        await self._projection.apply(events, page.batch.end.chain)
        is_level = self._projection.position >= page.head
        if not events and not is_level and self._projection.position >= asked_at:
            raise FeedUnavailable(
                f"{self._feed.name} gives nothing new after position {asked_at}, and says there is more."
            )
        self.head.seen(page.head)
        if is_level and not self._caught_up:
            log.info("caught up", position=self._projection.position)
            self._caught_up = True
        return is_level

    async def _follow_queue(self, channel: AbstractChannel, exchange: AbstractExchange, queue: AbstractQueue) -> None:
        inbox: asyncio.Queue[AbstractIncomingMessage | LedgerError] = asyncio.Queue()

        async def receive(message: AbstractIncomingMessage) -> None:
            inbox.put_nowait(message)

        def closed(_: object, error: object) -> None:
            if isinstance(error, (InvalidFrameError, RecursionError)):
                inbox.put_nowait(UnreadableFrame(f"a message can't be received: {error}"))
            else:
                inbox.put_nowait(SubscriptionLost(f"the broker closed the channel to {self._queue_name}"))

        def cancelled(_: object) -> None:
            inbox.put_nowait(SubscriptionLost(f"the broker ended the subscription to {self._queue_name}"))

        channel.close_callbacks.add(closed)
        (await channel.get_underlay_channel()).on_consumer_cancel_callbacks.add(cancelled)
        try:
            await queue.consume(receive, timeout=CONNECT_SECONDS)
        except TimeoutError:
            raise SubscriptionLost(
                f"the queue {queue.name} does not answer. If that goes on, delete it: its events are in the log."
            ) from None
        self._status = f"following {self._queue_name}"
        self._trouble = ""
        log.info("following", queue=self._queue_name, after=self._projection.position)
        self._channel = channel
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch_head(exchange, queue))
                await self._consume(channel, inbox)
        finally:
            self._channel = self.queue_messages = None

    async def _watch_head(self, exchange: AbstractExchange, queue: AbstractQueue) -> None:
        """Beside the queue, which goes on meanwhile: a lost last message leaves no gap to see, and a parked one may
        stand where a good one was. Only the feed knows of them."""
        position, messages = self._projection.position, self._messages
        while True:
            try:
                await self._catch_up()
                self._status = f"following {self._queue_name}"
            except FeedUnavailable as error:
                self._status = f"following {self._queue_name} alone: {error}"
                log.warning("cannot see the head of the log", reason=str(error), retry_seconds=HEAD_CHECK_SECONDS)
            if self._projection.position > position and self._messages == messages:
                # Somebody may have made the exchange anew, or taken the queue from it.
                await queue.bind(exchange, timeout=CONNECT_SECONDS)
            position, messages = self._projection.position, self._messages
            with suppress(TimeoutError):
                async with asyncio.timeout(HEAD_CHECK_SECONDS):
                    await self._parked.wait()
                await asyncio.sleep(MEND_SECONDS)
            self._parked.clear()
            self._parking.report()

    async def _consume(
        self, channel: AbstractChannel, inbox: "asyncio.Queue[AbstractIncomingMessage | LedgerError]"
    ) -> None:
        while True:
            message = await inbox.get()
            read: list[tuple[AbstractIncomingMessage, Batch]] = []
            misfits: list[tuple[AbstractIncomingMessage, Misfit]] = []
            events = 0
            while True:
                if isinstance(message, LedgerError):
                    raise message
                try:
                    batch = self._read_message(message)
                    read.append((message, batch))
                    events += len(batch.events)
                except Misfit as misfit:
                    misfits.append((message, misfit))
                if events >= TRANSACTION_EVENTS_MAX or inbox.empty():
                    break
                message = inbox.get_nowait()
            misfits += await self._advance(read)
            if misfits:
                # If we die before the ack, they are parked twice.
                await self._parking.park(channel, misfits)
                self._parked.set()
            await message.ack(multiple=True)
            self._messages += 1

    def _read_message(self, message: AbstractIncomingMessage) -> Batch:
        source, key = self._projection.source, self._projection.key
        if source is None or key is None:
            raise SubscriptionLost("the views were emptied, and the feed has not said yet whose these messages may be")
        return read_message(message, self._publisher, source, key)

    async def _advance(
        self, read: list[tuple[AbstractIncomingMessage, Batch]]
    ) -> list[tuple[AbstractIncomingMessage, Misfit]]:
        """Apply what follows the checkpoint, in whatever order it was delivered, and fill holes from the feed.

        Returns the messages that are not as the ledger has signed them. Raises `FeedUnavailable` when the feed has not
        what belongs into a hole.
        """
        misfits: list[tuple[AbstractIncomingMessage, Misfit]] = []
        last = max((batch.end.position for _, batch in read), default=Position(0))
        key = self._projection.key
        read.sort(key=lambda message_and_batch: message_and_batch[1].end.position)
        while True:
            beyond: list[tuple[AbstractIncomingMessage, Batch]] = []
            run: list[RecordedEvent] = []
            at = self._projection.at
            for message, batch in read:
                try:
                    following = batch.following(at)
                except Hole:
                    beyond.append((message, batch))
                    continue
                except Unproven as error:
                    misfits.append((message, Misfit(str(error))))
                    continue
                if following:
                    run += following
                    at = batch.end
            self.head.is_at_least(at.position)
            await self._projection.apply(run, at.chain)
            reached = self._projection.position
            if reached >= last:
                return misfits
            log.info("filling a hole from the feed", after=reached, up_to=last)
            self.head.promised(last)
            await self._read_page()
            if self._projection.position == reached:
                raise FeedUnavailable(
                    f"{self._feed.name} has nothing after position {reached}, and the ledger's messages go to {last}."
                )
            if self._projection.key != key:
                raise SubscriptionLost("the ledger's key is another one than these messages were believed for")
            read = beyond
