"""Clients that go on whatever breaks, and write down what they were told."""

import asyncio
import io
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from time import monotonic
from typing import Any

import aiohttp

from shared.events import written
from tests.faults.history import Attempt, History, Kind, Operation, Pool, Read

CLIENTS = 16
KINDS: dict[Kind, int] = {
    "deposit": 20,
    "withdraw": 10,
    "transfer": 16,
    "hold": 10,
    "capture": 6,
    "release": 2,
    "create-account": 2,
    "set-overdraft-limit": 2,
    "freeze": 1,
    "unfreeze": 4,
    "close": 1,
}
"""How often each is asked for."""
ACCOUNTS = 12
OTHER_ASSET, OTHER_ASSET_SHARE = "EUR/2", 0.3
"""So many of the accounts are not in the default one: most transfers stay within an asset."""
POOL_ACCOUNTS = 8
POOL_FUNDS = 5_000
"""Of each account, in cents: some transfers are more than there is."""
POOL_SHARE = 0.2
"""Of all commands, those that are transfers in the pool."""
HOLD_SECONDS_MAX = 5
"""Those that expire do so before long: in the middle of faults."""
BATCH_COMMANDS_MAX = 100
ATOMIC_COMMANDS_MAX = 6
"""Few enough that some are accepted."""
REQUEST_SECONDS = 6
ATTEMPTS_MAX = 60
PAUSE_SECONDS_MAX = 0.03
POOL_PAUSE_SECONDS_MAX = 0.2
WAIT_SECONDS = 1

FAILURES = (aiohttp.ClientError, TimeoutError, ConnectionError)


