"""A seeded random schedule of faults: processes that are killed or stopped, links that break."""

import asyncio
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random

from tests.faults.link import Link
from tests.faults.world import Process, World

AT_ONCE_MAX = 3
PAUSE_SECONDS_MAX = 1.5
FAULT_SECONDS_MAX = 7
"""Longer than the lease of the relay and than an idle transaction is left alone."""
DOWN_SECONDS_MAX = 3

Fault = tuple[str, str, Callable[[], Awaitable[None]]]
"""What it is, to whom it happens, and the doing, which returns when it is over and mended."""


class Schedule:
    def __init__(self, world: World, random: Random) -> None:
        self._world = world
        self._random = random
        self._busy: set[str] = set()
        self.injected: Counter[str] = Counter()
        """How many of each kind were begun."""
        self.violations: list[str] = []

    async def run(self, stop: asyncio.Event) -> None:
        """Inject faults until `stop` is set, and return when all are mended."""
        async with asyncio.TaskGroup() as group:
            while not stop.is_set():
                if len(self._busy) < AT_ONCE_MAX:
                    kind, target, doing = self._choose()
                    self._busy.add(target)
                    self.injected[kind] += 1
                    group.create_task(self._inject(target, doing))
                await asyncio.sleep(self._random.uniform(0.1, PAUSE_SECONDS_MAX))

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
