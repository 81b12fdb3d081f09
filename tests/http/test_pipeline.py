"""`/pipeline` without a broker; tests/integration has the rest of it."""

import signal
from pathlib import Path

from projection_service.views import VIEWS
from tests.bank import Bank, open_bank
from tests.integration.broker import eventually


async def pipeline(bank: Bank) -> dict[str, object]:
    """It has words for whatever is wrong, and is never a 5xx."""
    async with bank.http.get(f"{bank.projection.url}/pipeline") as response:
        assert response.status == 200
        assert response.headers["Cache-Control"] == "no-store"
        told: dict[str, object] = await response.json()
        assert int(response.headers["Ledger-Position"]) == told["applied"]
    return told


async def until(bank: Bank, **expected: object) -> dict[str, object]:
    return await eventually(
        lambda: pipeline(bank), lambda told: expected.items() <= told.items(), f"the pipeline to say {expected}"
    )


async def test_it_says_where_the_log_and_the_views_are(tmp_path: Path) -> None:
    async with open_bank(tmp_path) as bank:
        told = await pipeline(bank)
        assert (told["applied"], told["time_of_last_event"]) == (0, None)
        await bank.create("alice")
        await bank.deposit("alice", 100)
        await bank.query("/reserve", min_position=2)
        assert await pipeline(bank) == {
            "head": 2,
            "published": None,
            "applied": 2,
            "lag_events": 0,
            "lag_seconds": 0,
            "queue_messages": None,
            "broker": None,
            "problem": None,
            "time_of_last_event": (await bank.log())[-1]["time"],
            "views": list(VIEWS),
        }


async def test_it_answers_while_the_ledger_is_away_and_says_so(tmp_path: Path) -> None:
    """Also of what it has not folded itself: when the last event was."""
    async with open_bank(tmp_path) as bank:
        await bank.create("alice")
        (event,) = await bank.log()
        await bank.query("/reserve", min_position=1)
        await bank.projection.stop()
        await bank.projection.start()
        await until(bank, head=1, applied=1, problem=None, time_of_last_event=event["time"])
        await bank.projection.stop()
        await bank.command.stop()
        await bank.projection.start()
        problem = f"at position 1: not following: {bank.command.url}/events: cannot connect"
        told = await eventually(lambda: pipeline(bank), lambda told: str(told["problem"]).startswith(problem), problem)
        assert (told["head"], told["lag_events"], told["applied"], told["time_of_last_event"]) == (None, None, 1, None)
        await bank.command.start()
        await until(bank, head=1, applied=1, problem=None, lag_events=0, lag_seconds=0)


async def test_how_far_a_frozen_ledger_is_nobody_can_tell(tmp_path: Path) -> None:
    """Long before whoever follows it gives up waiting, and has words for it."""
    async with open_bank(tmp_path) as bank:
        await bank.create("alice")
        await until(bank, head=1, applied=1, lag_events=0)
        assert bank.command.process is not None
        bank.command.process.send_signal(signal.SIGSTOP)
        try:
            told = await until(bank, head=None, lag_events=None, problem=None)
            assert told["lag_seconds"] != 0
        finally:
            bank.command.process.send_signal(signal.SIGCONT)
        await until(bank, head=1, applied=1, lag_events=0, lag_seconds=0)