class Clients:
    """A load of all commands, alone and in batches, atomic ones too, duplicates, commands without hope, and queries.

    Each client is a session: it remembers the highest position that it was told of or has read. One more for each
    projection does nothing but read a pool of accounts, among which money only moves.
    """

    def __init__(
        self, command_urls: Sequence[str], projections: Mapping[str, str], random: Random, http: aiohttp.ClientSession
    ) -> None:
        """Of `projections` the keys are URLs, and the values name the views that are read there."""
        self._command_urls = command_urls
        self._projections = list(projections.items())
        self._random = random
        self._http = http
        self._stopping = False
        self._number = 0
        self._seen = [0] * (CLIENTS + len(projections))
        self._versions: dict[str, int] = {}
        """Of accounts, as far as anybody was told."""
        self._holds: dict[str, list[tuple[str, str]]] = {"capture": [], "release": []}
        """The account and the id of each that was asked for, and not yet to be captured, or released."""
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
        pool = await self._fill_pool()
        async with asyncio.TaskGroup() as group:
            for session in range(CLIENTS):
                group.create_task(self._client(session))
            for session, (url, views) in enumerate(self._projections, CLIENTS):
                group.create_task(self._watch_pool(session, pool, url, views))

    async def _fill_pool(self) -> list[str]:
        pool = [f"pool-{number}" for number in range(POOL_ACCOUNTS)]
        operations = [Operation(self._new_id("command"), "create-account", one, None, 0) for one in pool]
        operations += [Operation(self._new_id("command"), "deposit", one, POOL_FUNDS, 0) for one in pool]
        self.history.operations += operations
        key = self._new_id("key")
        while not self._stopping and not operations[-1].answers:
            await self._until_told(operations, key)
        if last := operations[-1].answers:
            self.history.pool = Pool(pool, POOL_FUNDS * POOL_ACCOUNTS, last[0]["position"])
        return pool

    async def _watch_pool(self, session: int, pool: Sequence[str], url: str, views: str) -> None:
        """Read all its accounts at once: as they are, or as soon as the views have what nobody has seen yet.

        Who waits for the same position is answered together, mostly at one.
        """
        while not self._stopping:
            await_next = self._random.random() < 0.7
            min_position = max(self._seen) + 1 if await_next else None
            await asyncio.gather(*(self._read(session, one, url, views, min_position, await_next) for one in pool))
            await asyncio.sleep(self._random.uniform(0, POOL_PAUSE_SECONDS_MAX))

    async def _client(self, session: int) -> None:
        while not self._stopping:
            what = self._random.choices(("single", "batch", "atomic", "capture", "twins"), (10, 3, 3, 3, 1))[0]
            number = self._random.randint(1, {"batch": BATCH_COMMANDS_MAX, "atomic": ATOMIC_COMMANDS_MAX}.get(what, 1))
            atomic = self._new_id("atomic") if what == "atomic" else None
            if what == "capture":
                operations = self._new_capture_with_fee(session)
            else:
                operations = [self._new_operation(session, atomic) for _ in range(number)]
            if what == "twins":
                key = self._new_id("key")
                await asyncio.gather(self._until_told(operations, key), self._until_told(operations, key))
                self.duplicates += 1
            else:
                await self._ask(operations, self._random.random() < 0.7)
            if self._random.random() < 0.5:
                await self._look(session, self._random.choice(operations).account)
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

    async def _until_told(self, operations: list[Operation], key: str) -> None:
        for _ in range(ATTEMPTS_MAX):
            if await self._post(operations, key):
                return
            await asyncio.sleep(self._random.uniform(0, 0.3))

    async def _post(self, operations: list[Operation], key: str | None) -> bool:
        """Send the request to any command service; True when it was acknowledged."""
        path, body = _request(operations)
        headers = {"Content-Type": "application/json", **({"Idempotency-Key": key} if key else {})}
        url = self._random.choice(self._command_urls) + path
        attempt = Attempt(monotonic())
        for operation in operations:
            operation.attempts.append(attempt)
        try:
            async with self._http.post(url, data=io.BytesIO(json.dumps(body).encode()), headers=headers) as response:
                status, answer = response.status, await response.json(content_type=None)
        except (*FAILURES, ValueError):
            return False
        attempt.answered = monotonic()
        answers = answer if isinstance(answer, list) else [answer]
        if len(answers) != len(operations) or "position" not in answers[0]:
            if status != 500:
                attempt.outcome = "refused"
            return False
        attempt.outcome = "acknowledged"
        for operation, told in zip(operations, answers, strict=True):
            if not operation.answers:
                self.acknowledged += 1
            if told not in operation.answers:
                operation.answers.append(told)
            self._see(operation.session, told["position"])
            self._versions[operation.account] = max(self._versions.get(operation.account, 0), told.get("version", 0))
        return True

    async def _look(self, session: int, account: str) -> None:
        """Read the account or the reserves in any projection, or in all at once: they may be at the same position."""
        asked = account if self._random.random() < 0.8 else None
        everywhere = self._random.random() < 0.3
        where = self._projections if everywhere else [self._random.choice(self._projections)]
        await asyncio.gather(*(self._read_as_seen(session, asked, url, views) for url, views in where))

    async def _read_as_seen(self, session: int, account: str | None, url: str, views: str) -> None:
        """As far as the session has seen, or however far the views are."""
        min_position = self._seen[session] if self._random.random() < 0.6 else None
        await self._read(session, account, url, views, min_position, self._random.random() < 0.5)

    async def _read(
        self, session: int, account: str | None, url: str, views: str, min_position: int | None, is_patient: bool
    ) -> None:
        url += "/reserves" if account is None else f"/account/{account}"
        parameters = {} if min_position is None else {"min_position": str(min_position)}
        if is_patient:
            parameters["wait"] = str(WAIT_SECONDS)
        sent = monotonic()
        try:
            async with self._http.get(url, params=parameters) as response:
                body = await response.json(content_type=None)
                answered = monotonic()
                if response.status not in (200, 404):
                    return
                position = int(response.headers["Ledger-Position"])
        except (*FAILURES, ValueError):
            return
        told = body if response.status == 200 else None
        self.history.reads.append(Read(session, views, account, min_position, sent, answered, position, told))
        self._see(session, position)

    def _see(self, session: int, position: int) -> None:
        self._seen[session] = max(self._seen[session], position)

    def _new_operation(self, session: int, atomic: str | None = None) -> Operation:
        random, account = self._random, self._random.choice(self.accounts)
        kind: Kind = random.choices(list(KINDS), list(KINDS.values()))[0]
        amount: int | None = random.randint(1, 1_000)
        match random.randrange(20):
            case 0:
                amount = random.choice([0, -5, 2**63 - 1])
            case 1:
                account = f"nobody-{random.randrange(1000)}"
            case 2:
                account, kind = self._new_id("account"), "create-account"
        payees: Sequence[str] = [*self.accounts, "nobody"]
        if self.history.pool and random.random() < POOL_SHARE:
            payees = self.history.pool.accounts
            kind, account, amount = "transfer", random.choice(payees), random.randint(1, POOL_FUNDS)
        name = self._new_id("command")
        if kind == "set-overdraft-limit":
            # No two are the same, and some are lower than those before them.
            amount = self._number if self._number % 2 else 1_000_000 - self._number
            name = f"limit-{amount}"
        elif kind not in ("deposit", "withdraw", "transfer", "hold", "capture"):
            amount = None
        operation = Operation(name, kind, account, amount, session, atomic=atomic)
        match kind:
            case "create-account" if random.random() < OTHER_ASSET_SHARE:
                operation.asset = OTHER_ASSET
            case "transfer":
                operation.to = random.choice(payees)
            case "hold":
                self._hold(operation)
            case "capture" | "release":
                self._end_hold(operation)
        if random.random() < 0.1:
            operation.if_version = self._versions.get(operation.account, 0)
        if random.random() < 0.2:
            operation.metadata = {"sent as": name}
        self.history.operations.append(operation)
        return operation

    def _new_capture_with_fee(self, session: int) -> list[Operation]:
        """All or nothing: a capture and the transfer of its fee, half of them with the hold that is captured."""
        random, account, atomic = self._random, self._random.choice(self.accounts), self._new_id("atomic")
        capture = Operation(self._new_id("command"), "capture", account, None, session)
        operations = [capture]
        if random.random() < 0.5:
            hold = Operation(self._new_id("command"), "hold", account, random.randint(1, 100), session)
            self._hold(hold)
            operations.insert(0, hold)
        self._end_hold(capture, is_last=len(operations) > 1)
        to = random.choice(self.accounts)
        capture.to = random.choice([None, to])
        operations.append(Operation(self._new_id("command"), "transfer", capture.account, 1, session, to))
        for operation in operations:
            operation.atomic = atomic
        self.history.operations += operations
        return operations

    def _hold(self, operation: Operation) -> None:
        operation.hold_id = f"hold-of-{operation.id}"
        if self._random.random() < 0.7:
            expires = datetime.now(UTC) + timedelta(seconds=self._random.uniform(-0.1, HOLD_SECONDS_MAX))
            operation.expires_at = written(expires)
        for holds in self._holds.values():
            holds.append((operation.account, operation.hold_id))

    def _end_hold(self, operation: Operation, is_last: bool = False) -> None:
        """A hold that was asked for lately or last, or one that there never was; all of it, some, or too much."""
        random, holds = self._random, self._holds[operation.kind]
        operation.hold_id = self._new_id("no-hold")
        if holds:
            number = -1 if is_last else random.randrange(max(0, len(holds) - 50), len(holds))
            operation.account, operation.hold_id = holds.pop(number)
        operation.id = f"{operation.kind}-{operation.hold_id}"
        if operation.kind == "capture":
            operation.amount = random.choice([None, 1, operation.amount])
            operation.to = random.choice([None, *self.accounts])

    def _new_id(self, what: str) -> str:
        self._number += 1
        return f"{what}-{self._number}"


