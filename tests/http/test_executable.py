"""`make dist`: the one-file executable, run outside of the source tree."""

import asyncio
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from tests.bank import Bank

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def executable() -> Path:
    subprocess.run(["make", "--silent", "dist"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert list((ROOT / "dist").glob("counting_house-*.whl"))
    return ROOT / "dist" / "counting-house.pyz"


async def test_both_services_run_from_the_executable(executable: Path, tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as http:
        bank = Bank(tmp_path, http, amqp_url=None, projections=1)
        services = {"command-service": bank.command, "projection-service": bank.projection}
        try:
            for name, service in services.items():
                # Isolated from the folder and the packages of this environment.
                service.command_line = [sys.executable, "-IS", str(executable), name]
                service.environment["SHIV_ROOT"] = str(tmp_path / "unpacked")
                await service.start()
                async with http.get(f"{service.url}/docs/swagger-ui-bundle.js") as response:
                    assert response.status == 200
            for path in ("/", "/dashboard/views/account.js", "/dashboard/uplot/uPlot.iife.min.js"):
                async with http.get(bank.projection.url + path) as response:
                    assert response.status == 200
            assert (await bank.create("alice"))[0] == 201
            assert (await bank.deposit("alice", 1250))[0] == 200
            assert len(await bank.check_views()) == 2
            assert [await service.stop() for service in services.values()] == [0, 0]
        finally:
            await asyncio.gather(*(service.kill() for service in services.values()))


@pytest.mark.parametrize(("arguments", "status"), [(["--help"], 0), (["--version"], 0), ([], 2), (["dashboard"], 2)])
def test_the_executable_says_how_it_is_used(
    executable: Path, tmp_path: Path, arguments: list[str], status: int
) -> None:
    ended = subprocess.run(
        [sys.executable, "-IS", str(executable), *arguments],
        env={"SHIV_ROOT": str(tmp_path / "unpacked"), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == status, ended.stderr
    assert "command-service" in ended.stdout + ended.stderr or ended.stdout == "0.1.0\n"
