"""The services as processes: settings, start, refusal to start, and a clean end."""

import asyncio
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from command_service.app import CommandSettings
from projection_service.app import ProjectionSettings
from shared.platform.http_transport import Transport
from shared.platform.server import loop_factory
from tests.bank import START_SECONDS, Bank, Service, open_bank
from tests.contract.test_sqlite_files import locked_by_another_program
from tests.http.test_commands import head
from tests.integration.broker import eventually, value_of

MODULES = ["command_service", "projection_service"]


def run_to_its_end(
    module: str, *arguments: str, before: Sequence[str] = (), **environment: object
) -> "subprocess.CompletedProcess[str]":
    """`before` is a command that runs another one."""
    settings = {"PORT": "0", **{name: str(value) for name, value in environment.items()}}
    return subprocess.run(
        [*before, sys.executable, "-m", module, *arguments],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )


@pytest.mark.parametrize(
    ("module", "settings"), [("command_service", CommandSettings), ("projection_service", ProjectionSettings)]
)
def test_help_lists_every_setting_and_the_readme_does_too(module: str, settings: type[CommandSettings]) -> None:
    shown = run_to_its_end(module, "--help")
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert shown.returncode == 0
    for name in settings.model_fields:
        assert f"{name.upper()}:" in shown.stdout
        assert re.search(rf"^\| .*`{name.upper()}`.* \|", readme, re.MULTILINE)


@pytest.mark.parametrize("module", MODULES)
def test_wrong_settings_are_all_named_before_anything_starts(module: str, tmp_path: Path) -> None:
    ended = run_to_its_end(
        module, PORT="http", AMQP_URL="http://127.0.0.1", LOG_LEVEL="loud", DATA_DIR=tmp_path / "data"
    )
    assert ended.returncode == 2
    assert all(name in ended.stderr for name in ("PORT", "AMQP_URL", "LOG_LEVEL"))
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("module", "name"), [("command_service", "QUERY_URL"), ("projection_service", "LEDGER_URL")])
@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://127.0.0.1", "http://", "http://joe:hunter2@127.0.0.1:port"])
def test_an_address_that_is_no_http_address_is_named_and_not_repeated(
    module: str, name: str, url: str, tmp_path: Path
) -> None:
    ended = run_to_its_end(module, DATA_DIR=tmp_path / "data", **{name: url})
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"{name}: ")
    assert "hunter2" not in ended.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("module", MODULES)
