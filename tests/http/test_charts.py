"""Charts: an account's balance and a reserve over time, each point as the query of that moment tells it."""

from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from tests.bank import Bank, open_bank
from tests.http.test_commands import head, stream

INT64_MAX = 2**63 - 1


async def chart(bank: Bank, path: str, **parameters: Any) -> dict[str, Any]:
    query: dict[str, Any] = {"min_position": await head(bank), "wait": 30, **parameters}
    status, told = await bank.query(path, **query)
    assert status == 200, told
    return dict(told)


async def check(bank: Bank, account_id: str, asset: str, **parameters: Any) -> int:
    """Each point against what is told as of its moment; how many there are."""
    balances = await chart(bank, f"/account/{account_id}/balances", **parameters)
    assert (balances["account_id"], balances["asset"]) == (account_id, asset)
    for point in balances["points"]:
        status, then = await bank.query(f"/account/{account_id}", as_of=point["time"])
        told = {name: then[name] if status == 200 else 0 for name in ("balance", "held", "available")}
        events = [event for event in await stream(bank, account_id) if event["time"] <= point["time"]]
        position = int(events[-1]["sequence"]) if events else 0
        assert point == {"time": point["time"], "position": position, **told}
    reserves = await chart(bank, "/reserve/history", asset=asset, **parameters)
    assert reserves["asset"] == asset
    for point in reserves["points"]:
        status, then = await bank.query("/reserve", as_of=point["time"], asset=asset)
        assert (status, point["amount"]) == (200, then["amount"])
        _, before = await bank.query("/reserve", at_position=max(0, point["position"] - 1), asset=asset)
        _, after = await bank.query("/reserve", at_position=point["position"], asset=asset)
        assert after == then
        assert before != after or after["last_updated"] is None
    assert len(balances["points"]) == len(reserves["points"])
    return len(balances["points"])


@pytest.mark.parametrize("on_postgresql", [False, True])
async def test_each_point_is_as_it_was_then(
    tmp_path: Path, request: pytest.FixtureRequest, on_postgresql: bool
) -> None:
    database_url = request.getfixturevalue("database_url") if on_postgresql else None
    async with open_bank(tmp_path, database_url=database_url) as bank:
        for _ in range(20):
            await bank.deposit("alice", 1)
        await bank.post("/account/alice", {"name": "Alice", "asset": "EUR/2"})
        for number in range(25):
            await bank.deposit("alice", number)
            if number % 5 == 0:
                await bank.post("/account/hold/alice", {"amount": 1})
                await bank.post("/account/overdraft/alice", {"limit": number})
        events = await stream(bank, "alice")
        first, last = events[20]["time"], events[-1]["time"]
        told = await chart(bank, "/account/alice/balances")
        assert (len(told["points"]), told["points"][0]["time"], told["points"][-1]["time"]) == (101, first, last)
        reserves = await chart(bank, "/reserve/history", asset="EUR/2")
        assert (reserves["points"][0]["time"], reserves["points"][-1]["time"]) == (events[0]["time"], last)
        assert await check(bank, "alice", "EUR/2", **{"from": first}, to=last, buckets=45) == 46
        assert await check(bank, "alice", "EUR/2", to=events[30]["time"], **{"from": events[3]["time"]}, buckets=7) == 8
        assert await check(bank, "alice", "EUR/2", **{"from": "0001"}, to="2020", buckets=3) == 4
        assert await check(bank, "alice", "EUR/2", **{"from": first[:10]}, to=first[:10], buckets=5) == 6
        assert await check(bank, "alice", "EUR/2", **{"from": last}, buckets=1) == 2


@pytest.mark.parametrize("on_postgresql", [False, True])
async def test_a_chart_of_a_position_is_what_it_was_then(
    tmp_path: Path, request: pytest.FixtureRequest, on_postgresql: bool
) -> None:
    """Also in the middle of a batch, all of whose events may be of one time."""
    database_url = request.getfixturevalue("database_url") if on_postgresql else None
    async with open_bank(tmp_path, database_url=database_url) as bank:
        was: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
        await bank.create("alice")
        for number in range(5):
            await bank.post("/commands", [{"type": "deposit", "account_id": "alice", "amount": 1}] * 3)
            await bank.deposit("bob", number)
            charts = await chart(bank, "/account/alice/balances", buckets=7), await chart(bank, "/reserve/history")
            was[await head(bank)] = charts
        for position, charts in was.items():
            then = {"at_position": position}
            assert await chart(bank, "/account/alice/balances", buckets=7, **then) == charts[0]
            assert await chart(bank, "/reserve/history", **then) == charts[1]
        for position in range(2, await head(bank) + 1):
            _, account = await bank.query("/account/alice", at_position=position)
            point = (await chart(bank, "/account/alice/balances", at_position=position))["points"][-1]
            reserve = (await chart(bank, "/reserve/history", at_position=position, buckets=1))["points"][-1]
            assert point["balance"] == reserve["amount"] == account["balance"]
            assert max(point["position"], reserve["position"]) <= position
        assert (await chart(bank, "/reserve/history", at_position=0))["points"] == []
        assert (await bank.query("/account/alice/balances", at_position=0))[0] == 404


