"""Rebuilds beside services that run, as processes, on SQLite and on PostgreSQL."""

import asyncio
import os
import pty
import re
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from projection_service.views import VIEWS
from scripts.postgres import PostgresCluster
from tests.bank import STOP_SECONDS, VISIBLE_SECONDS, Bank, open_bank
from tests.http.test_process import limit_files
from tests.integration.load import ACCOUNTS, load, seeded

OpenBank = Callable[[], AbstractAsyncContextManager[Bank]]
FILLING = [{"type": "create-account", "account_id": ACCOUNTS[0], "name": "Alice"}] * 5000
"""Rejected, once it is there."""


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "sqlite" else str(request.getfixturevalue("database_url"))


@pytest.fixture
async def bank(tmp_path: Path, database: str | None) -> AsyncIterator[Bank]:
    async with open_bank(tmp_path, database_url=database) as bank:
        yield bank


class Rebuild:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""

    async def until(self, words: str) -> None:
        """It has said a line with `words` in it."""
        assert self.process.stderr is not None
        async with asyncio.timeout(VISIBLE_SECONDS):
            while words not in self.said:
                line = await self.process.stderr.readline()
                assert line, self.said
                self.said += line.decode()

    async def end(self) -> int:
        async with asyncio.timeout(90):
            _, rest = await self.process.communicate()
        self.said += rest.decode()
        assert self.process.returncode is not None
        return self.process.returncode


async def begin(bank: Bank, *arguments: str, **environment: str) -> Rebuild:
    command_line = [sys.executable, "-m", "projection_service", "rebuild", *arguments]
    environment = {**bank.projection.environment, **environment}
    return Rebuild(await asyncio.create_subprocess_exec(*command_line, env=environment, stderr=asyncio.subprocess.PIPE))


async def rebuilt(bank: Bank, *arguments: str, **environment: str) -> str:
    """What it said when it has come to its end."""
    rebuild = await begin(bank, *arguments, **environment)
    assert await rebuild.end() == 0, rebuild.said
    assert "in use from position" in rebuild.said
    assert not list(bank.folder.glob("rebuild*"))
    return rebuild.said


@asynccontextmanager
async def readers(bank: Bank) -> AsyncIterator[None]:
    """Inside, queries of all views are asked, and all are answered, and none goes back."""

    async def ask(path: str) -> None:
        position = 0
        while True:
            async with bank.http.get(bank.projection.url + path) as response:
                assert response.status == 200, await response.text()
                assert int(response.headers["Ledger-Position"]) >= position
                position = int(response.headers["Ledger-Position"])
            await asyncio.sleep(0.005)

    paths = ["/reserve", "/reserves", *(f"/account/{ACCOUNTS[0]}{rest}" for rest in ("", "/holds", "/events?limit=10"))]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(path)) for path in paths]
        yield
        for task in tasks:
            task.cancel()


@asynccontextmanager
async def locked_views(bank: Bank) -> AsyncIterator[None]:
    """Inside, neither the service nor a rebuild can get hold of them; queries are answered."""
    name = bank.projection.environment["PROJECTION_NAME"]
    if (url := bank.projection.environment.get("DATABASE_URL")) is None:
        path = bank.folder / f"projection-{name}.sqlite3"
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
    else:
        connection = await asyncpg.connect(url)
        try:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(f'LOCK TABLE "projection_{name}".checkpoint IN ROW EXCLUSIVE MODE')
            yield
        finally:
            await connection.close()


async def test_views_are_rebuilt_under_load_while_every_query_is_answered(bank: Bank) -> None:
    process = bank.projection.process
    async with readers_after_accounts(bank) as clients:
        said = await rebuilt(bank)
        assert f"those in use were right: {', '.join(VIEWS)}" in said
        await clients.go_on(50)
        await rebuilt(bank, "--views", "history")
        await clients.go_on(50)
        assert bank.projection.process is process
        assert process is not None
        assert process.poll() is None


@asynccontextmanager
async def readers_after_accounts(bank: Bank) -> AsyncIterator[Any]:
    async with load(bank) as clients:
        for _ in range(4):
            assert (await bank.post("/commands", FILLING))[0] == 200
        async with readers(bank):
            yield clients


async def test_a_rebuild_that_is_killed_at_any_moment_does_no_harm_and_is_gone_on_with(bank: Bank) -> None:
    random = seeded()
    async with readers_after_accounts(bank):
        for _ in range(5):
            rebuild = await begin(bank)
            await rebuild.until("building")
            await asyncio.sleep(random.uniform(0, 1))
            if rebuild.process.returncode is None:
                rebuild.process.kill()
            await rebuild.end()
        await rebuilt(bank)


@pytest.mark.parametrize(
    ("signal_number", "of_sigint"),
    [
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.default_int_handler),
        # As a shell starts what is in its background.
        (signal.SIGTERM, signal.SIG_IGN),
    ],
)
async def test_a_rebuild_that_is_interrupted_says_how_to_go_on(
    bank: Bank, signal_number: signal.Signals, of_sigint: signal.Handlers
) -> None:
    await bank.create(ACCOUNTS[0])
    await bank.post("/commands", FILLING)
    await bank.check_views()
    async with locked_views(bank):
        before = signal.signal(signal.SIGINT, of_sigint)
        rebuild = await begin(bank)
        signal.signal(signal.SIGINT, before)
        await rebuild.until("waiting: ")
        second = await begin(bank)
        assert await second.end() == 1
        assert "already. Wait for its end, or stop it." in second.said
        rebuild.process.send_signal(signal_number)
        assert await rebuild.end() == 130
        assert "The same command goes on from here" in rebuild.said
        assert "Traceback" not in rebuild.said
    assert "going on from position 5001" in await rebuilt(bank)
    await bank.check_views()


