"""The stream: every event once, as soon as it is in the views, and on from where its reader was."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from projection_service.live import HISTORY_EVENTS_MAX
from tests.bank import Bank, open_bank
from tests.http.test_commands import head

SECONDS = 30


class Reader:
    """What a browser's EventSource is given."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def event(self) -> tuple[int, dict[str, Any]]:
        """The next one, with its id."""
        fields: dict[bytes, bytes] = {}
        async with asyncio.timeout(SECONDS):
            while line := await self.response.content.readline():
                name, _, value = line.rstrip(b"\n").partition(b": ")
                if name:
                    fields[name] = value
                elif b"data" in fields:
                    return int(fields[b"id"]), json.loads(fields[b"data"])
        raise EOFError

    async def events(self, number: int) -> list[tuple[int, dict[str, Any]]]:
        return [await self.event() for _ in range(number)]


@asynccontextmanager
async def stream(bank: Bank, headers: Mapping[str, str] | None = None, **parameters: object) -> AsyncIterator[Reader]:
    params = {name: str(value) for name, value in parameters.items()}
    async with bank.http.get(f"{bank.projection.url}/stream", params=params, headers=headers) as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        assert response.headers["Cache-Control"] == "no-store"
        yield Reader(response)


async def of_the_log(bank: Bank, after: int) -> list[tuple[int, dict[str, Any]]]:
    return [(position, event) for position, event in enumerate(await bank.log(), 1) if position > after]


async def test_a_reader_gets_each_event_once_with_its_position(bank: Bank, account: str) -> None:
    after = await head(bank)
    async with stream(bank, after=after) as reader:
        await bank.deposit(account, 1)
        await bank.withdraw(account, 10_000)
        await bank.post("/commands", [{"type": "deposit", "account_id": account, "amount": 1}] * 10)
        assert await reader.events(12) == await of_the_log(bank, after)


@pytest.mark.parametrize("number", [1, HISTORY_EVENTS_MAX, HISTORY_EVENTS_MAX + 1, 4000])
async def test_a_reader_that_was_away_goes_on_where_it_was(bank: Bank, account: str, number: int) -> None:
    after = await head(bank)
    await bank.post("/commands", [{"type": "deposit", "account_id": account, "amount": 1}] * number)
    await bank.query("/reserve", min_position=after + number, wait=SECONDS)
    # What the browser says when it comes back counts, and not what the page once asked for.
    async with stream(bank, {"Last-Event-ID": str(after)}, after=0) as reader:
        assert await reader.events(number) == await of_the_log(bank, after)
        await bank.deposit(account, 1)
        assert (await reader.event())[0] == after + number + 1


async def test_without_a_position_it_begins_now(bank: Bank, account: str) -> None:
    now = await head(bank)
    await bank.query("/reserve", min_position=now)
    async with stream(bank) as reader:
        _, receipt = await bank.deposit(account, 1)
        assert (await reader.event())[0] == receipt["position"] == now + 1


async def test_an_accounts_stream_has_its_events_and_no_others(bank: Bank, account: str, account_id: str) -> None:
    """A transfer is in both accounts'."""
    other = f"{account_id}-other"
    after = await head(bank)
    for _ in range(2):
        await bank.create(other)
        await bank.deposit(account, 1)
        await bank.post(f"/account/transfer/{account}", {"to": other, "amount": 1})
        await bank.post(f"/account/transfer/{other}", {"to": account, "amount": 1})
    expected = [one for one in await of_the_log(bank, after) if other in (one[1]["subject"], one[1].get("counterpart"))]
    assert len(expected) == 6
    async with stream(bank, account_id=other, after=after + 2) as reader:
        assert await reader.events(5) == expected[1:]
        for _ in range(2):
            await bank.deposit(account, 1)
            _, receipt = await bank.deposit(other, 1)
            assert (await reader.event())[0] == receipt["position"]


async def test_many_readers_lose_nothing_while_commands_come_in(bank: Bank, account: str) -> None:
    after = await head(bank)

    async def read() -> list[int]:
        async with stream(bank, after=after) as reader:
            return [(await reader.event())[0] for _ in range(300)]

    readers = [asyncio.create_task(read()) for _ in range(50)]
    for _ in range(30):
        await bank.post("/commands", [{"type": "deposit", "account_id": account, "amount": 1}] * 10)
    assert await asyncio.gather(*readers) == [list(range(after + 1, after + 301))] * 50


async def test_it_ends_with_the_service_and_goes_on_after_it(tmp_path: Path) -> None:
    async with open_bank(tmp_path) as bank:
        await bank.create("alice")
        async with stream(bank, after=0) as reader:
            assert (await reader.event())[0] == 1
            assert await bank.projection.stop() == 0
            async with asyncio.timeout(SECONDS):
                await reader.response.content.read()
        await bank.deposit("alice", 1)
        await bank.projection.start()
        async with stream(bank, {"Last-Event-ID": "1"}) as reader:
            assert (await reader.event())[0] == 2


async def test_a_position_that_is_not_there_yet_is_waited_for(bank: Bank, account: str) -> None:
    """Another projection may be further than this one."""
    now = await head(bank)
    async with stream(bank, {"Last-Event-ID": str(now + 1)}) as reader:
        await bank.deposit(account, 1)
        await bank.deposit(account, 1)
        assert (await reader.event())[0] == now + 2


async def test_a_reader_that_does_not_read_costs_nobody_else_anything(bank: Bank, account: str) -> None:
    after = await head(bank)
    async with stream(bank, after=0), stream(bank, after=after) as reader:
        await bank.post(
            "/commands", [{"type": "deposit", "account_id": account, "amount": 1, "description": "x" * 1000}] * 3000
        )
        assert [position for position, _ in await reader.events(3000)] == list(range(after + 1, after + 3001))


async def test_large_events_come_a_piece_at_a_time(bank: Bank, account: str) -> None:
    """Each takes up to 32 KB: in the history, and to those who read on from it."""
    after = await head(bank)
    metadata = {f"{number:064}": "\x01" * 200 for number in range(20)}
    deposit = {"type": "deposit", "account_id": account, "amount": 1, "metadata": metadata}
    await bank.post("/commands", [deposit] * 100)
    async with stream(bank, after=after) as reader:
        await bank.post("/commands", [deposit] * 100)
        assert [position for position, _ in await reader.events(200)] == list(range(after + 1, after + 201))


@pytest.mark.parametrize(
    ("headers", "query", "field"),
    [
        ({}, "after=-1", "after"),
        ({}, f"after={2**63}", "after"),
        ({}, "after=x", "after"),
        ({}, "account_id=a%20b", "account_id"),
        ({"Last-Event-ID": "x"}, "", "last-event-id"),
        ({"Last-Event-ID": str(2**63)}, "", "last-event-id"),
    ],
)
async def test_what_is_malformed_is_422(bank: Bank, headers: dict[str, str], query: str, field: str) -> None:
    async with bank.http.get(f"{bank.projection.url}/stream?{query}", headers=headers) as response:
        problem = await response.json(content_type="application/problem+json")
    assert (response.status, [error["field"] for error in problem["errors"]]) == (422, [field])
