"""Holds with several command services on one database, and with one that is killed: each ends once."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from shared.events import written
from tests.bank import Bank, open_bank
from tests.http.test_commands import head
from tests.integration.broker import LIMIT_SECONDS, eventually
from tests.integration.load import seeded

MANY = 20_000
ENDS = ("hold-captured", "hold-released", "hold-expired")


def in_seconds(seconds: float) -> str:
    return written(datetime.now(UTC) + timedelta(seconds=seconds))


async def fund(bank: Bank, amount: int) -> None:
    await bank.create("alice")
    await bank.create("bob", "Bob")
    await bank.deposit("alice", amount)


async def place(bank: Bank, number: int, expires_at: str | None = None) -> list[str]:
    """Holds of a cent each, and in the view."""
    ids = [f"h-{n:05}" for n in range(number)]
    more = {"expires_at": expires_at} if expires_at else {}
    commands = [{"type": "hold", "account_id": "alice", "hold_id": one, "amount": 1, **more} for one in ids]
    for first in range(0, number, 10_000):
        _, results = await bank.post("/commands", commands[first : first + 10_000])
        assert {result["status"] for result in results} == {200}
        await bank.query("/account/alice", min_position=results[-1]["position"], wait=LIMIT_SECONDS)
    return ids


async def until_expired(bank: Bank, number: int, before: int) -> None:
    """Until so many have, of those whose placing was `before` in the log."""

    async def expired() -> int:
        return await head(bank) - before

    await eventually(expired, lambda expired: expired >= number, f"{number} to have expired")


async def until_held(bank: Bank, amount: int) -> None:
    """Until of alice's money no more than that is held."""

    async def held() -> int:
        return int((await bank.query("/account/alice"))[1].get("held", MANY))

    await eventually(held, lambda held: held <= amount, f"{amount} or less to be held")


def ends(log: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """The types of the events that have ended each hold."""
    found: dict[str, list[str]] = {}
    for event in log:
        if event["type"] in ENDS:
            found.setdefault(event["data"]["hold_id"], []).append(event["type"])
    return found


async def test_of_two_captures_of_one_hold_on_two_replicas_one_wins(tmp_path: Path, database_url: str) -> None:
    async with open_bank(tmp_path, None, 1, database_url, replicas=2) as bank:
        await fund(bank, 200)
        ids = await place(bank, 200)
        bodies: list[dict[str, Any]] = [{"hold_id": one} for one in ids] + [
            {"hold_id": one, "to": "bob"} for one in ids
        ]
        seeded().shuffle(bodies)
        answers = await asyncio.gather(
            *(bank.post("/account/capture/alice", body, None, bank.commands[n % 2]) for n, body in enumerate(bodies))
        )
        won = [answer["hold_id"] for status, answer in answers if status == 200]
        lost = [answer["reason"] for status, answer in answers if status == 400]
        assert sorted(won) == ids
        assert lost == ["hold-not-found"] * 200
        log = await bank.check_views()
        assert ends(log) == {one: ["hold-captured"] for one in ids}


async def test_a_capture_and_an_expiry_never_both_happen(tmp_path: Path, database_url: str) -> None:
    """Captures come from both replicas around the time at which all holds are due."""
    async with open_bank(tmp_path, None, 1, database_url, replicas=2) as bank:
        await fund(bank, 300)
        due = datetime.now(UTC) + timedelta(seconds=2)
        ids = await place(bank, 300, written(due))
        chance = seeded()

        async def capture(number: int, hold_id: str) -> tuple[int, Any]:
            moment = due + timedelta(seconds=chance.gauss(-0.5, 0.7))
            await asyncio.sleep((moment - datetime.now(UTC)).total_seconds())
            return await bank.post("/account/capture/alice", {"hold_id": hold_id}, None, bank.commands[number % 2])

        answers = await asyncio.gather(*(capture(number, hold_id) for number, hold_id in enumerate(ids)))
        captured = {answer["hold_id"] for status, answer in answers if status == 200}
        refused = Counter(answer["reason"] for status, answer in answers if status == 400)
        assert refused.keys() <= {"hold-expired", "hold-not-found"}
        await until_held(bank, 0)
        log = await bank.check_views()
        assert ends(log) == {one: ["hold-captured" if one in captured else "hold-expired"] for one in ids}
        print(f"{len(captured)} captured, {refused}")


@pytest.mark.parametrize("on_postgresql", [False, True])
async def test_a_clerk_that_is_killed_midway_expires_each_hold_once(
    tmp_path: Path, request: pytest.FixtureRequest, on_postgresql: bool
) -> None:
    database_url = request.getfixturevalue("database_url") if on_postgresql else None
    async with open_bank(tmp_path, None, 1, database_url) as bank:
        await fund(bank, MANY)
        await place(bank, MANY, in_seconds(10))
        placed = await head(bank)
        for kills in range(3):
            await until_expired(bank, 1 + 2_000 * kills, placed)
            await bank.command.kill()
            await bank.command.start()
            print(f"{len(ends(await bank.log()))} of {MANY} have expired")
        await until_held(bank, 0)
        log = await bank.check_views()
        assert Counter(map(tuple, ends(log).values())) == {("hold-expired",): MANY}
        _, view = await bank.query("/account/alice", min_position=len(log))
        assert (view["balance"], view["held"], view["available"]) == (MANY, 0, MANY)


async def test_another_replica_goes_on_when_the_one_that_expires_is_killed(tmp_path: Path, database_url: str) -> None:
    async with open_bank(tmp_path, None, 1, database_url, replicas=2) as bank:
        await fund(bank, MANY)
        await place(bank, MANY, in_seconds(10))
        await until_expired(bank, 1, await head(bank))
        await bank.commands[1].kill()
        await until_held(bank, 0)
        assert Counter(map(tuple, ends(await bank.check_views()).values())) == {("hold-expired",): MANY}
