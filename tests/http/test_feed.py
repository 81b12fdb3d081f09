"""The feed: pages, limits, long poll."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

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
    async with bank.http.get(f"{bank.command.url}/events", params=query) as response:
        assert response.status == 200
        assert response.content_type == "application/cloudevents-batch+json"
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


async def test_a_page_is_limited_in_bytes_but_never_empty(bank: Bank, account: str) -> None:
    item = {"type": "deposit", "account_id": account, "amount": 1, "description": "x" * 1000}
    await bank.post("/commands", [item] * 1500)
    page, position = await read(bank, after=await head(bank) - 1500, limit=10_000)
    assert 500 < len(page) < 1000
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


async def chain(bank: Bank, **parameters: object) -> tuple[dict[str, Any], int]:
    """The answer and its Ledger-Position."""
    query = {name: str(value) for name, value in parameters.items()}
    async with bank.http.get(f"{bank.command.url}/events/chain", params=query) as response:
        assert response.status == 200
        assert response.headers["Ledger-Source"].startswith("/ledgers/")
        return await response.json(), int(response.headers["Ledger-Position"])


@pytest.fixture
async def short_bank(tmp_path: Path) -> AsyncIterator[Bank]:
    """A log of our own, that one answer reaches the end of."""
    async with open_bank(tmp_path, projections=0) as bank:
        yield bank


async def test_the_chain_goes_over_the_bytes_of_the_feed(short_bank: Bank) -> None:
    """Asked for at once, from where one was before, and past the end."""
    bank, account = short_bank, "alice"
    await bank.create(account)
    await bank.post("/commands", [{"type": "deposit", "account_id": account, "amount": 1, "description": "ü"}] * 10)
    expected = {0: bytes(32)}
    for event in await bank.log():
        position = int(event["sequence"])
        expected[position] = hashlib.sha256(expected[position - 1] + encoded(event)).digest()
    last = len(expected) - 1
    for up_to in (0, 1, last - 1, last):
        assert await chain(bank, up_to=up_to) == ({"position": up_to, "chain": expected[up_to].hex()}, last)
    for after in (1, last - 11, last):
        answer, _ = await chain(bank, after=after, chain=expected[after].hex(), up_to=2**63 - 1)
        assert answer == {"position": last, "chain": expected[last].hex()}
    beyond, _ = await chain(bank, after=last + 7, chain="00" * 32, up_to=last + 9)
    assert beyond == {"position": last + 7, "chain": "00" * 32}


async def test_one_answer_goes_no_further_than_10_000_events(short_bank: Bank) -> None:
    bank = short_bank
    await bank.post("/commands", [{"type": "deposit", "account_id": "alice", "amount": 1}] * 10_000)
    await bank.create("alice")
    answer, last = await chain(bank, up_to=2**63 - 1)
    assert answer["position"] == 10_000 < last
    answer, _ = await chain(bank, after=10_000, chain=answer["chain"], up_to=last)
    assert answer["position"] == last


@pytest.mark.parametrize(
    "query", ["", "up_to=-1", f"up_to={2**63}", "up_to=1&after=x", "up_to=1&chain=00", "up_to=1&chain=" + "zz" * 32]
)
async def test_a_malformed_question_for_the_chain_is_422(bank: Bank, query: str) -> None:
    async with bank.http.get(f"{bank.command.url}/events/chain?{query}") as response:
        assert response.status == 422
