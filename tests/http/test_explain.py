"""One event, as the feed has it, with the chain there and what it made of its accounts."""

import json
from pathlib import Path
from typing import Any

import pytest

from shared.chain import CHAIN_START, extend
from tests.bank import Bank, open_bank
from tests.http.test_commands import head


async def explained(bank: Bank, position: int, slash: str = "") -> tuple[bytes, dict[str, Any]]:
    query = {"min_position": str(position), "wait": "30"}
    async with bank.http.get(f"{bank.projection.url}/events/{position}{slash}", params=query) as response:
        assert (response.status, response.content_type) == (200, "application/json")
        assert int(response.headers["Ledger-Position"]) >= position
        text = await response.read()
    return text, json.loads(text)


async def play(bank: Bank) -> None:
    """Something of everything, between two accounts and one that never comes to be."""
    await bank.deposit("nobody", 1)
    await bank.create("bob", "Bob")
    await bank.create("alice", 'Zoë "\\')
    for path, body in [
        ("deposit/", {"amount": 1000, "description": "ü \\ \x7f", "metadata": {"a": "b"}}),
        ("withdraw/", {"amount": 2000}),
        ("transfer/", {"amount": 100, "to": "bob"}),
        ("overdraft/", {"limit": 50}),
        ("hold/", {"amount": 60, "hold_id": "order-7"}),
        ("capture/", {"hold_id": "order-7", "amount": 40, "to": "bob"}),
        ("freeze/", {}),
        ("transfer/", {"amount": 1, "to": "nobody"}),
        ("unfreeze/", {}),
        ("", {"name": "Alice"}),
    ]:
        await bank.post(f"/account/{path}alice", body)


@pytest.mark.parametrize("on_postgresql", [False, True])
async def test_an_event_is_explained(tmp_path: Path, request: pytest.FixtureRequest, on_postgresql: bool) -> None:
    database_url = request.getfixturevalue("database_url") if on_postgresql else None
    async with open_bank(tmp_path, database_url=database_url) as bank:
        await play(bank)
        events, chain = await bank.log(), CHAIN_START
        for position, event in enumerate(events, 1):
            async with bank.http.get(f"{bank.command.url}/events?after={position - 1}&limit=1") as response:
                encoded = (await response.read())[1:-1]
                assert response.headers["Ledger-Chain"] == (chain := extend(chain, [encoded])).hex()
            text, told = await explained(bank, position, "/" if position % 2 else "")
            assert b'"event":' + encoded in text
            assert told.keys() == {"event", "chain", "accounts"}
            assert told["chain"] == chain.hex()
            accounts = [event["subject"], *([event["counterpart"]] if "counterpart" in event else [])]
            assert [one["account_id"] for one in told["accounts"]] == accounts
            for one in told["accounts"]:
                for name, at in (("before", position - 1), ("after", position)):
                    status, account = await bank.query(f"/account/{one['account_id']}", at_position=at)
                    assert one[name] == (account if status == 200 else None)
        assert len(events) == 13
        assert [len((await explained(bank, at))[1]["accounts"]) for at in (1, 6, 9, 11)] == [1, 2, 2, 1]
        ((nobody,),) = [(await explained(bank, 1))[1]["accounts"]]
        assert nobody == {"account_id": "nobody", "before": None, "after": None}


async def test_an_event_to_come_is_404_and_can_be_waited_for(bank: Bank, account: str) -> None:
    position = await head(bank)
    await bank.query("/reserve", min_position=position)
    for ahead in (position + 1, 2**62, 2**63 - 1):
        async with bank.http.get(f"{bank.projection.url}/events/{ahead}") as response:
            problem = await response.json(content_type="application/problem+json")
        assert (response.status, problem["type"]) == (404, "urn:counting-house:problem:not-found")
        assert int(response.headers["Ledger-Position"]) == position
    status, problem = await bank.query(f"/events/{position + 1}", min_position=position + 1, wait=0.05)
    assert (status, problem["type"]) == (503, "urn:counting-house:problem:projection-behind")


@pytest.mark.parametrize("position", ["0", "-1", "x", "1.5", "%00", str(2**63), "9" * 100, "1e3", "%EF%BC%91x"])
async def test_a_malformed_position_is_422(bank: Bank, position: str) -> None:
    for slash in ("", "/"):
        async with bank.http.get(f"{bank.projection.url}/events/{position}{slash}") as response:
            problem = await response.json(content_type="application/problem+json")
        assert (response.status, [error["field"] for error in problem["errors"]]) == (422, ["position"])


@pytest.mark.parametrize("query", ["at_position=1", "as_of=2026-01-01T00:00:00Z", "min_position=1&min_position=1"])
async def test_a_query_that_it_does_not_take_is_422(bank: Bank, account: str, query: str) -> None:
    status, problem = await bank.query(f"/events/1?{query}")
    assert (status, [error["field"] for error in problem["errors"]]) == (422, [query.partition("=")[0]])
