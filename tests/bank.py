"""Starts the real services as processes, and reads from outside what they hold."""

import asyncio
import io
import itertools
import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from scripts.ports import free_ports

START_SECONDS = 30
STOP_SECONDS = 30
VISIBLE_SECONDS = 30


class Service:
    """One service process, on the same port and data each time it is started."""

    def __init__(self, module: str, log: Path, **environment: str) -> None:
        self.command_line = [sys.executable, "-m", module]
        self.log = log
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        inherited = {name: value for name, value in os.environ.items() if name not in ("AMQP_URL", "DATABASE_URL")}
        self.environment = {**inherited, **environment, "PORT": str(self.port), "LOG_FORMAT": "json"}
        self.process: subprocess.Popen[bytes] | None = None

    def spawn(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command_line, env=self.environment, stderr=log)

    async def start(self) -> None:
        """Start it and wait until it answers. Raises `RuntimeError` with its log when it ends instead."""
        self.spawn()
        await self.wait_for("/livez")

    async def wait_for(self, path: str, status: int = 200) -> dict[str, Any]:
        """Ask until `path` answers with `status`; the answer."""
        assert self.process is not None
        async with asyncio.timeout(START_SECONDS), aiohttp.ClientSession() as http:
            while True:
                if self.process.poll() is not None:
                    raise RuntimeError(
                        f"ended with {self.process.returncode}: {self.command_line}\n{self.log.read_text()}"
                    )
                try:
                    async with http.get(self.url + path) as response:
                        if response.status == status:
                            answer: dict[str, Any] = await response.json(content_type=None)
                            return answer
                except aiohttp.ClientConnectionError:
                    pass
                await asyncio.sleep(0.02)

    async def stop(self) -> int:
        """SIGTERM; the exit status."""
        return await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """SIGKILL: nothing in the process gets a chance."""
        await self._end(signal.SIGKILL)

    async def _end(self, signal_number: int) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(signal_number)
        status = await asyncio.to_thread(self.process.wait, STOP_SECONDS)
        self.process = None
        return status


class Bank:
    """Command services with projection services, and a client's view of them.

    Several command services need a database; what is asked of `command` goes to the first one.
    """

    def __init__(
        self,
        folder: Path,
        http: aiohttp.ClientSession,
        amqp_url: str | None,
        projections: int,
        database_url: str | None = None,
        replicas: int = 1,
    ) -> None:
        self.folder = folder
        self.http = http
        outside = {"DATA_DIR": str(folder)}
        if amqp_url:
            outside["AMQP_URL"] = amqp_url
        if database_url:
            outside["DATABASE_URL"] = database_url
        self.commands = [
            Service("command_service", folder / f"command-{number}.log", **outside) for number in range(replicas)
        ]
        self.projections = [
            Service(
                "projection_service",
                folder / f"projection-{number}.log",
                LEDGER_URL=self.command.url,
                PROJECTION_NAME=f"test-{folder.name}-{number}",
                **outside,
            )
            for number in range(projections)
        ]
        for command, projection in itertools.product(self.commands, self.projections):
            command.environment["QUERY_URL"] = projection.url

    @property
    def command(self) -> Service:
        return self.commands[0]

    @property
    def projection(self) -> Service:
        return self.projections[0]

    async def post(
        self, path: str, body: object, key: str | None = None, replica: Service | None = None
    ) -> tuple[int, Any]:
        headers = {"Content-Type": "application/json", **({"Idempotency-Key": key} if key else {})}
        data = io.BytesIO(json.dumps(body).encode())  # aiohttp warns of large bodies given as they are
        async with self.http.post((replica or self.command).url + path, data=data, headers=headers) as response:
            return response.status, await response.json(content_type=None)

    async def create(self, account_id: str, name: str = "Alice") -> tuple[int, dict[str, Any]]:
        return await self.post(f"/account/{account_id}", {"name": name})

    async def deposit(self, account_id: str, amount: int, key: str | None = None) -> tuple[int, dict[str, Any]]:
        return await self.post(f"/account/deposit/{account_id}", {"amount": amount}, key)

    async def withdraw(self, account_id: str, amount: int, key: str | None = None) -> tuple[int, dict[str, Any]]:
        return await self.post(f"/account/withdraw/{account_id}", {"amount": amount}, key)

    async def query(self, path: str, projection: Service | None = None, **parameters: object) -> tuple[int, Any]:
        url = (projection or self.projection).url + path
        params = {name: str(value) for name, value in parameters.items()}
        async with self.http.get(url, params=params) as response:
            return response.status, await response.json(content_type=None)

    async def log(self) -> list[dict[str, Any]]:
        return await read_log(self.http, self.command)

    async def check_views(self) -> list[dict[str, Any]]:
        """Assert that the log is sound and that every projection equals its fold; the log."""
        events = await self.log()
        balances = fold(events)
        for projection in self.projections:
            wait = {"min_position": len(events), "wait": VISIBLE_SECONDS}
            status, found = await self.query("/reserves", projection, **wait)
            assert status == 200, projection.log.read_text()
            assert {reserve["asset"]: reserve["amount"] for reserve in found} == reserves(events)
            for account_id, balance in balances.items():
                status, account = await self.query(f"/account/{account_id}", projection)
                assert (status, account["balance"]) == (200, balance)
        return events