def _request(operations: list[Operation]) -> tuple[str, Any]:
    """A path and a body: a single command goes where single commands go."""
    items = [_item(operation) for operation in operations]
    if operations[0].atomic is not None:
        return "/commands?atomic=true", items
    if len(items) > 1:
        return "/commands", items
    (operation,), (item,) = operations, items
    del item["account_id"], item["type"]
    match operation.kind:
        case "create-account":
            return f"/account/{operation.account}", item
        case "set-overdraft-limit":
            return f"/account/overdraft/{operation.account}", item
        case kind:
            return f"/account/{kind}/{operation.account}", item


def _item(operation: Operation) -> dict[str, object]:
    item: dict[str, object] = {"type": operation.kind, "account_id": operation.account}
    if operation.if_version is not None:
        item["if_version"] = operation.if_version
    if operation.metadata is not None:
        item["metadata"] = operation.metadata
    match operation.kind:
        case "create-account":
            return {**item, "name": operation.id, "asset": operation.asset}
        case "set-overdraft-limit":
            return {**item, "limit": operation.amount}
        case "transfer":
            item["to"] = operation.to
        case "hold":
            more = {"expires_at": operation.expires_at} if operation.expires_at else {}
            item.update(hold_id=operation.hold_id, **more)
        case "capture" | "release":
            asked = {"hold_id": operation.hold_id, "amount": operation.amount, "to": operation.to}
            return item | {name: value for name, value in asked.items() if value is not None}
    amount = {} if operation.amount is None else {"amount": operation.amount}
    return {**item, **amount, "description": operation.id}
