"""The feed: pages, limits, long poll, proofs."""

import asyncio
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from shared.zstd import zstd
from tests.bank import Bank, open_bank
from tests.http.test_commands import head
from tests.integration.broker import encoded

EVENT = {
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "sequence",
    "accountversion",
    "commandid",
    "data",
}


async def read(bank: Bank, **parameters: object) -> tuple[list[dict[str, Any]], int]:
    """The page's events and its Ledger-Position."""
    query = {name: str(value) for name, value in parameters.items()}
    headers = {"Accept-Encoding": "identity"}
    async with bank.http.get(f"{bank.command.url}/events", params=query, headers=headers) as response:
        assert response.status == 200
        assert response.content_type == "application/cloudevents-batch+json"
        assert response.headers["Vary"] == "Accept-Encoding"
        return await response.json(content_type=None), int(response.headers["Ledger-Position"])


async def test_events_are_cloudevents_in_the_order_of_their_positions(bank: Bank, account: str) -> None:
    await bank.withdraw(account, 1000)
    after = await head(bank) - 3
    events, position = await read(bank, after=after)
    assert position == after + 3
    assert [event.keys() for event in events] == [EVENT] * 3
    assert [event["sequence"] for event in events] == [f"{after + n:020d}" for n in (1, 2, 3)]
    assert [event["accountversion"] for event in events] == [1, 2, 3]
    assert {event["subject"] for event in events} == {account}
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)
    assert len({event["source"] for event in events}) == 1
    assert len({event["id"] for event in events}) == 3


async def test_the_feed_is_read_page_by_page_without_a_hole(bank: Bank, account: str) -> None:
    await bank.post("/commands", [{"type": "deposit", "account_id": account, "amount": 1}] * 25)
    last = await head(bank)
    after, pages = last - 27, []
    while after < last:
        page, position = await read(bank, after=after, limit=10)
        assert position == last
        pages.append(len(page))
        after += len(page)
    assert pages == [10, 10, 7]


async def test_a_page_is_the_same_compressed(bank: Bank, account: str) -> None:
    """It ends where it is asked to, wherever that is in what lies compressed together."""
    for events in (1, 300, 2, 25, 1):
        await bank.post("/commands", [{"type": "deposit", "account_id": account, "amount": 1}] * events)
    last, encodings = await head(bank), Counter[str | None]()
    for after in range(last - 330, last + 1, 7):
        for limit in (0, 1, 2, 127, 129, 200, 10_000):
            plain, packed = [await answered(bank, after, limit, accepted) for accepted in ("identity", "gzip, zstd")]
            assert json.loads(packed.body) == json.loads(plain.body)
            assert packed.headers == plain.headers
            encodings[packed.encoding] += 1
            assert plain.encoding is None
    assert encodings["zstd"] > encodings[None] > 0


@pytest.mark.parametrize("accepted", ["", "identity", "gzip, br", "zstd;q=0", "zstd;q=0.0, *", "zstd;q=x", "xzstd"])
async def test_who_does_not_ask_for_compression_is_sent_none(bank: Bank, account: str, accepted: str) -> None:
    assert (await answered(bank, 0, 1000, accepted)).encoding is None


@dataclass(frozen=True)
class Answered:
    body: bytes
    encoding: str | None
    headers: dict[str, str]


async def answered(bank: Bank, after: int, limit: int, accepted: str) -> Answered:
    """With what is signed, and the body as it was before it was compressed."""
    url = f"{bank.command.url}/events?after={after}&limit={limit}"
    async with bank.http.get(url, headers={"Accept-Encoding": accepted}, auto_decompress=False) as response:
        assert response.status == 200
        body, encoding = await response.read(), response.headers.get("Content-Encoding")
        told = {name: value for name, value in response.headers.items() if name.startswith("Ledger-")}
        return Answered(zstd.decompress(body) if encoding == "zstd" else body, encoding, told)


async def test_a_page_is_limited_in_bytes_but_never_empty(bank: Bank, account: str) -> None:
    item = {"type": "deposit", "account_id": account, "amount": 1, "description": "x" * 1000}
    await bank.post("/commands", [item] * 1500)
    page, position = await read(bank, after=await head(bank) - 1500, limit=10_000)
    assert 250 < len(page) < 500
    assert position == await head(bank)


async def test_the_feed_after_the_last_event_is_empty(bank: Bank, account: str) -> None:
    last = await head(bank)
    assert await read(bank, after=last) == ([], last)
    assert await read(bank, after=last + 100, wait=0.01) == ([], last)


