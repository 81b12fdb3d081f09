"""A short run of `make faults`, and the links that it breaks."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.link import Link
from tests.faults.run import survive

SECONDS = 45
FAULTS_MIN = 15
COMMANDS_MIN = 500
COMMANDS_MAX = 30_000
SECONDS_MAX = 240
WHOLE_POOLS_MIN = 20


async def test_the_bank_survives_a_short_run(tmp_path: Path) -> None:
    seed = int(os.environ.get("LEDGER_SEED") or 1)

    def enough(seconds: float, faults: int, acknowledged: int) -> bool:
        return seconds > SECONDS_MAX or (seconds > SECONDS and faults >= FAULTS_MIN and acknowledged >= COMMANDS_MIN)

    report = await survive(tmp_path, seed, enough, COMMANDS_MAX)
    assert report.violations == [], report
    assert report.faults.total() >= FAULTS_MIN, report
    assert report.outcomes["acknowledged"] >= COMMANDS_MIN, report
    assert report.rebuilds, report
    assert report.reads["session"], report
    assert report.reads["again"], report
    assert report.whole_pools >= WHOLE_POOLS_MIN, report


@pytest.fixture
async def link() -> AsyncIterator[Link]:
    """Leads to a server that repeats what it hears, and says goodbye when it hears the end."""

    async def repeat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)
        writer.write(b"goodbye")
        writer.close()

    server = await asyncio.start_server(repeat, "127.0.0.1", 0)
    link = Link(server.sockets[0].getsockname()[1])
    await link.open()
    yield link
    await link.close()
    server.close()
    await server.wait_closed()


async def connect(link: Link) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
    writer.write(b"hello")
    assert await asyncio.wait_for(reader.readexactly(5), 10) == b"hello"
    return reader, writer


async def test_a_cut_link_resets_what_there_is_and_what_comes(link: Link) -> None:
    reader, writer = await connect(link)
    with link.cut():
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(reader.readexactly(1), 10)
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(connect(link), 10)
    writer.close()
    _, writer = await connect(link)
    writer.close()


async def test_a_stalled_link_delivers_late(link: Link) -> None:
    reader, writer = await connect(link)
    with link.stalled():
        writer.write(b"late")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(10), 0.2)
    assert await asyncio.wait_for(reader.readexactly(4), 10) == b"late"
    writer.close()


@pytest.mark.parametrize(("towards_target", "heard"), [(True, b"goodbye"), (False, b"")])
async def test_a_half_closed_link_ends_one_direction(link: Link, towards_target: bool, heard: bytes) -> None:
    reader, writer = await connect(link)
    link.half_close(towards_target)
    assert await asyncio.wait_for(reader.read(), 10) == heard
    writer.close()
