"""A seeded random schedule of faults: processes that are killed or stopped, links that break; and rebuilds of views."""

import asyncio
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

from tests.bank import Service
from tests.faults.link import Link
from tests.faults.world import Process, World

AT_ONCE_MAX = 3
PAUSE_SECONDS_MAX = 1.5
FAULT_SECONDS_MAX = 7
"""Longer than the lease of the relay and than an idle transaction is left alone."""
DOWN_SECONDS_MAX = 3
REBUILDS_KILLED = 0.4
REBUILD_KILL_SECONDS = (1, 6)
"""At least and at most: from when it begins to read until most are over."""
REBUILD_SECONDS_MAX = 180
"""On a machine that has much else to do, queries may keep the tables for as long: no promise is broken by it."""
REBUILD_PAUSE_SECONDS_MAX = 3
GIVEN_UP = "cannot go on: "
"""A rebuild does, when what it needs is away as it begins, or for long. The next one goes on."""
WRONG_VIEWS = ("not what the ledger says", "do not add up", "not built from the same events", "another history")
"""What one says when the views in use, or those that it has built, are not the fold of the log."""

Fault = tuple[str, str, Callable[[], Awaitable[None]]]
"""What it is, to whom it happens, and the doing, which returns when it is over and mended."""


class Schedule:
    def __init__(self, world: World, random: Random) -> None:
        self._world = world
        self._random = random
        self._random_of_rebuilds = Random(random.random())
        self._busy: set[str] = set()
        self.injected: Counter[str] = Counter()
        """How many of each kind were begun."""
        self.rebuilds: Counter[str] = Counter()
        """How each rebuild ended: put in use, killed, given up, failed."""
        self.violations: list[str] = []

    async def run(self, stop: asyncio.Event) -> None:
        """Inject faults until `stop` is set, and return when all are mended."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._rebuild_views(stop))
            while not stop.is_set():
                if len(self._busy) < AT_ONCE_MAX:
                    kind, target, doing = self._choose()
                    self._busy.add(target)
                    self.injected[kind] += 1
                    group.create_task(self._inject(target, doing))
                await asyncio.sleep(self._random.uniform(0.1, PAUSE_SECONDS_MAX))

    async def _rebuild_views(self, stop: asyncio.Event) -> None:
        """One after the other, of projections at random, beside the service and through the same links."""
        random = self._random_of_rebuilds
        while not stop.is_set():
            is_cut_short = random.random() < REBUILDS_KILLED
            seconds_max = random.uniform(*REBUILD_KILL_SECONDS) if is_cut_short else REBUILD_SECONDS_MAX
            log = self._world.folder / f"rebuild-{self.rebuilds.total()}.log"
            status = await _rebuild(random.choice(self._world.projections), log, seconds_max)
            said = log.read_text()
            if status == 0:
                self.rebuilds["put in use"] += 1
            elif status == 1 and GIVEN_UP in said:
                self.rebuilds["given up"] += 1
            elif status == -signal.SIGKILL:
                self.rebuilds["killed"] += 1
            else:
                self.rebuilds["failed"] += 1
                self.violations.append(f"a rebuild ended with {status}: {said}")
            if any(words in said for words in WRONG_VIEWS):
                self.violations.append(f"a rebuild found wrong views: {said}")
            await asyncio.sleep(random.uniform(0, REBUILD_PAUSE_SECONDS_MAX))

    async def _inject(self, target: str, doing: Callable[[], Awaitable[None]]) -> None:
        try:
            await doing()
        finally:
            self._busy.remove(target)

    def _choose(self) -> Fault:
        while True:
            fault = self._random.choice([self._process_fault, self._link_fault])()
            if fault[1] not in self._busy:
                return fault

    def _process_fault(self) -> Fault:
        process = self._random.choice(self._world.processes)
        seconds = self._random.uniform(0, DOWN_SECONDS_MAX)
        pause = self._random.uniform(0.1, FAULT_SECONDS_MAX)
        if self._random.random() < 0.5:
            return "kill", process.name, lambda: self._kill(process, seconds)
        return "stop", process.name, lambda: self._stop(process, pause)

    def _link_fault(self) -> Fault:
        name, link = self._random.choice(list(self._world.links.items()))
        kind = self._random.choice(["cut", "stall", "half-close"])
        seconds = self._random.uniform(0, FAULT_SECONDS_MAX)
        towards_target = self._random.random() < 0.5
        return kind, name, lambda: _break(link, kind, seconds, towards_target)

    async def _kill(self, process: Process, seconds: float) -> None:
        if ended := process.check():
            self.violations.append(ended)
        await process.kill()
        await asyncio.sleep(seconds)
        await process.start()

    async def _stop(self, process: Process, seconds: float) -> None:
        process.send(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        process.send(signal.SIGCONT)


async def _break(link: Link, kind: str, seconds: float, towards_target: bool) -> None:
    match kind:
        case "cut":
            with link.cut():
                await asyncio.sleep(seconds)
        case "stall":
            with link.stalled():
                await asyncio.sleep(seconds)
        case _:
            link.half_close(towards_target)
            await asyncio.sleep(seconds)


async def _rebuild(projection: Service, log: Path, seconds_max: float) -> int:
    """The exit status; killed when it takes longer."""
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *projection.command_line, "rebuild", env=projection.environment, stderr=file
        )
    try:
        async with asyncio.timeout(seconds_max):
            await process.wait()
    except TimeoutError:
        pass
    finally:
        if process.returncode is None:
            process.kill()
    return await process.wait()