async def test_the_feed_waits_for_the_next_event(bank: Bank, account: str) -> None:
    last = await head(bank)
    waiting = [asyncio.create_task(read(bank, after=last, wait=60)) for _ in range(20)]
    await asyncio.sleep(0.2)
    assert not any(task.done() for task in waiting)
    await bank.deposit(account, 1)
    async with asyncio.timeout(20):
        pages = await asyncio.gather(*waiting)
    assert {(position, events[0]["type"]) for events, position in pages} == {(last + 1, "amount-deposited")}


async def test_the_feed_waits_no_longer_than_it_is_asked_to(bank: Bank, account: str) -> None:
    last = await head(bank)
    started = time.monotonic()
    assert await read(bank, after=last, wait=0.3) == ([], last)
    assert time.monotonic() - started >= 0.3


@dataclass(frozen=True)
class Signed:
    """A page's bytes, its events, and what the ledger signs for it."""

    body: bytes
    source: str
    chain: str
    signature: str
    key: str
    head: int

    @property
    def events(self) -> list[bytes]:
        return [encoded(event) for event in json.loads(self.body)]

    def verify(self, position: int) -> None:
        """Raises `InvalidSignature`."""
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.key))
        key.verify(bytes.fromhex(self.signature), f"{self.source}\n{position}\n{self.chain}".encode())


async def signed(bank: Bank, **parameters: object) -> Signed:
    query = {name: str(value) for name, value in parameters.items()}
    async with bank.http.get(f"{bank.command.url}/events", params=query) as response:
        assert response.status == 200
        told = {name: response.headers[f"Ledger-{name}"] for name in ("Source", "Chain", "Signature", "Key")}
        return Signed(
            await response.read(),
            told["Source"],
            told["Chain"],
            told["Signature"],
            told["Key"],
            int(response.headers["Ledger-Position"]),
        )


async def test_every_page_proves_the_whole_log_up_to_its_end(tmp_path: Path) -> None:
    """Wherever it ends: within a run of the log, at its end, in between, nowhere, and past the head."""
    async with open_bank(tmp_path, projections=0) as bank:
        await bank.create("alice")
        item = {"type": "deposit", "account_id": "alice", "amount": 1, "description": "ü"}
        await bank.post("/commands", [item] * 300)
        await bank.deposit("alice", 1)
        whole = await signed(bank, limit=10_000)
        chains = [bytes(32)]
        for event in whole.events:
            chains.append(hashlib.sha256(chains[-1] + event).digest())
        last = len(chains) - 1
        assert last == whole.head == 302
        for after in (0, 1, 2, 128, 129, 130, 300, 301, 302, 400):
            for limit in (0, 1, 127, 128, 129, 10_000):
                page = await signed(bank, after=after, limit=limit)
                end = min(after, last) + len(page.events)
                assert page.chain == chains[end].hex()
                page.verify(end)
                with pytest.raises(InvalidSignature):
                    page.verify(end + 1)
        await bank.command.kill()
        await bank.command.start()
        assert (await signed(bank, after=last, limit=0)).key == whole.key


async def test_a_page_without_events_waits_for_none(bank: Bank) -> None:
    async with asyncio.timeout(20):
        assert (await signed(bank, after=await head(bank), limit=0, wait=60)).events == []


FOLLOW = Path(__file__).parents[2] / "examples" / "follow.mjs"


@asynccontextmanager
async def javascript(ledger_url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    program = await asyncio.create_subprocess_exec(
        "node",
        str(FOLLOW),
        env={**os.environ, "LEDGER_URL": ledger_url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield program
    finally:
        if program.returncode is None:
            program.kill()
        await program.communicate()


async def test_a_program_in_javascript_follows_and_verifies_with_nothing_of_ours(tmp_path: Path) -> None:
    async with open_bank(tmp_path, projections=0) as bank:
        await bank.create("alice", 'Zo\u00eb {[,"\\\u2028 \U0001f3e6')
        await bank.post("/commands", [{"type": "deposit", "account_id": "alice", "amount": 2**62}] * 2_000)
        async with javascript(bank.command.url) as program, asyncio.timeout(60):
            assert program.stdout is not None
            await bank.deposit("alice", 1)
            for event in await bank.log():
                assert await program.stdout.readline() == encoded(event) + b"\n"


@pytest.mark.usefixtures("account")
async def test_a_program_in_javascript_ends_at_a_feed_that_was_changed(bank: Bank) -> None:
    page = await signed(bank, limit=3)
    body = page.body.replace(b'"time":"20', b'"time":"19')
    assert body != page.body

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
            f"Ledger-Source: {page.source}\r\nLedger-Key: {page.key}\r\n"
            f"Ledger-Chain: {page.chain}\r\nLedger-Signature: {page.signature}\r\n\r\n".encode()
            + body
        )
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, javascript(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as program:
        async with asyncio.timeout(60):
            told, complaint = await program.communicate()
        assert told == b""
        assert b"not the events that the ledger has signed" in complaint
