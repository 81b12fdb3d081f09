"""One run: load, faults, healing, and the verdict."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import aiohttp

from tests.bank import Service, read_log
from tests.faults.checker import check, still_to_expire, whole_pools
from tests.faults.clients import REQUEST_SECONDS, Clients
from tests.faults.history import Body, Read, View
from tests.faults.schedule import Schedule
from tests.faults.world import open_world, trouble

HEAL_SECONDS = 120


@dataclass
class Report:
    seed: int
    faults: Counter[str]
    rebuilds: Counter[str]
    """Of views, by how they ended: put in use, killed, given up, failed."""
    outcomes: Counter[str]
    """Commands by what their clients know of them: acknowledged, unknown, refused."""
    duplicates: int
    reads: Counter[str]
    """Answers to queries, see `count_reads`."""
    whole_pools: int
    """Positions at which all accounts of the pool were read."""
    events: int
    violations: list[str]

    def __str__(self) -> str:
        faults = ", ".join(f"{number} {kind}" for kind, number in sorted(self.faults.items()))
        rebuilds = ", ".join(f"{self.rebuilds[end]} {end}" for end in ("put in use", "killed", "given up", "failed"))
        outcomes = ", ".join(f"{self.outcomes[name]} {name}" for name in ("acknowledged", "unknown", "refused"))
        return (
            f"seed {self.seed}\n"
            f"faults injected: {self.faults.total()} ({faults})\n"
            f"views rebuilt beside the projections: {rebuilds}\n"
            f"commands: {outcomes}; {self.duplicates} requests sent twice; {self.events} events in the log\n"
            f"queries answered: {self.reads['all']}, {self.reads['session']} with what the session had seen; "
            f"{self.reads['again']} of a state that was read before, {self.reads['elsewhere']} of them in other views\n"
            f"positions at which a whole pool was read: {self.whole_pools}\n"
            f"violations: {len(self.violations)}" + "".join(f"\n  {violation}" for violation in self.violations[:50])
        )


async def survive(
    folder: Path, seed: int, enough: Callable[[float, int, int], bool], commands_max: int = 10**9
) -> Report:
    """Run until `enough` of seconds, faults and acknowledged commands; no more than `commands_max` are sent."""
    random = Random(seed)
    async with open_world(folder) as world, open_http() as http:
        clients = Clients(world.command_urls, world.projection_urls, Random(random.random()), http)
        schedule = Schedule(world, Random(random.random()))
        stop = asyncio.Event()
        begin = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            faults = group.create_task(schedule.run(stop))
            load = group.create_task(clients.run())
            while not enough(
                asyncio.get_running_loop().time() - begin, schedule.injected.total(), clients.acknowledged
            ):
                if len(clients.history.operations) > commands_max:
                    clients.stop()
                await asyncio.sleep(0.2)
            stop.set()
            await faults
            clients.stop()
            await load
        history, log = clients.history, list[dict[str, Any]]()
        if broken := await trouble(world):
            violations = [broken]
        else:
            log, late = await read_settled_log(http, world.commands[0])
            views = [await read_view(url, log, http) for url in world.projection_urls]
            violations = [*check(history, log, views), *late]
    return Report(
        seed,
        schedule.injected,
        schedule.rebuilds,
        Counter(operation.outcome for operation in history.operations),
        clients.duplicates,
        count_reads(history.reads),
        len(whole_pools(history)),
        len(log),
        [*schedule.violations, *violations],
    )


def count_reads(reads: Sequence[Read]) -> Counter[str]:
    """All of them; those with what the session had seen; and those of an account and position that had been read
    before, and elsewhere: in other views."""
    counts: Counter[str] = Counter(all=len(reads))
    seen: dict[tuple[int, str | None], set[str]] = {}
    for read in reads:
        views = seen.setdefault((read.position, read.account), set())
        counts["session"] += read.min_position is not None
        counts["again"] += bool(views)
        counts["elsewhere"] += bool(views - {read.views})
        views.add(read.views)
    return counts


def open_http() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS))


async def read_settled_log(http: aiohttp.ClientSession, command: Service) -> tuple[list[dict[str, Any]], list[str]]:
    """The log, once all holds that are to expire have ended; and those that have not in all that time."""
    deadline = asyncio.get_running_loop().time() + HEAL_SECONDS
    while late := still_to_expire(log := await read_log(http, command)):
        if asyncio.get_running_loop().time() > deadline:
            break
        await asyncio.sleep(1)
    return log, late


async def read_view(url: str, log: list[dict[str, Any]], http: aiohttp.ClientSession) -> View:
    """Everything that a projection says of the accounts in the log, once it has reached the log's end."""
    query = {"min_position": str(len(log)), "wait": "2"}
    async with asyncio.timeout(HEAL_SECONDS):
        while True:
            async with http.get(f"{url}/reserves", params=query) as response:
                if response.status == 200:
                    position = int(response.headers["Ledger-Position"])
                    reserves = await response.json(content_type=None)
                    break
    accounts: dict[str, Body] = {}
    for account in {event["subject"] for event in log}:
        async with http.get(f"{url}/account/{account}", params=query) as response:
            answer = await response.json(content_type=None)
            if response.status == 200:
                accounts[account] = answer
            elif response.status != 404:
                raise AssertionError(f"{url}/account/{account} answered {response.status}: {answer}")
    return View(position, accounts, reserves)
