"""What falls due: ends each hold at its time, if nobody has before."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import structlog
import uuid_utils
from prometheus_client import CollectorRegistry, Gauge

from command_service.event_log import BEFORE_ALL, EventLog
from command_service.ledger.commands import ExpireHold
from command_service.ledger_writer import LedgerWriter, WriteRequest
from shared.errors import CorruptStore
from shared.events import written
from shared.platform.sessions import keep_running

PAGE_HOLDS_MAX = 500
"""Expired in one transaction, beside what clients ask for: some milliseconds of it."""
LOOK_SECONDS = 1
"""The log is looked at so often: another replica may have placed a hold that expires before all others."""

log = structlog.get_logger()


class Clerk:
    """Writes `hold-expired` for each hold that is due, in pages, through the writer: as one client among others.

    Of several replicas one does so at a time. That saves work, and no more: each hold is decided under the lock on the
    head, and one that has ended leads to no event, whoever comes for it.
    """

    def __init__(
        self,
        event_log: EventLog,
        writer: LedgerWriter,
        registry: CollectorRegistry,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._event_log = event_log
        self._writer = writer
        self._now = now
        self._holder = str(uuid_utils.uuid7())
        self._first_expiry: datetime | None = None
        """Of the open holds, as far as is known."""
        self._expired = 0
        self.status = "starting"
        """For people: "nothing is due", or why something is."""
        Gauge(
            "ledger_hold_overdue_seconds",
            "How long the open hold that expired first has been waiting for its hold-expired; 0 when none has.",
            registry=registry,
        ).set_function(lambda: max(0, self._due_for_seconds()))

    async def run(self) -> None:
        """Expire what is due, for ever; after a failure of the store again, and again."""
        await keep_running(self._session, lambda: self._expired, self._failed)

    def _failed(self, error: Exception, backoff_seconds: float) -> None:
        self.status = f"cannot expire holds: {error}"
        log.warning("holds cannot be expired", reason=str(error), retry_seconds=round(backoff_seconds, 2))

    async def _session(self) -> None:
        while True:
            first, time = await self._event_log.first_expiry(), await self._time()
            self._first_expiry = None if first is None else _read(first)
            if first is None or first > time:
                self.status = "nothing is due"
            elif await self._expire(time):
                continue
            await asyncio.sleep(self._pause_seconds())

    async def _time(self) -> str:
        """What the next event's will be at least: the clock may have gone back."""
        _, last = await self._event_log.end()
        return max(written(self._now()), last)

    async def _expire(self, time: str) -> int:
        """Expire what is due at `time`, in pages, and tell how many that were; 0 while another replica does so."""
        expired, after = 0, BEFORE_ALL
        try:
            while due := await self._event_log.due_holds(after, time, PAGE_HOLDS_MAX):
                if not await self._event_log.lead_clerk(self._holder):
                    self.status = "another replica expires holds"
                    break
                (first, _, _), after = due[0], due[-1]
                self.status, self._first_expiry = f"expiring holds that were due at {first}", _read(first)
                commands = [ExpireHold(account_id, hold_id) for _, account_id, hold_id in due]
                outcomes = await self._writer.write(WriteRequest(commands))
                if not outcomes:  # they have ended meanwhile: look again before more is asked of the writer
                    break
                expired += len(outcomes)
                self._expired += len(outcomes)
        finally:
            await self._event_log.end_clerk_lease(self._holder)
        return expired

    def _pause_seconds(self) -> float:
        """Until a hold will be due; `LOOK_SECONDS` when one is, or none will be for so long."""
        until_seconds = -self._due_for_seconds()
        return min(until_seconds, LOOK_SECONDS) if until_seconds > 0 else LOOK_SECONDS

    def _due_for_seconds(self) -> float:
        """How long the first hold has been due; 0 when there is none, and less while it is not."""
        return 0 if self._first_expiry is None else (self._now() - self._first_expiry).total_seconds()


def _read(expires_at: str) -> datetime:
    """Raises `CorruptStore`."""
    try:
        return datetime.fromisoformat(expires_at)
    except ValueError as error:
        raise CorruptStore(
            f"a hold expires at {expires_at!a}: {error}. Put a good copy of the log in its place."
        ) from error