def test_a_port_that_is_taken_is_named(module: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        ended = run_to_its_end(module, PORT=port, DATA_DIR=tmp_path)
    assert ended.returncode == 1
    assert f"127.0.0.1:{port}" in ended.stderr
    assert "Traceback" not in ended.stderr


def assert_refused_in_a_sentence(ended: "subprocess.CompletedProcess[str]", *words: str) -> None:
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert all(word in ended.stderr for word in words), ended.stderr


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("name", ["file", "file/data", "closed/data", "closed"])
def test_a_data_folder_that_cannot_be_used_is_named(module: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "closed").mkdir(mode=0o500)
    # Root may write anywhere, unless it gives that up.
    as_user = ["setpriv", "--bounding-set=-all"] if os.geteuid() == 0 else []
    ended = run_to_its_end(module, before=as_user, DATA_DIR=tmp_path / name)
    assert_refused_in_a_sentence(ended, str(tmp_path / name), "Set DATA_DIR")


@pytest.mark.parametrize("module", MODULES)
def test_a_disk_without_room_at_the_start_is_named(module: str, tmp_path: Path) -> None:
    """No file may grow at all, as on a disk without space."""
    full = ["sh", "-c", 'ulimit -f 0; exec "$0" "$@"']
    ended = run_to_its_end(module, before=full, DATA_DIR=tmp_path)
    assert_refused_in_a_sentence(ended, str(tmp_path), "room")


@pytest.mark.parametrize("module", MODULES)
def test_a_lock_file_that_leads_elsewhere_is_not_written_to(module: str, tmp_path: Path) -> None:
    for name in ("ledger", "projection-default"):
        (tmp_path / f"{name}.lock").symlink_to(tmp_path / "diary")
    (tmp_path / "diary").write_text("dear diary")
    assert_refused_in_a_sentence(run_to_its_end(module, DATA_DIR=tmp_path), ".lock is no lock file")
    assert (tmp_path / "diary").read_text() == "dear diary"


async def test_a_service_whose_files_are_removed_stops_and_acknowledges_nothing_after_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with open_bank(tmp_path) as bank:
        for service in (bank.command, bank.projection):
            await service.stop()
            service.environment["DATA_DIR"] = str(data)
            await service.start()
        await bank.create("alice")
        await bank.check_views()
        shutil.rmtree(data)
        for _ in range(3):
            with suppress(aiohttp.ClientError):  # it is gone already
                deposit = bank.http.post(f"{bank.command.url}/account/deposit/alice", json={"amount": 1})
                async with deposit as response:
                    assert response.status >= 500
        for service in (bank.command, bank.projection):
            assert service.process is not None
            assert await asyncio.to_thread(service.process.wait, START_SECONDS) == 1
            assert "was removed while it was open" in service.log.read_text()
            assert "Traceback" not in service.log.read_text()
            await service.start()
        assert (await bank.create("alice"))[1]["position"] == 1


def clean_data(folder: Path) -> "subprocess.CompletedProcess[str]":
    """What `make clean-data` runs, with yes as the answer."""
    return subprocess.run(
        [sys.executable, "-m", "scripts.clean_data"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        input="y\n",
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )


async def test_data_is_not_removed_while_a_service_runs(tmp_path: Path) -> None:
    data = tmp_path / ".data"
    data.mkdir()
    assert "scripts.clean_data" in (Path(__file__).parents[2] / "Makefile").read_text()
    async with open_bank(data) as bank:
        await bank.create("alice")
        await bank.check_views()
        for service in (bank.command, bank.projection):
            refused = await asyncio.to_thread(clean_data, tmp_path)
            assert service.process is not None
            assert refused.returncode == 1
            assert f"process {service.process.pid}" in refused.stderr
            assert "Traceback" not in refused.stderr
            await bank.check_views() if service is bank.command else None
            assert await service.stop() == 0
    assert await asyncio.to_thread(lambda: clean_data(tmp_path).stdout.endswith("Removed.\n"))
    assert not data.exists()


async def test_the_service_is_alive_while_another_program_has_the_lock_of_its_file(tmp_path: Path) -> None:
    async with open_bank(tmp_path) as bank:
        await bank.create("alice")
        await bank.check_views()
        with locked_by_another_program(tmp_path / "ledger.sqlite3"):
            depositing = asyncio.create_task(bank.deposit("alice", 1))
            for _ in range(10):
                async with bank.http.get(bank.command.url + "/livez", timeout=aiohttp.ClientTimeout(1)) as response:
                    assert response.status == 200
            await asyncio.wait([depositing], timeout=0.5)
            assert not depositing.done()
        assert (await depositing)[0] == 200


async def test_a_second_command_service_on_one_file_refuses_to_start_and_says_why(tmp_path: Path) -> None:
    async with open_bank(tmp_path, projections=0) as bank:
        ended = await asyncio.to_thread(run_to_its_end, "command_service", DATA_DIR=tmp_path)
        assert bank.command.process is not None
        assert ended.returncode == 1
        assert f"process {bank.command.process.pid}" in ended.stderr
        assert "DATA_DIR" in ended.stderr
        assert (await bank.create("alice"))[0] == 201


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(("settings", "reachable"), [({}, False), ({"HOST": "0.0.0.0"}, True)])
async def test_without_settings_a_service_listens_on_127_0_0_1_and_nowhere_else(
    module: str, settings: dict[str, str], reachable: bool, tmp_path: Path
) -> None:
    """127.0.0.2 is this machine under another address (on a Mac it is nobody, so there only the first half tells)."""
    service = Service(module, tmp_path / "log", DATA_DIR=str(tmp_path), **settings)
    await service.start()
    try:
        with socket.socket() as client:
            client.settimeout(5)
            refused = client.connect_ex(("127.0.0.2", service.port)) != 0
        assert refused != reachable or sys.platform == "darwin"
        assert ("no users of its own" in service.log.read_text()) == reachable
    finally:
        await service.kill()


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_both_services_with_status_0(tmp_path: Path, signal_number: signal.Signals) -> None:
    async with open_bank(tmp_path) as bank:
        await bank.create("alice")
        await bank.check_views()
        for service in (bank.command, bank.projection):
            assert service.process is not None
            service.process.send_signal(signal_number)
            assert await asyncio.to_thread(service.process.wait, START_SECONDS) == 0
            last = json.loads(service.log.read_text().splitlines()[-1])
            assert last["event"] == "stopped listening"


async def test_what_is_under_way_is_answered_before_the_end(tmp_path: Path) -> None:
    """Commands get their answers, and whoever waits is told at once that it was in vain."""
    async with open_bank(tmp_path) as bank:
        await bank.create("alice")
        await bank.check_views()
        polling = asyncio.create_task(bank.http.get(f"{bank.command.url}/events?after=99999&wait=60"))
        waiting = asyncio.create_task(bank.query("/reserve", min_position=99_999, wait=60))
        batches = [
            asyncio.create_task(
                bank.post("/commands", [{"type": "deposit", "account_id": "alice", "amount": 1}] * 1000)
            )
            for _ in range(8)
        ]
        await asyncio.sleep(0.05)
        async with asyncio.timeout(20):
            assert await bank.command.stop() == 0
            assert await bank.projection.stop() == 0
            assert (await polling).status == 200
            assert (await waiting)[0] == 503
            answers = await asyncio.gather(*batches, return_exceptions=True)
        acknowledged = sum(len(answer[1]) for answer in answers if isinstance(answer, tuple))
        assert all(isinstance(answer, OSError) or answer[0] == 200 for answer in answers)  # type: ignore[index]
        await bank.command.start()
        assert await head(bank) == 1 + acknowledged


async def test_a_command_that_came_whole_is_answered_before_the_end_too(tmp_path: Path) -> None:
    async with open_bank(tmp_path) as bank:
        await bank.create("alice")
        reader, writer = await asyncio.open_connection("127.0.0.1", bank.command.port)
        with locked_by_another_program(tmp_path / "ledger.sqlite3"):
            writer.write(
                b"POST /account/deposit/alice HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                b'Content-Length: 13\r\n\r\n{"amount": 7}'
            )
            await asyncio.sleep(0.1)
            stopping = asyncio.create_task(bank.command.stop())
            await asyncio.wait([stopping], timeout=0.5)
            assert not stopping.done()
        async with asyncio.timeout(20):
            answer = await reader.read()
            assert await stopping == 0
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nconnection: close\r\n" in answer
        writer.close()


async def test_a_client_that_goes_away_before_its_answer_has_its_command_recorded_once(
    bank: Bank, account: str
) -> None:
    body = b'{"amount": 7}'
    request = (
        f"POST /account/deposit/{account} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Idempotency-Key: {account}-gone\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    for _ in range(5):
        _, writer = await asyncio.open_connection("127.0.0.1", bank.command.port)
        writer.write(request)
        await writer.drain()
        writer.transport.abort()
    assert (await bank.deposit(account, 7, key=f"{account}-gone"))[1]["balance"] == 107
    assert (await bank.deposit(account, 1))[1]["version"] == 4


def test_an_answer_to_a_client_that_has_just_gone_is_dropped_without_a_complaint() -> None:
    complaints: list[dict[str, Any]] = []

    async def answer() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, complaint: complaints.append(complaint))
        service, client = socket.socketpair()
        with client:
            transport, _ = await loop.create_unix_connection(asyncio.Protocol, sock=service)
            transport.abort()
            Transport(transport, lambda: False).write(b"HTTP/1.1 200 OK\r\n\r\n")
            for _ in range(3):
                await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(answer())
    assert complaints == []


async def test_the_next_start_goes_on_with_the_same_data(tmp_path: Path) -> None:
    async with open_bank(tmp_path) as bank:
        await bank.create("alice")
        await bank.deposit("alice", 100)
        await bank.check_views()
        assert await bank.command.stop() == 0
        assert await bank.projection.stop() == 0
        await bank.command.start()
        await bank.projection.start()
        status, receipt = await bank.withdraw("alice", 30)
        assert (status, receipt["balance"], receipt["position"]) == (200, 70, 3)
        assert len(await bank.check_views()) == 3


async def test_a_projection_without_its_ledger_answers_queries_and_is_not_ready(tmp_path: Path) -> None:
    async with open_bank(tmp_path) as bank:
        await bank.create("alice")
        await bank.check_views()
        await bank.command.stop()
        await bank.projection.stop()
        await bank.projection.start()
        problem = await bank.projection.wait_for("/readyz", 503)
        assert problem["type"] == "urn:counting-house:problem:not-ready"
        assert await bank.query("/reserve") == (200, {"asset": "USD/2", "amount": 0, "last_updated": None})
        assert (await bank.query("/account/alice"))[0] == 200
        await bank.command.start()
        ready: dict[str, Any] = await bank.projection.wait_for("/readyz")
        assert ready == {"status": "ready", "subscription": "following the feed", "position": 1}


async def test_a_projection_of_another_ledger_stops_and_says_what_to_do(tmp_path: Path) -> None:
    async with open_bank(tmp_path) as bank:
        await bank.create("alice")
        await bank.check_views()
        await bank.command.stop()
        for file in tmp_path.glob("ledger*"):
            file.unlink()
        await bank.command.start()
        await bank.create("bob")
        problem = await bank.projection.wait_for("/readyz", 503)
        assert "PROJECTION_NAME" in problem["detail"]
        assert (await bank.query("/account/alice"))[0] == 200
        assert (await bank.query("/account/bob"))[0] == 404


async def test_a_projection_is_not_moved_back_by_an_older_copy_of_its_ledger(tmp_path: Path) -> None:
    async with open_bank(tmp_path) as bank:
        await bank.create("alice")
        await bank.check_views()
        await bank.command.stop()
        older = (tmp_path / "ledger.sqlite3").read_bytes()
        await bank.command.start()
        await bank.deposit("alice", 100)
        await bank.check_views()
        await bank.command.stop()
        (tmp_path / "ledger.sqlite3").write_bytes(older)
        await bank.command.start()
        problem = await bank.projection.wait_for("/readyz", 503)
        assert "older copy" in problem["detail"]
        assert (await bank.query("/account/alice"))[1]["balance"] == 100


async def test_metrics_say_whether_the_ledger_is_followed(tmp_path: Path) -> None:
    async with open_bank(tmp_path) as bank:

        async def value(metric: str) -> float:
            async with bank.http.get(f"{bank.projection.url}/metrics") as response:
                return value_of(metric, await response.text())

        async def until(metric: str, expected: float) -> None:
            await eventually(lambda: value(metric), lambda found: found == expected, f"{metric} to be {expected}")

        await bank.create("alice")
        await bank.check_views()
        for _ in range(2):
            await until("projection_following", 1)
            await until("projection_lag_events", 0)
            await until("projection_lag_seconds", 0)
            await bank.command.kill()
            await until("projection_following", 0)
            await eventually(lambda: value("projection_head_age_seconds"), lambda age: age > 0.5, "the age to grow")
            assert await value("projection_stopped") == 0
            await bank.command.start()


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/docs", "/openapi.json", "/metrics"])
async def test_both_services_have_the_operators_paths(bank: Bank, path: str) -> None:
    for service in (bank.command, bank.projection):
        async with bank.http.get(service.url + path) as response:
            assert response.status == 200


async def test_metrics_count_what_happened(bank: Bank, account: str) -> None:
    position = await head(bank)
    await bank.query("/reserve", min_position=position)
    for service, metric in [(bank.command, "ledger_head_position"), (bank.projection, "projection_position")]:
        async with bank.http.get(service.url + "/metrics") as response:
            assert f"\n{metric} {float(position)}\n" in await response.text()


def limit_files(service: Service, size: int) -> None:
    """No file of it may grow beyond so many bytes, as on a disk without space: from now on, while it runs."""
    assert service.process is not None
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


async def metrics(bank: Bank, name: str) -> float:
    async with bank.http.get(bank.command.url + "/metrics") as response:
        lines = (await response.text()).splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


async def test_a_command_service_on_a_full_disk_is_not_ready_until_there_is_room_again(tmp_path: Path) -> None:
    async with open_bank(tmp_path, projections=0) as bank:
        await bank.create("alice")
        await bank.command.wait_for("/readyz")
        limit_files(bank.command, (tmp_path / "ledger.sqlite3-wal").stat().st_size)
        assert (await bank.deposit("alice", 1))[0] >= 500
        for _ in range(20):  # through several probes
            problem = await bank.command.wait_for("/readyz", 503)
            assert problem["type"] == "urn:counting-house:problem:not-ready"
            assert "ledger.sqlite3" in problem["detail"] or "commit failed" in problem["detail"]
            await asyncio.sleep(0.1)
        assert await metrics(bank, "ledger_append_failures_total") > 1
        assert await metrics(bank, "ledger_appending") == 0
        limit_files(bank.command, resource.RLIM_INFINITY)
        await bank.command.wait_for("/readyz")
        assert await metrics(bank, "ledger_appending") == 1
        assert (await bank.deposit("alice", 1))[0] == 200


async def test_a_full_disk_refuses_commands_and_loses_none_that_was_acknowledged(tmp_path: Path) -> None:
    """No file of the command service may grow beyond a limit, as on a disk without space."""
    async with open_bank(tmp_path) as bank:
        unlimited = list(bank.command.command_line)
        await bank.command.stop()
        bank.command.command_line = ["sh", "-c", 'ulimit -f 2000; exec "$0" "$@"', *unlimited]
        await bank.command.start()
        await bank.create("alice")
        acknowledged = 1
        refused: list[tuple[int, str]] = []
        while len(refused) < 5:
            batch = [{"type": "deposit", "account_id": "alice", "amount": 1}] * 100
            status, answer = await bank.post("/commands", batch)
            if status == 200:
                acknowledged += len(answer)
                assert acknowledged < 100_000
            else:
                refused.append((status, answer["detail"]))
        assert {status for status, _ in refused} <= {500, 503}
        assert await head(bank) == acknowledged
        await bank.command.stop()
        bank.command.command_line = unlimited
        await bank.command.start()
        assert await head(bank) == acknowledged
        assert (await bank.deposit("alice", 1))[1]["balance"] == acknowledged
        await bank.check_views()
