"""Runs a session with another service or a broker again and again, since each one ends some day."""

import asyncio
import random
from collections.abc import Awaitable, Callable

from shared.messaging import BROKER_ERRORS
from shared.problems import CorruptStore, LedgerError

BACKOFF_SECONDS_MIN = 0.1
BACKOFF_SECONDS_MAX = 5.0


async def keep_running(
    session: Callable[[], Awaitable[None]],
    progress: Callable[[], int],
    failed: Callable[[Exception, float], None],
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Run `session` for ever; after a failure again, with jittered exponential back-off.

    `failed` is told each failure and the seconds until the next try, which pass in `pause`. A session that
    made `progress` starts the back-off anew. Raises what another try cannot mend: `CorruptStore`, and bugs.
    """
    failures = 0
    while True:
        before = progress()
        try:
            await session()
        except (Exception, asyncio.CancelledError) as error:
            # A failure at the moment of our own end must not hide that we were told to end.
            if _is_cancelled():
                raise asyncio.CancelledError from error
            causes = _leaves(error)
            for cause in causes:
                if isinstance(cause, CorruptStore) or not isinstance(cause, (LedgerError, *BROKER_ERRORS)):
                    raise cause from error
            failures = 1 if progress() > before else failures + 1
            backoff = min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS_MIN * 2 ** min(failures, 10))
            backoff *= random.uniform(0.5, 1)
            failed(causes[0], backoff)
            await pause(backoff)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _leaves(error: BaseException) -> list[Exception]:
    match error:
        case ExceptionGroup():
            return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
        case Exception():
            return [error]
        case _:
            # aiormq cancels what waits on a connection that has fallen silent.
            return [ConnectionError("the broker has fallen silent")]
