"""Sessions are run again after what may pass, and not after what won't."""

import asyncio
from collections.abc import Sequence

import pytest
from aio_pika.exceptions import AMQPConnectionError, ChannelInvalidStateError

import shared.platform.sessions
from shared.errors import CorruptStore, LedgerError, StoreUnavailable
from shared.platform.sessions import keep_running

BACKOFF_SECONDS_MIN = 1e-6
BACKOFF_SECONDS_MAX = 8e-6
END = CorruptStore("end of the script")


@pytest.fixture(autouse=True)
def short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared.platform.sessions, "BACKOFF_SECONDS_MIN", BACKOFF_SECONDS_MIN)
    monkeypatch.setattr(shared.platform.sessions, "BACKOFF_SECONDS_MAX", BACKOFF_SECONDS_MAX)


class Script:
    """Sessions that each make `progress` and end with an error, or without one."""

    def __init__(self, sessions: Sequence[tuple[int, Exception | None]]) -> None:
        self._sessions = iter(sessions)
        self.position = 0
        self.failures: list[tuple[Exception, float]] = []

    async def session(self) -> None:
        progress, error = next(self._sessions)
        self.position += progress
        if error is not None:
            raise error

    async def run(self) -> None:
        await keep_running(self.session, lambda: self.position, lambda *failure: self.failures.append(failure))


@pytest.mark.parametrize(
    "error",
    [
        StoreUnavailable("disk full"),
        LedgerError("something"),
        AMQPConnectionError("refused"),
        ChannelInvalidStateError("closed"),
        ConnectionResetError("reset"),
        TimeoutError("late"),
        ExceptionGroup("tasks", [ExceptionGroup("inner", [TimeoutError("late")]), OSError("broken pipe")]),
    ],
)
async def test_a_session_is_run_again_after_what_may_pass(error: Exception) -> None:
    script = Script([(0, error), (0, error), (0, END)])
    with pytest.raises(CorruptStore, match="end of the script"):
        await script.run()
    first = error
    while isinstance(first, ExceptionGroup):
        first = first.exceptions[0]
    assert [failure for failure, _ in script.failures] == [first, first]


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (END, END),
        (bug := ValueError("a bug"), bug),
        (ExceptionGroup("tasks", [TimeoutError("late"), END]), END),
        (ExceptionGroup("tasks", [LedgerError("x"), ExceptionGroup("inner", [OSError("y"), bug])]), bug),
    ],
)
async def test_what_another_try_cannot_mend_is_raised(error: Exception, raised: Exception) -> None:
    script = Script([(1, error)])
    with pytest.raises(type(raised)) as caught:
        await script.run()
    assert caught.value is raised
    assert script.failures == []


async def test_the_back_off_grows_to_a_limit_and_starts_anew_after_progress() -> None:
    progress = [0, 0, 0, 0, 0, 1, 0]
    script = Script([*((step, TimeoutError()) for step in progress), (0, END)])
    with pytest.raises(CorruptStore):
        await script.run()
    seconds = [backoff for _, backoff in script.failures]
    limits = [2e-6, 4e-6, 8e-6, 8e-6, 8e-6, 2e-6, 4e-6]
    assert all(limit / 2 <= backoff <= limit for backoff, limit in zip(seconds, limits, strict=True)), seconds


async def test_a_session_whose_tasks_fail_together_is_run_again() -> None:
    """Python 3.11's TaskGroup leaves `cancelling()` above zero when its last task fails."""
    sessions = 0

    async def fail() -> None:
        raise TimeoutError("late")

    async def session() -> None:
        nonlocal sessions
        sessions += 1
        if sessions == 4:
            raise END
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            group.create_task(asyncio.sleep(60))

    with pytest.raises(CorruptStore):
        await keep_running(session, lambda: 0, lambda *_: None)
    assert sessions == 4


@pytest.mark.parametrize("error", [asyncio.CancelledError(), Exception()], ids=repr)
async def test_a_session_that_its_library_gives_up_is_run_again(error: BaseException) -> None:
    """The ways in which aiormq ends what waits on a connection that is gone."""
    failures: list[Exception] = []

    async def session() -> None:
        if failures:
            raise END
        raise error

    with pytest.raises(CorruptStore):
        await keep_running(session, lambda: 0, lambda error, _: failures.append(error))
    assert [type(failure) for failure in failures] == [ConnectionError]


async def test_cancelling_ends_it_in_a_session() -> None:
    started = asyncio.Event()

    async def session() -> None:
        started.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(keep_running(session, lambda: 0, lambda *_: None))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_cancelling_ends_it_in_the_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared.platform.sessions, "BACKOFF_SECONDS_MIN", 60)
    monkeypatch.setattr(shared.platform.sessions, "BACKOFF_SECONDS_MAX", 60)
    failed = asyncio.Event()

    async def session() -> None:
        raise TimeoutError

    running = asyncio.create_task(keep_running(session, lambda: 0, lambda *_: failed.set()))
    await failed.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
