"""Clients that go on while things break, and remember what each of them was told."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import aiohttp

from tests.bank import Bank
from tests.integration.broker import eventually

CLIENTS = 6
COMMANDS_MAX = 4_000
ACCOUNTS = [f"account-{number}" for number in range(4)]
PAUSE_SECONDS_MAX = 0.05


def seeded() -> Random:
    """Print the seed; pytest shows it when the test fails. LEDGER_SEED repeats it."""
    seed = int(os.environ.get("LEDGER_SEED") or Random().getrandbits(32))
    print(f"LEDGER_SEED={seed}")
    return Random(seed)


class Load:
    """Each command has its own description, by which it is found in the log.

    A client that gets no answer asks again with the same Idempotency-Key, or goes on to its next command
    if it has none: half of the clients do the one, half the other. Every request goes to any of the replicas.
    """

    def __init__(self, bank: Bank, random: Random) -> None:
        self._bank = bank
        self._random = random
        self._stopping = False
        self.sent = 0
        self.acknowledged: dict[str, dict[str, Any]] = {}
        """The answer to each command that got one."""
        self.unanswered: set[str] = set()
        """Commands whose outcome nobody told the client."""
        self.refused: list[tuple[int, dict[str, Any]]] = []

    async def create_accounts(self) -> None:
        for account in ACCOUNTS:
            assert (await self._bank.create(account))[0] == 201

    async def run(self) -> None:
        async with asyncio.TaskGroup() as clients:
            for number in range(CLIENTS):
                clients.create_task(self._client(number, has_keys=number % 2 == 0))

    def stop(self) -> None:
        self._stopping = True

    async def go_on(self, commands: int = 100) -> None:
        """Wait until this many more commands were acknowledged."""
        aim = len(self.acknowledged) + commands

        async def acknowledged() -> int:
            return len(self.acknowledged)

        await eventually(acknowledged, lambda number: number >= aim, f"{commands} commands to be acknowledged")

    async def _client(self, number: int, has_keys: bool) -> None:
        count = 0
        while not self._stopping:
            assert self.sent < COMMANDS_MAX, "the test takes too long: the load is bounded"
            self.sent += 1
            count += 1
            description = f"client-{number}-{count}"
            path = f"/account/{self._random.choice(['deposit', 'deposit', 'withdraw'])}/{self._random.choice(ACCOUNTS)}"
            body = {"amount": self._random.randint(1, 1000), "description": description}
            while True:
                try:
                    replica = self._random.choice(self._bank.commands)
                    status, answer = await self._bank.post(path, body, description if has_keys else None, replica)
                except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
                    await asyncio.sleep(0.02)
                    if has_keys:
                        continue
                    self.unanswered.add(description)
                else:
                    # An overdrawn withdrawal is rejected, and that is recorded; all else is a refusal.
                    if "event_id" in answer:
                        self.acknowledged[description] = answer
                    else:
                        self.refused.append((status, answer))
                break
            # Slower the longer it takes: a slow machine is not flooded, nor the bound reached for three minutes.
            await asyncio.sleep(self._random.uniform(0, PAUSE_SECONDS_MAX) * (1 + self.sent / 1000) ** 2)

    async def check(self) -> None:
        """Assert that the log holds every acknowledged command exactly once, where the client was told, and
        every unanswered one at most once; and that every view is the fold of the log."""
        events = await self._bank.check_views()
        by_position = {int(event["sequence"]): event for event in events}
        times = Counter(event["data"].get("description") for event in events)
        assert len({event["id"] for event in events}) == len(events)
        for description, answer in self.acknowledged.items():
            event = by_position[answer["position"]]
            assert (event["id"], event["data"]["description"]) == (answer["event_id"], description)
            assert times.pop(description) == 1
        for description in self.unanswered:
            assert times.pop(description, 0) <= 1
        assert times.keys() <= {None}, "the log has commands that nobody sent"
        assert self.refused == []


@asynccontextmanager
async def load(bank: Bank) -> AsyncIterator[Load]:
    """Commands keep coming inside the block. At its end all is checked."""
    load = Load(bank, seeded())
    await load.create_accounts()
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run())
        await load.go_on(50)
        yield load
        load.stop()
    await load.check()