def read_to_its_end(terminal: int) -> str:
    shown = b""
    with suppress(OSError), open(terminal, "rb", buffering=0) as output:  # it fails when nobody writes to it any more
        while piece := output.read(65536):
            shown += piece
    return shown.decode()


async def test_on_a_terminal_it_shows_how_far_it_is_and_how_fast(bank: Bank) -> None:
    await bank.create(ACCOUNTS[0])
    await bank.post("/commands", FILLING)
    await bank.check_views()
    terminal, end = pty.openpty()
    command_line = [sys.executable, "-m", "projection_service", "rebuild"]
    environment = {**bank.projection.environment, "TERM": "xterm", "COLUMNS": "120"}
    process = await asyncio.create_subprocess_exec(*command_line, env=environment, stderr=end)
    os.close(end)
    shown = await asyncio.to_thread(read_to_its_end, terminal)
    assert await process.wait() == 0
    assert re.search(r"position 5,001 of 5,001 [1-9][\d,]* events/s, 0:00:00 to go", shown), shown
    assert "in use from position 5001 on" in shown


async def test_a_rebuild_needs_no_service(bank: Bank) -> None:
    await bank.create("alice")
    await bank.deposit("alice", 5)
    await bank.check_views()
    await bank.projection.stop()
    await bank.deposit("alice", 7)
    assert "in use from position 2 on" in await rebuilt(bank)
    await bank.projection.start()
    await bank.check_views()


async def test_a_view_that_was_not_kept_is_built_beside_the_service_without_it(
    tmp_path: Path, database: str | None
) -> None:
    async with open_bank(tmp_path, database_url=database) as bank:
        await bank.create("alice")
        await bank.deposit("alice", 5)
        await bank.check_views()
        # Its views are fewer from the start.
        projection = bank.projection
        await projection.stop()
        projection.environment |= {"PROJECTION_NAME": "fewer", "PROJECTION_VIEWS": "accounts,reserve"}
        await projection.start()
        await bank.check_views()
        refused = await begin(bank, "--views", "history")
        assert await refused.end() == 2
        assert "PROJECTION_VIEWS is accounts,reserve" in refused.said
        missing = VIEWS.keys() - {"accounts", "reserve"}
        await rebuilt(bank, "--views", ",".join(missing), PROJECTION_VIEWS="all")
        assert projection.process is not None
        assert await asyncio.to_thread(projection.process.wait, STOP_SECONDS) == 1
        assert "has opened or rebuilt them" in projection.log.read_text()
        projection.environment["PROJECTION_VIEWS"] = "all"
        await projection.start()
        await bank.check_views()
        status, events = await bank.query("/account/alice/events", min_position=2)
        assert (status, len(events)) == (200, 2)


async def test_where_no_service_has_been_yet_there_is_nothing_to_rebuild(bank: Bank) -> None:
    rebuild = await begin(bank, PROJECTION_NAME="never")
    assert await rebuild.end() == 1
    assert "start the service" in rebuild.said
    assert not list(bank.folder.glob("*never*"))


async def test_another_ledger_behind_the_address_builds_nothing(bank: Bank, tmp_path_factory: Any) -> None:
    await bank.create("alice")
    await bank.check_views()
    async with open_bank(tmp_path_factory.mktemp("other"), projections=0) as other:
        rebuild = await begin(bank, LEDGER_URL=other.command.url)
        assert await rebuild.end() == 1
        assert "Set LEDGER_URL to the right command service" in rebuild.said
    rebuild = await begin(bank, LEDGER_URL=other.command.url)
    assert await rebuild.end() == 1
    assert "cannot connect" in rebuild.said
    await bank.check_views()


async def test_a_disk_without_room_for_the_copy_leaves_the_views_in_use(tmp_path: Path) -> None:
    async with open_bank(tmp_path) as bank:
        await bank.create("alice")
        for _ in range(10):  # a commit each, so that the -wal is larger than that of the new views will be
            await bank.deposit("alice", 1)
            await bank.check_views()
        log = tmp_path / f"projection-{bank.projection.environment['PROJECTION_NAME']}.sqlite3-wal"
        rebuild = await begin(bank)
        limit_files(Limited(rebuild.process.pid), log.stat().st_size)  # type: ignore[arg-type]
        assert await rebuild.end() == 1
        assert "cannot go on: " in rebuild.said
        assert log.name.removesuffix("-wal") in rebuild.said
        await bank.deposit("alice", 1)
        await bank.check_views()
        assert "going on from position 11" in await rebuilt(bank)
        await bank.check_views()


class Limited:
    """What `limit_files` looks at."""

    def __init__(self, pid: int) -> None:
        self.process = self
        self.pid = pid


async def test_a_rebuild_waits_for_a_database_that_restarts(tmp_path: Path, primary: PostgresCluster) -> None:
    async with open_bank(tmp_path, database_url=primary.url(primary.create_database())) as bank:
        await bank.create(ACCOUNTS[0])
        await bank.post("/commands", FILLING)
        await bank.check_views()
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(locked_views(bank))
            rebuild = await begin(bank)
            await rebuild.until("waiting: ")
            await asyncio.to_thread(primary.kill)
            await rebuild.until("Connect")
            await asyncio.to_thread(primary.start)
        assert await rebuild.end() == 0, rebuild.said
        await bank.check_views()
