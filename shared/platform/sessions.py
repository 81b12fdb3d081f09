"""Runs a session with another service or a broker again and again, since each one ends some day."""

import asyncio
import random
from collections.abc import Awaitable, Callable

from shared.errors import CorruptStore, LedgerError
from shared.messaging import BROKER_ERRORS

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
        # A task of its own: a session that ends itself with a cancellation is told apart from our own end.
        (failure,) = await asyncio.gather(session(), return_exceptions=True)
        causes = _leaves(failure)
        for cause in causes:
            if isinstance(cause, CorruptStore) or not isinstance(cause, (LedgerError, *BROKER_ERRORS)):
                raise cause from failure
        failures = 1 if progress() > before else failures + 1
        backoff = min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS_MIN * 2 ** min(failures, 10))
        backoff *= random.uniform(0.5, 1)
        failed(causes[0], backoff)
        await pause(backoff)


def _leaves(failure: BaseException | None) -> list[Exception]:
    match failure:
        case ExceptionGroup():
            return [leaf for inner in failure.exceptions for leaf in _leaves(inner)]
        case Exception() if type(failure) is not Exception:
            return [failure]
        case _:
            # aiormq cancels what waits on a connection that has fallen silent, and gives what waits on one that
            # was closed a bare Exception.
            return [ConnectionError("the broker has fallen silent or hung up")]