async def test_a_reserve_over_64_bits_and_one_that_nobody_has(bank: Bank, account_id: str) -> None:
    for number in range(3):
        await bank.post(f"/account/{account_id}-{number}", {"name": "Alice", "asset": "CHART/2"})
        await bank.deposit(f"{account_id}-{number}", INT64_MAX)
    points = (await chart(bank, "/reserve/history", asset="CHART/2", buckets=500))["points"]
    assert (len(points), points[-1]["amount"]) == (501, 3 * INT64_MAX)
    nobodys = (await chart(bank, "/reserve/history/", asset="NOBODY/2", buckets=2))["points"]
    assert [(point["position"], point["amount"]) for point in nobodys] == [(0, 0)] * 3
    balances = (await chart(bank, f"/account/{account_id}-0/balances/", buckets=500))["points"]
    assert (len(balances), balances[-1]["balance"]) == (501, INT64_MAX)


async def test_an_empty_ledger_has_no_points(tmp_path: Path) -> None:
    async with open_bank(tmp_path) as bank:
        assert await bank.query("/reserve/history") == (200, {"asset": "USD/2", "points": []})
        status, told = await bank.query("/reserve/history?from=2026&buckets=1")
        assert (status, [point["amount"] for point in told["points"]]) == (200, [0, 0])


async def test_there_is_none_of_an_account_that_is_not_there(bank: Bank, account_id: str) -> None:
    await bank.deposit(account_id, 1)
    query = {"min_position": str(await head(bank))}
    async with bank.http.get(f"{bank.projection.url}/account/{account_id}/balances", params=query) as response:
        problem = await response.json(content_type="application/problem+json")
    assert (response.status, problem["type"]) == (404, "urn:counting-house:problem:not-found")
    assert int(response.headers["Ledger-Position"]) >= int(query["min_position"])


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("from=x", "from"),
        ("from=9999", "from"),
        ("from=0000-01-01", "from"),
        ("from=2026-01-01T00:00:00+01:00", "from"),
        ("from=2025-02-29", "from"),
        ("from=%00", "from"),
        ("from=2026&from=2026", "from"),
        ("to=2026-13", "to"),
        ("to=", "to"),
        ("from=2026-05&to=2026-04", "to"),
        ("to=9999-12-31T23:59:59-01:00", "to"),
        ("buckets=0", "buckets"),
        ("buckets=501", "buckets"),
        (f"buckets={10**30}", "buckets"),
        ("buckets=x", "buckets"),
        ("buckets=5&buckets=5", "buckets"),
        ("min_position=x", "min_position"),
        ("at_position=-1", "at_position"),
        ("at_position=1&at_position=1", "at_position"),
        ("as_of=x", "as_of"),
    ],
)
async def test_a_malformed_query_is_422_and_names_the_field(bank: Bank, account: str, query: str, field: str) -> None:
    for path in (f"/account/{account}/balances", "/reserve/history", "/reserve/history/"):
        async with bank.http.get(URL(f"{bank.projection.url}{path}?{query}", encoded=True)) as response:
            problem = await response.json(content_type="application/problem+json")
        assert (response.status, [error["field"] for error in problem["errors"]]) == (422, [field])


@pytest.mark.parametrize("asset", ["eur/2", "EUR", "", "EUR/2%0A"])
async def test_a_malformed_asset_is_422(bank: Bank, asset: str) -> None:
    async with bank.http.get(URL(f"{bank.projection.url}/reserve/history?asset={asset}", encoded=True)) as response:
        problem = await response.json(content_type="application/problem+json")
    assert (response.status, [error["field"] for error in problem["errors"]]) == (422, ["asset"])
