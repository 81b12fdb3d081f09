"""A position that only grows, and the tasks that wait for it: the log's head, a projection's checkpoint."""

import asyncio
import heapq
from collections.abc import Awaitable, Callable
from itertools import count

import structlog

from shared.events import Position
from shared.problems import LedgerError

FOLLOW_SECONDS = 0.02
RETRY_SECONDS = 1

log = structlog.get_logger()


class Watermark:
    """In-process wake-up for readers, so that nobody has to poll the database."""

    def __init__(self, position: Position) -> None:
        self.position = position
        self._closed = False
        self._order = count()
        self._waiting: list[tuple[Position, int, asyncio.Future[None]]] = []

    def advance(self, position: Position) -> None:
        """Wake everyone who waits for `position` or less. An older position changes nothing."""
        if position > self.position:
            self.position = position
            while self._waiting and self._waiting[0][0] <= position:
                _wake(heapq.heappop(self._waiting)[2])

    async def reach(self, position: Position, wait_seconds: float) -> bool:
        """Wait until `position` is reached; False when `wait_seconds` passed or the watermark was closed first."""
        if self.position < position and not self._closed and wait_seconds > 0:
            reached = asyncio.get_running_loop().create_future()
            entry = (position, next(self._order), reached)
            heapq.heappush(self._waiting, entry)
            try:
                async with asyncio.timeout(wait_seconds):
                    await reached
            except TimeoutError:
                pass
            finally:
                if not self._closed and entry in self._waiting:
                    self._waiting.remove(entry)
                    heapq.heapify(self._waiting)
        return self.position >= position

    def close(self) -> None:
        """Release every waiter, now and from now on: the process is stopping."""
        self._closed = True
        for _, _, reached in self._waiting:
            _wake(reached)
        self._waiting.clear()


async def follow(read: Callable[[], Awaitable[Position]], watermark: Watermark) -> None:
    """Advance `watermark` for ever with what `read` finds, every `FOLLOW_SECONDS`: what other replicas have done.

    A NOTIFY in each transaction would tell it sooner, and make all commits of the database wait for each other:
    PostgreSQL holds one lock for all of them from there to its end (PreCommit_Notify in commands/async.c).
    """
    while True:
        try:
            watermark.advance(await read())
        except LedgerError as error:
            log.warning("cannot see what other replicas do", reason=str(error), retry_seconds=RETRY_SECONDS)
            await asyncio.sleep(RETRY_SECONDS)
        await asyncio.sleep(FOLLOW_SECONDS)


def _wake(reached: "asyncio.Future[None]") -> None:
    if not reached.done():
        reached.set_result(None)
