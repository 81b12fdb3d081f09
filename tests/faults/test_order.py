"""In real time, on each store and on any replica: `make faults` shows the same under all its faults."""

import asyncio
from pathlib import Path
from random import Random

import pytest

from tests.bank import open_bank
from tests.faults.checker import LINKED, check
from tests.faults.clients import Clients
from tests.faults.run import count_reads, open_http, read_settled_log, read_view

SECONDS = 4
ENOUGH_SECONDS_MAX = 60
"""On a slow machine: until what is to be looked at has happened."""
COMMANDS_MIN = 500


@pytest.mark.parametrize(("store", "replicas"), [("sqlite", 1), ("postgres", 3)])
async def test_commands_are_strictly_serializable_and_sessions_never_go_back(
    store: str, replicas: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    database_url = request.getfixturevalue("database_url") if store == "postgres" else None
    async with open_bank(tmp_path, None, 2, database_url, replicas) as bank, open_http() as http:
        projections = {service.url: service.environment["PROJECTION_NAME"] for service in bank.projections}
        clients = Clients([service.url for service in bank.commands], projections, Random(1), http)
        async with asyncio.TaskGroup() as group:
            group.create_task(clients.run())
            await asyncio.sleep(SECONDS / 2)
            await bank.command.kill()
            await bank.command.start()
            await asyncio.sleep(SECONDS / 2)
            async with asyncio.timeout(ENOUGH_SECONDS_MAX):
                while not is_enough(clients):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            clients.stop()
        log, late = await read_settled_log(http, bank.command)
        views = [await read_view(url, log, http) for url in projections]
    assert [*check(clients.history, log, views), *late] == []
    assert count_reads(clients.history.reads)["session"]


def is_enough(clients: Clients) -> bool:
    """Was each kind of command there that could tell, a batch that was accepted as a whole among them?"""
    answered = [one for one in clients.history.operations if one.answers]
    reasons = {one.answers[0].get("reason") for one in answered}
    atomic = [one.atomic for one in answered if one.atomic is not None and "reason" not in one.answers[0]]
    return (
        clients.acknowledged >= COMMANDS_MIN
        and {LINKED, "version-mismatch"} <= reasons
        and len(atomic) > len(set(atomic)) > 0
    )
