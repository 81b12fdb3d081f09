"""A position that only grows, and the tasks that wait for it: the log's head, a projection's checkpoint."""

import asyncio
import heapq
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any

import structlog

from shared.errors import CorruptStore, LedgerError, Overloaded
from shared.events import Position

FOLLOW_SECONDS = 0.02
RETRY_SECONDS = 1
WAITS_MAX = 5_000
"""Requests that wait for a position at the same time: each holds a task, a timer and a connection."""
WAKES_MAX = 16
WAKES_PAUSE_SECONDS = 0.005
"""So many are woken at once, then others have a turn: each of those woken has an answer to make."""

log = structlog.get_logger()


class Peer:
    """A client as those see it who wait on its behalf: once it has finished sending or is gone, nobody should wait."""

    def __init__(self) -> None:
        self.gone = False
        self._calls: set[Callable[[], None]] = set()

    @classmethod
    def of(cls, scope: Mapping[str, Any]) -> "Peer":
        """Who sent the request of this ASGI scope; somebody who stays, when the server does not tell."""
        peer = scope.get("state", {}).get("peer")
        return peer if isinstance(peer, cls) else cls()

    def leave(self) -> None:
        self.gone = True
        for call in self._calls:
            call()

    @contextmanager
    def watched(self, call: Callable[[], None]) -> Iterator[None]:
        """In this block, `call` is called when the peer leaves."""
        self._calls.add(call)
        try:
            yield
        finally:
            self._calls.discard(call)


class Watermark:
    """In-process wake-up for readers, so that nobody has to poll the database.

    However many wait, whatever happens to one of them costs O(log n), and they are woken a few at a time.
    """

    def __init__(self, position: Position, waits_max: int = WAITS_MAX, wakes_max: int = WAKES_MAX) -> None:
        self.position = position
        self.waits = 0
        """How many wait now."""
        self._waits_max = waits_max
        self._wakes_max = wakes_max
        self.closed = False
        """Does nobody wait any more, since the process is stopping?"""
        self._order = count()
        # May hold waits that have ended, but never more than half.
        self._waiting: list[tuple[Position, int, asyncio.Future[None]]] = []
        self._waking: deque[asyncio.Future[None]] = deque()

    def advance(self, position: Position) -> None:
        """Wake everyone who waits for `position` or less. An older position changes nothing."""
        if position > self.position:
            self.position = position
            while self._waiting and self._waiting[0][0] <= position:
                self._wake(heapq.heappop(self._waiting)[2])

    def move(self, position: Position) -> None:
        """Advance to `position`, or go back to it: who asks from then on waits for what is no longer reached."""
        self.position = min(self.position, position)
        self.advance(position)

    async def reach(self, position: Position, wait_seconds: float, peer: Peer | None = None) -> bool:
        """Wait until `position` is reached.

        False when `wait_seconds` passed, `peer` left or the watermark was closed first. Raises `Overloaded`.
        """
        peer = peer or Peer()
        if self.position >= position or self.closed or wait_seconds <= 0 or peer.gone:
            return self.position >= position
        if self.waits >= self._waits_max:
            raise Overloaded(f"{self.waits} requests wait for a position already. Ask without waiting, or later.")
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()
        heapq.heappush(self._waiting, (position, next(self._order), woken))
        self.waits += 1
        timer = loop.call_later(wait_seconds, self._wake, woken)
        try:
            with peer.watched(partial(self._wake, woken)):
                await woken
        finally:
            timer.cancel()
            woken.cancel()
            self.waits -= 1
            if len(self._waiting) >= 2 * self.waits:
                self._waiting = [wait for wait in self._waiting if not wait[2].done()]
                heapq.heapify(self._waiting)
        return self.position >= position

    async def turn(self) -> None:
        """Wait for one's turn among those that are woken: who goes on without waiting would be before all of them."""
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wake(woken)
        await woken

    def close(self) -> None:
        """Release every waiter, now and from now on: the process is stopping."""
        self.closed = True
        for _, _, woken in self._waiting:
            self._wake(woken)
        self._waiting.clear()

    def _wake(self, woken: "asyncio.Future[None]") -> None:
        if not self._waking:
            woken.get_loop().call_soon(self._wake_some)
        self._waking.append(woken)

    def _wake_some(self) -> None:
        for _ in range(min(self._wakes_max, len(self._waking))):
            woken = self._waking.popleft()
            if not woken.done():
                woken.set_result(None)
        if self._waking:
            asyncio.get_running_loop().call_later(WAKES_PAUSE_SECONDS, self._wake_some)


async def follow(read: Callable[[], Awaitable[Position]], watermark: Watermark) -> None:
    """Advance `watermark` for ever with what `read` finds, every `FOLLOW_SECONDS`: what others have done to the store.

    Raises `CorruptStore`, after which nobody goes on from there.

    A NOTIFY in each transaction would tell it sooner, and make all commits of the database wait for each other:
    PostgreSQL holds one lock for all of them from there to its end (PreCommit_Notify in commands/async.c).
    """
    while True:
        try:
            watermark.advance(await read())
        except CorruptStore:
            raise
        except LedgerError as error:
            log.warning("cannot see what others do to the store", reason=str(error), retry_seconds=RETRY_SECONDS)
            await asyncio.sleep(RETRY_SECONDS)
        await asyncio.sleep(FOLLOW_SECONDS)