async def read_log(http: aiohttp.ClientSession, command: Service) -> list[dict[str, Any]]:
    """Every event in the log, from the feed."""
    events: list[dict[str, Any]] = []
    while True:
        parameters = {"after": str(len(events)), "limit": "10000"}
        async with http.get(f"{command.url}/events", params=parameters) as response:
            events += await response.json(content_type=None)
            if len(events) >= int(response.headers["Ledger-Position"]):
                return events


def fold(events: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Balances by account, written down again here so that the services are not checked against themselves.

    Asserts that positions and versions have no hole, that no balance is ever below its limit and what is held, and that
    each hold ends once at most, and in time.
    """
    balances: dict[str, int] = {}
    limits: dict[str, int] = {}
    held: dict[str, int] = defaultdict(int)
    holds: dict[tuple[str, str], dict[str, Any]] = {}
    versions: dict[str, int] = {}
    for position, event in enumerate(events, 1):
        account = event["subject"]
        assert int(event["sequence"]) == position
        assert event["accountversion"] == versions.get(account, 0) + 1
        versions[account] = event["accountversion"]
        if "counterpart" in event:
            assert event["counterpartversion"] == versions[event["counterpart"]] + 1
            versions[event["counterpart"]] = event["counterpartversion"]
        match event["type"]:
            case "account-created":
                assert account not in balances
                balances[account] = 0
            case "amount-deposited":
                balances[account] += event["data"]["amount"]
            case "amount-withdrawn":
                balances[account] -= event["data"]["amount"]
            case "money-transferred":
                assert event["counterpart"] == event["data"]["to"] != account
                balances[account] -= event["data"]["amount"]
                balances[event["counterpart"]] += event["data"]["amount"]
            case "hold-placed":
                assert (account, event["data"]["hold_id"]) not in holds
                assert event["time"] < event["data"].get("expires_at", "9999")
                holds[account, event["data"]["hold_id"]] = event["data"]
                held[account] += event["data"]["amount"]
            case "hold-released" | "hold-expired" | "hold-captured":
                hold = holds.pop((account, event["data"]["hold_id"]))
                held[account] -= hold["amount"]
                is_due = hold.get("expires_at", "9999") <= event["time"]
                assert is_due == (event["type"] == "hold-expired")
                assert hold["amount"] == event["data"]["amount"] + event["data"].get("released", 0)
                assert event.get("counterpart") == event["data"].get("to") != account
                if event["type"] == "hold-captured":
                    balances[account] -= event["data"]["amount"]
                if "to" in event["data"]:
                    balances[event["counterpart"]] += event["data"]["amount"]
            case "overdraft-limit-set":
                limits[account] = event["data"]["limit"]
        assert balances.get(account, 0) - held[account] >= -limits.get(account, 0)
    return balances


def reserves(events: Sequence[dict[str, Any]]) -> dict[str, int]:
    """The sum of all balances of each asset."""
    balances, sums = fold(events), {"USD/2": 0}
    for event in events:
        if event["type"] == "account-created":
            asset = event["data"].get("asset", "USD/2")
            sums[asset] = sums.get(asset, 0) + balances[event["subject"]]
    return sums


@asynccontextmanager
async def open_bank(
    folder: Path,
    amqp_url: str | None = None,
    projections: int = 1,
    database_url: str | None = None,
    replicas: int = 1,
) -> AsyncIterator[Bank]:
    """A bank that runs, with its data in `folder` or at `database_url`; ended with everything in it when the
    block is left."""
    async with aiohttp.ClientSession() as http:
        bank = Bank(folder, http, amqp_url, projections, database_url, replicas)
        services = [*bank.commands, *bank.projections]
        try:
            await asyncio.gather(*(service.start() for service in services))
            yield bank
        finally:
            await asyncio.gather(*(service.kill() for service in services))
