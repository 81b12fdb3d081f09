"""A feed that lies, now and then: the projection says so, and is right again once the feed is."""

import asyncio
import json
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import aiohttp

from tests.bank import Bank, open_bank
from tests.fuzz.mutation import deep, encode, mutate, mutate_bytes
from tests.fuzz.oracle import read_log_files
from tests.fuzz.requests import ACCOUNTS
from tests.fuzz.run import memory_mib

BOMB_MIB = 256
ENDLESS_BYTES = 256 * 1024 * 1024
MEMORY_GROWTH_MAX_MIB = 192
"""At most at any time: a page may be large, but it has an end."""
SOME_SECONDS = 0.2
POSITIONS = ("x", "-1", "1.5", "", "9" * 30, "NaN", "\u00b2", " 1 1", "0", "1e3")
STATUSES = (
    "204 No Content",
    "301 Moved",
    "302 Found",
    "307 Temporary",
    "404 Not Found",
    "429 Slow",
    "500 Oh",
    "206 Part",
    "999 X",
)


class LyingFeed:
    """Stands before the command service. Lie number n of a seed is the same each time."""

    def __init__(self, url: str, seed: int) -> None:
        self._url = url
        self._seed = seed
        self._bomb: bytes | None = None
        self.lies = 0
        self.is_honest = True
        self.followed: list[str] = []
        """Where redirects led somebody to."""

    async def open(self) -> None:
        self._http = aiohttp.ClientSession()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        self._server.close()
        await self._http.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, aiohttp.ClientError):
            while True:
                target = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
                if not target.startswith("/events"):
                    self.followed.append(target)
                page, headers = await self._page(target)
                # A long poll that found nothing is nothing to lie about.
                if self.is_honest or (page == b"[]" and self.lies % 2):
                    writer.write(head("200 OK", {**headers, "Content-Length": str(len(page))}) + page)
                    await writer.drain()
                    continue
                random = Random(f"{self._seed}-feed-{self.lies}")
                self.lies += 1
                await self._lie(writer, page, headers, random)
                break
        writer.transport.abort()

    async def _page(self, target: str) -> tuple[bytes, dict[str, str]]:
        async with self._http.get(self._url + target) as response:
            headers = {name.title(): value for name, value in response.headers.items()}
            return await response.read(), {name: headers[name] for name in headers if name.startswith("Ledger-")}

    async def _lie(self, writer: asyncio.StreamWriter, page: bytes, headers: dict[str, str], random: Random) -> None:
        status, encoding = "200 OK", {}
        match random.randrange(10):
            case 0:
                status, encoding = random.choice(STATUSES), {"Location": f"{self.url}/elsewhere"}
            case 1:
                headers = {**headers, "Ledger-Position": random.choice(POSITIONS)}
            case 2:
                headers = {name: value for name, value in headers.items() if random.random() < 0.5}
            case 3:
                page, encoding = self._gzip_bomb(), {"Content-Encoding": "gzip"}
            case 4:
                await self._send_without_end(writer, headers)
                return
            case 5:
                page, encoding = random.choice([b"junk", b""]), {"Content-Encoding": random.choice(["gzip", "br", "x"])}
            case 6:
                await asyncio.sleep(SOME_SECONDS)
                return
            case 7:
                headers = {**headers, random.choice(["X-Long", "Ledger-Source"]): "x" * 100_000}
            case _:
                page = changed(page, random)
        length = random.choice([len(page)] * 8 + [len(page) + 100, max(0, len(page) - 5)])
        writer.write(head(status, {**headers, **encoding, "Content-Length": str(length)}) + page)
        await writer.drain()
        await asyncio.sleep(0.01)

    def _gzip_bomb(self) -> bytes:
        if self._bomb is None:
            packer = zlib.compressobj(9, zlib.DEFLATED, 31)
            self._bomb = b"".join(packer.compress(b" " * 1024 * 1024) for _ in range(BOMB_MIB)) + packer.flush()
        return self._bomb

    async def _send_without_end(self, writer: asyncio.StreamWriter, headers: dict[str, str]) -> None:
        writer.write(head("200 OK", {**headers, "Transfer-Encoding": "chunked"}))
        for _ in range(ENDLESS_BYTES // 2**20):
            writer.write(b"100000\r\n" + b" " * 2**20 + b"\r\n")
            await writer.drain()


def head(status: str, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def changed(page: bytes, random: Random) -> bytes:
    """What becomes of a page on its way. Its signature stays: so nobody has to believe it."""
    events = json.loads(page)
    match random.randrange(5):
        case 0:
            return encode([mutate(event, random) for event in events[:5]], random)
        case 1:
            return bytes(deep(random))
        case 2:
            return json.dumps(events[1:]).encode()
        case 3:
            return page.replace(b'"amount":5', b'"amount":%d' % random.randrange(1, 1000))
        case _:
            return mutate_bytes(page, random)


async def fuzz_feed(folder: Path, seed: int, enough: Callable[[int], bool]) -> list[str]:
    """Tell the lies of `seed` until `enough` of them; what is wrong afterwards."""
    async with open_bank(folder, projections=1) as bank:
        feed = LyingFeed(bank.command.url, seed)
        await feed.open()
        try:
            await bank.projection.stop()
            bank.projection.environment["LEDGER_URL"] = feed.url
            await bank.projection.start()
            for account in ACCOUNTS:
                await bank.create(account)
            await bank.projection.wait_for("/readyz")
            before = memory_mib(bank.projection)
            peak = before
            feed.is_honest = False
            while not enough(feed.lies):
                await bank.deposit(ACCOUNTS[0], 5)
                await asyncio.sleep(SOME_SECONDS)
                peak = max(peak, memory_mib(bank.projection, "VmHWM"))
                await restart_if_stopped(bank)
            feed.is_honest = True
            wrong = await check(bank, feed)
            if peak > before + MEMORY_GROWTH_MAX_MIB:
                wrong.append(f"the projection's memory grew from {before:.0f} to {peak:.0f} MiB")
            return [f"seed {seed}, {feed.lies} lies: {found}" for found in wrong]
        finally:
            await feed.close()


async def restart_if_stopped(bank: Bank) -> None:
    """A projection stops when it is told that the log ends before its views, and goes on when it is started again."""
    async with bank.http.get(f"{bank.projection.url}/readyz") as response:
        detail = (await response.json(content_type=None)).get("detail", "")
        assert response.status == (503 if detail else 200)
    if "stopped" in detail:
        assert "but the log ends at" in detail or "belong to the ledger" in detail, detail
        await bank.projection.stop()
        await bank.projection.start()


async def check(bank: Bank, feed: LyingFeed) -> list[str]:
    """What is wrong with the projection, now that it hears the truth."""
    wrong = [f"redirects were followed to {feed.followed[:3]}"] if feed.followed else []
    try:
        await restart_if_stopped(bank)
        await bank.projection.wait_for("/readyz")
        await bank.check_views()
    except (AssertionError, TimeoutError, RuntimeError) as error:
        wrong.append(repr(error))
    return wrong + read_log_files(bank.projection.log)
