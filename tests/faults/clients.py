"""Clients that go on whatever breaks, and write down what they were told."""

import asyncio
import io
import json
from random import Random
from typing import Any

import aiohttp

from tests.faults.history import History, Kind, Operation, Read
from tests.faults.world import World

CLIENTS = 16
ACCOUNTS = 12
BATCH_COMMANDS_MAX = 100
REQUEST_SECONDS = 6
ATTEMPTS_MAX = 60
PAUSE_SECONDS_MAX = 0.03
WAIT_SECONDS = 1

FAILURES = (aiohttp.ClientError, TimeoutError, ConnectionError)


class Clients:
    """A load of deposits, withdrawals, new accounts, batches, duplicates and commands without hope."""

    def __init__(self, world: World, random: Random, http: aiohttp.ClientSession) -> None:
        self._world = world
        self._random = random
        self._http = http
        self._stopping = False
        self._number = 0
        self.history = History()
        self.acknowledged = 0
        self.duplicates = 0

    @property
    def accounts(self) -> list[str]:
        return [f"account-{number}" for number in range(ACCOUNTS)]

    def stop(self) -> None:
        """Each client finishes what it is doing."""
        self._stopping = True

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._client())

    async def _client(self) -> None:
        while not self._stopping:
            match self._random.choices(("single", "batch", "twins"), (10, 3, 1))[0]:
                case "single":
                    await self._ask([self._new_operation()], self._random.random() < 0.7)
                case "batch":
                    number = self._random.randint(1, BATCH_COMMANDS_MAX)
                    await self._ask([self._new_operation() for _ in range(number)], self._random.random() < 0.7)
                case "twins":
                    operations, key = [self._new_operation()], self._new_id("key")
                    await asyncio.gather(self._until_told(operations, key), self._until_told(operations, key))
                    self.duplicates += 1
            await asyncio.sleep(self._random.uniform(0, PAUSE_SECONDS_MAX))

    async def _ask(self, operations: list[Operation], has_key: bool) -> None:
        """With a key a client asks until it knows; without one it may only ask once."""
        if has_key:
            key = self._new_id("key")
            await self._until_told(operations, key)
            if self._random.random() < 0.1:
                self.duplicates += 1
                await self._until_told(operations, key)
        else:
            await self._post(operations, None)
        answered = [operation for operation in operations if operation.answers]
        if answered and self._random.random() < 0.5:
            await self._read_own_write(self._random.choice(answered))

    async def _until_told(self, operations: list[Operation], key: str) -> None:
        for _ in range(ATTEMPTS_MAX):
            if await self._post(operations, key):
                return
            await asyncio.sleep(self._random.uniform(0, 0.3))

    async def _post(self, operations: list[Operation], key: str | None) -> bool:
        """Send the request to either command service; True when it was acknowledged."""
        path, body = _request(operations)
        headers = {"Content-Type": "application/json", **({"Idempotency-Key": key} if key else {})}
        url = self._random.choice(self._world.command_urls) + path
        try:
            async with self._http.post(url, data=io.BytesIO(json.dumps(body).encode()), headers=headers) as response:
                status, answer = response.status, await response.json(content_type=None)
        except (*FAILURES, ValueError):
            for operation in operations:
                operation.unknowns += 1
            return False
        answers = answer if isinstance(answer, list) else [answer]
        if len(answers) != len(operations) or "position" not in answers[0]:
            for operation in operations:
                if status == 500:
                    operation.unknowns += 1
                else:
                    operation.refusals += 1
            return False
        for operation, told in zip(operations, answers, strict=True):
            if not operation.answers:
                self.acknowledged += 1
            told.pop("status", None)
            if told not in operation.answers:
                operation.answers.append(told)
        return True

    async def _read_own_write(self, operation: Operation) -> None:
        position = operation.answers[0]["position"]
        url = f"{self._random.choice(self._world.projection_urls)}/account/{operation.account}"
        parameters = {"min_position": str(position), "wait": str(WAIT_SECONDS)}
        try:
            async with self._http.get(url, params=parameters) as response:
                answer = await response.json(content_type=None)
                if response.status in (200, 404):
                    at = int(response.headers["Ledger-Position"])
                    balance, version = answer.get("balance"), answer.get("version")
                    self.history.reads.append(Read(operation.account, position, at, balance, version))
        except (*FAILURES, ValueError):
            return

    def _new_operation(self) -> Operation:
        random, account = self._random, self._random.choice(self.accounts)
        kind: Kind = random.choices(("deposit", "withdraw", "create-account"), (10, 8, 1))[0]
        amount: int | None = random.randint(1, 1_000)
        match random.randrange(20):
            case 0:
                amount = random.choice([0, -5, 2**63 - 1])
            case 1:
                account = f"nobody-{random.randrange(1000)}"
            case 2:
                account, kind = self._new_id("account"), "create-account"
        operation = Operation(self._new_id("command"), kind, account, None if kind == "create-account" else amount)
        self.history.operations.append(operation)
        return operation

    def _new_id(self, what: str) -> str:
        self._number += 1
        return f"{what}-{self._number}"


def _request(operations: list[Operation]) -> tuple[str, Any]:
    """A path and a body: a single command goes where single commands go."""
    items = [_item(operation) for operation in operations]
    if len(items) > 1:
        return "/commands", items
    (operation,), (item,) = operations, items
    del item["account_id"], item["type"]
    match operation.kind:
        case "create-account":
            return f"/account/{operation.account}", item
        case kind:
            return f"/account/{kind}/{operation.account}", item


def _item(operation: Operation) -> dict[str, object]:
    item: dict[str, object] = {"type": operation.kind, "account_id": operation.account}
    if operation.kind == "create-account":
        return {**item, "name": operation.id}
    return {**item, "amount": operation.amount, "description": operation.id}
