"""The table of the projection service, and reading one's own writes."""

import asyncio
import base64
import json
import time
from pathlib import Path

import pytest

from projection_service.views import VIEWS
from tests.bank import Bank, Service, open_bank
from tests.http.test_commands import head, stream

INT64_MAX = 2**63 - 1
PATHS = {
    "/account/alice": "accounts",
    "/reserve": "reserve",
    "/reserves": "reserve",
    "/account/alice/events": "history",
    "/account/alice/holds": "holds",
    "/accounts": "directory",
}
"""Every query, with its view."""


def cursor(*parts: object) -> str:
    """As a page of accounts gives it, or as a client makes it up."""
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


@pytest.mark.parametrize("slash", ["", "/"])
async def test_an_account_is_read_as_its_last_event_left_it(bank: Bank, account: str, slash: str) -> None:
    position = await head(bank)
    url = f"{bank.projection.url}/account/{account}{slash}"
    async with bank.http.get(url, params={"min_position": str(position)}) as response:
        answer = await response.json()
    assert response.status == 200
    assert response.content_type == "application/json"
    assert int(response.headers["Ledger-Position"]) >= position
    events = await stream(bank, account)
    assert answer == {
        "id": account,
        "name": "Alice",
        "asset": "USD/2",
        "balance": 100,
        "held": 0,
        "available": 100,
        "overdraft_limit": 0,
        "status": "open",
        "version": 2,
        "last_updated": events[-1]["time"],
    }


async def test_a_rejection_moves_the_version_and_nothing_else(bank: Bank, account: str) -> None:
    before = (await bank.query(f"/account/{account}", min_position=await head(bank)))[1]
    reserve = (await bank.query("/reserve"))[1]
    await bank.withdraw(account, 101)
    await bank.create(account, "Bob")
    after = (await bank.query(f"/account/{account}", min_position=await head(bank)))[1]
    assert after == {**before, "version": before["version"] + 2}
    assert (await bank.query("/reserve"))[1] == reserve


@pytest.mark.parametrize("named_before", [False, True])
async def test_an_account_that_does_not_exist_is_404(bank: Bank, account_id: str, named_before: bool) -> None:
    if named_before:
        await bank.deposit(account_id, 1)
    url = f"{bank.projection.url}/account/{account_id}"
    async with bank.http.get(url, params={"min_position": str(await head(bank))}) as response:
        problem = await response.json(content_type="application/problem+json")
    assert (response.status, problem["type"]) == (404, "urn:counting-house:problem:not-found")
    assert int(response.headers["Ledger-Position"]) >= await head(bank)


@pytest.mark.parametrize("slash", ["", "/"])
async def test_the_reserve_is_the_sum_of_all_balances(bank: Bank, account: str, slash: str) -> None:
    before = (await bank.query("/reserve", min_position=await head(bank)))[1]["amount"]
    await bank.deposit(account, 250)
    _, receipt = await bank.withdraw(account, 100)
    url = f"{bank.projection.url}/reserve{slash}"
    async with bank.http.get(url, params={"min_position": str(receipt["position"])}) as response:
        answer = await response.json()
    assert response.status == 200
    assert int(response.headers["Ledger-Position"]) >= receipt["position"]
    assert answer == {
        "asset": "USD/2",
        "amount": before + 150,
        "last_updated": (await stream(bank, account))[-1]["time"],
    }


@pytest.mark.parametrize("slash", ["", "/"])
async def test_each_asset_has_a_reserve_of_its_own(bank: Bank, account_id: str, slash: str) -> None:
    """Each by itself, and all of them page by page."""
    _, dollars = await bank.query("/reserve", min_position=await head(bank))
    ids = [f"{account_id}-{number}" for number in range(3)]
    for id_, asset in zip(ids, ("QUERY2/0", "QUERY/18", "QUERY/18"), strict=True):
        await bank.post(f"/account/{id_}", {"name": "Alice", "asset": asset})
    before = {asset: (await bank.query("/reserve", asset=asset))[1]["amount"] for asset in ("QUERY/18", "QUERY2/0")}
    for id_, amount in zip(ids, (7, INT64_MAX, INT64_MAX), strict=True):
        await bank.deposit(id_, amount)
    _, receipt = await bank.withdraw(ids[1], 1)
    times = [(await stream(bank, id_))[-1]["time"] for id_ in ids[:2]]
    reserves = [
        {"asset": "QUERY/18", "amount": before["QUERY/18"] + 2 * INT64_MAX - 1, "last_updated": times[1]},
        {"asset": "QUERY2/0", "amount": before["QUERY2/0"] + 7, "last_updated": times[0]},
    ]
    for reserve in reserves:
        url = f"{bank.projection.url}/reserve{slash}"
        params = {"asset": str(reserve["asset"]), "min_position": str(receipt["position"])}
        async with bank.http.get(url, params=params) as response:
            assert (response.status, await response.json()) == (200, reserve)
            assert int(response.headers["Ledger-Position"]) >= receipt["position"]
    async with bank.http.get(f"{bank.projection.url}/reserves{slash}") as response:
        every = await response.json()
        assert int(response.headers["Ledger-Position"]) >= receipt["position"]
    assert [reserve for reserve in every if reserve["asset"].startswith("QUERY")] == reserves
    assert {reserve["asset"]: reserve for reserve in every}["USD/2"] == dollars
    assert [reserve["asset"] for reserve in every] == sorted(reserve["asset"] for reserve in every)
    paged: list[dict[str, object]] = []
    while page := (await bank.query("/reserves", after=paged[-1]["asset"] if paged else "", limit=2))[1]:
        assert len(page) <= 2
        paged += page
    assert paged == every


async def test_the_reserve_of_an_asset_that_nobody_has_is_empty(bank: Bank) -> None:
    assert await bank.query("/reserve", asset="NOBODY/2") == (
        200,
        {"asset": "NOBODY/2", "amount": 0, "last_updated": None},
    )
    assert "NOBODY/2" not in [reserve["asset"] for reserve in (await bank.query("/reserves"))[1]]


async def test_an_account_is_in_the_default_asset_when_none_is_asked_for(tmp_path: Path) -> None:
    """A retry is answered as before, whatever the default is by then."""
    async with open_bank(tmp_path) as bank:
        await bank.create("alice")
        _, told = await bank.post("/account/", {"name": "Bob", "id": "bob"}, key="key")
        await bank.command.stop()
        bank.command.environment["DEFAULT_ASSET"] = "EUR/2"
        await bank.command.start()
        assert await bank.post("/account/", {"name": "Bob", "id": "bob"}, key="key") == (201, told)
        assert (await bank.create("carol"))[1]["asset"] == "EUR/2"
        _, results = await bank.post(
            "/commands",
            [
                {"type": "create-account", "account_id": "dave", "name": "Dave"},
                {"type": "create-account", "account_id": "erin", "name": "Erin", "asset": "USD/2"},
                {"type": "create-account", "account_id": "carol", "name": "Carol"},
                {"type": "deposit", "account_id": "dave", "amount": 7},
            ],
        )
        assert [result.get("asset") for result in results] == ["EUR/2", "USD/2", None, None]
        assert (await stream(bank, "carol"))[-1]["data"]["asset"] == "EUR/2"
        assert told["asset"] == "USD/2"
        await bank.check_views()


@pytest.mark.parametrize("asset", ["EUR", "eur/2"])
async def test_a_default_asset_that_is_none_is_refused_at_the_start(tmp_path: Path, asset: str) -> None:
    service = Service("command_service", tmp_path / "log", DATA_DIR=str(tmp_path), DEFAULT_ASSET=asset)
    with pytest.raises(RuntimeError, match=r"ended with 2.*\n.*DEFAULT_ASSET: .* is no asset.*as in EUR/2"):
        await service.start()


async def test_an_empty_bank_has_an_empty_reserve_and_one_beyond_64_bits_is_exact(tmp_path: Path) -> None:
    async with open_bank(tmp_path) as bank:
        empty = {"asset": "USD/2", "amount": 0, "last_updated": None}
        assert await bank.query("/reserve") == (200, empty)
        assert await bank.query("/reserves") == (200, [empty])
        for number in range(3):
            await bank.create(f"account-{number}")
            await bank.deposit(f"account-{number}", INT64_MAX)
        _, reserve = await bank.query("/reserve", min_position=6)
        assert reserve["amount"] == 3 * INT64_MAX
        await bank.projection.stop()
        await bank.projection.start()
        assert await bank.query("/reserve") == (200, reserve)


async def test_min_position_waits_for_ones_own_write(bank: Bank, account: str) -> None:
    for amount in range(1, 30):
        _, receipt = await bank.deposit(account, amount)
        status, view = await bank.query(f"/account/{account}", min_position=receipt["position"])
        assert (status, view["balance"], view["version"]) == (200, receipt["balance"], receipt["version"])


async def test_min_position_is_awaited_by_many_at_once(bank: Bank, account: str) -> None:
    following = await head(bank) + 1
    waiting = [
        asyncio.create_task(bank.query(f"/account/{account}", min_position=following, wait=30)) for _ in range(50)
    ]
    await asyncio.sleep(0.2)
    assert not any(query.done() for query in waiting)
    await bank.deposit(account, 5)
    answers = await asyncio.gather(*waiting)
    assert [(status, view["balance"]) for status, view in answers] == [(200, 105)] * 50


@pytest.mark.parametrize("path", PATHS)
async def test_a_view_that_does_not_get_there_in_time_says_how_far_it_is(bank: Bank, path: str) -> None:
    position = await head(bank)
    await bank.query("/reserve", min_position=position)
    started = time.monotonic()
    parameters = {"min_position": str(position + 1), "wait": "0.3"}
    async with bank.http.get(bank.projection.url + path, params=parameters) as response:
        problem = await response.json(content_type="application/problem+json")
    assert time.monotonic() - started >= 0.3
    assert (response.status, problem["type"]) == (503, "urn:counting-house:problem:projection-behind")
    assert problem["position"] == position
    assert response.headers["Ledger-Position"] == str(position)
    assert int(response.headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/reserve?min_position=-1", "min_position"),
        ("/reserve?min_position=x", "min_position"),
        (f"/reserve?min_position={2**63}", "min_position"),
        ("/reserve?min_position=1&min_position=1", "min_position"),
        ("/reserve?asset=eur/2", "asset"),
        ("/reserve?asset=EUR", "asset"),
        ("/reserve?asset=", "asset"),
        ("/reserve?asset=EUR/2%0A", "asset"),
        ("/reserve?asset=EUR/2&asset=USD/2", "asset"),
        ("/reserves/?after=x", "after"),
        ("/reserves?after=A/2&after=B/2", "after"),
        ("/reserves?limit=0", "limit"),
        ("/reserves?limit=1001", "limit"),
        ("/reserves?min_position=x", "min_position"),
        ("/account/alice?wait=1&wait=1", "wait"),
        ("/account/alice?wait=-1", "wait"),
        ("/account/alice?wait=61", "wait"),
        ("/account/alice?wait=nan", "wait"),
        ("/account/alice/holds?after=a%20b", "after"),
        ("/account/alice/holds?after=", "after"),
        ("/account/alice/holds?after=%00", "after"),
        ("/account/alice/holds?limit=0", "limit"),
        ("/account/alice/holds?limit=251", "limit"),
        ("/account/a%20b/holds", "account_id"),
        ("/accounts?prefix=" + "x" * 201, "prefix"),
        ("/accounts?prefix=%00", "prefix"),
        ("/accounts?prefix=a&prefix=b", "prefix"),
        ("/accounts?asset=USD", "asset"),
        ("/accounts?asset=", "asset"),
        ("/accounts?sort=balance", "asset"),
        ("/accounts/?min_balance=0", "asset"),
        ("/accounts?max_balance=0", "asset"),
        ("/accounts?status=shut", "status"),
        ("/accounts?status=", "status"),
        (f"/accounts?asset=USD/2&min_balance={-(2**63) - 1}", "min_balance"),
        ("/accounts?asset=USD/2&min_balance=1.5", "min_balance"),
        (f"/accounts?asset=USD/2&max_balance={2**63}", "max_balance"),
        ("/accounts?asset=USD/2&max_balance=" + "9" * 5000, "max_balance"),
        ("/accounts?sort=version", "sort"),
        ("/accounts?order=ASC", "order"),
        ("/accounts?limit=0", "limit"),
        ("/accounts?limit=251", "limit"),
        ("/accounts?limit=1&limit=2", "limit"),
        ("/accounts?min_position=x", "min_position"),
        ("/accounts?at_position=1&sort=last_updated", "sort"),
        ("/accounts?at_position=1&sort=balance&asset=USD/2", "sort"),
        ("/accounts?at_position=1&as_of=2026-01-01T00:00:00Z", "as_of"),
        ("/accounts?at_position=1&max_balance=1", "asset"),
        ("/accounts?cursor=", "cursor"),
        ("/accounts?cursor=x", "cursor"),
        ("/accounts?cursor=%FF", "cursor"),
        ("/accounts?cursor=" + "A" * 2001, "cursor"),
        (f"/accounts?cursor={cursor('id', 'asc', 'a', 'a')}", "cursor"),
        (f"/accounts?cursor={cursor('name', 'desc', 'a', 'a')}", "cursor"),
        (f"/accounts?cursor={cursor('name', 'asc', 7, 'a')}", "cursor"),
        (f"/accounts?cursor={cursor('name', 'asc', None, 'a')}", "cursor"),
        (f"/accounts?cursor={cursor('name', 'asc', [], 'a')}", "cursor"),
        (f"/accounts?cursor={cursor('name', 'asc', chr(0), 'a')}", "cursor"),
        (f"/accounts?cursor={cursor('name', 'asc', chr(0xD800), 'a')}", "cursor"),
        (f"/accounts?cursor={cursor('name', 'asc', 'a', 'a b')}", "cursor"),
        (f"/accounts?cursor={cursor('name', 'asc', 'a', 'a', 'a')}", "cursor"),
        (f"/accounts?cursor={cursor('name', 'asc', 'a')}", "cursor"),
        (f"/accounts?sort=balance&asset=USD/2&cursor={cursor('balance', 'asc', 'a', 'a')}", "cursor"),
        (f"/accounts?sort=balance&asset=USD/2&cursor={cursor('balance', 'asc', 2**63, 'a')}", "cursor"),
        (f"/accounts?sort=balance&asset=USD/2&cursor={cursor('balance', 'asc', 10**30, 'a')}", "cursor"),
        (f"/accounts?sort=balance&asset=USD/2&cursor={cursor('balance', 'asc', True, 'a')}", "cursor"),
        (f"/accounts?sort=balance&asset=USD/2&cursor={cursor('balance', 'asc', 1.5, 'a')}", "cursor"),
        ("/account/a%20b", "account_id"),
        ("/account/" + "a" * 65, "account_id"),
    ],
)
async def test_a_malformed_query_is_422_and_names_the_field(bank: Bank, path: str, field: str) -> None:
    status, problem = await bank.query(path)
    assert (status, [error["field"] for error in problem["errors"]]) == (422, [field])


async def test_an_id_that_no_account_can_have_is_422_with_the_views_on_postgresql_too(
    tmp_path: Path, database_url: str
) -> None:
    async with open_bank(tmp_path, database_url=database_url) as bank:
        for path in ("/account/%00", "/account/%00/", "/account/%00/holds", "/account/a%00b?min_position=0"):
            status, problem = await bank.query(path)
            assert (status, [error["field"] for error in problem["errors"]]) == (422, ["account_id"])


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("POST", "/reserve", 405)])
async def test_an_unknown_path_or_method_is_a_problem_too(bank: Bank, method: str, path: str, status: int) -> None:
    async with bank.http.request(method, bank.projection.url + path) as response:
        problem = await response.json(content_type="application/problem+json")
    assert (response.status, problem["status"]) == (status, status)


@pytest.mark.parametrize("on_postgresql", [False, True])
async def test_a_projection_keeps_the_views_that_it_is_told_to(
    tmp_path: Path, request: pytest.FixtureRequest, on_postgresql: bool
) -> None:
    """The others are a 404, whatever else is asked, and gone for this projection."""
    database_url = request.getfixturevalue("database_url") if on_postgresql else None
    async with open_bank(tmp_path, database_url=database_url) as bank:
        await bank.create("alice")
        for path in PATHS:
            assert (await bank.query(path, min_position=1))[0] == 200
        await bank.projection.stop()
        bank.projection.environment["PROJECTION_VIEWS"] = "holds, reserve"
        await bank.projection.start()
        await bank.deposit("alice", 7)
        assert (await bank.query("/reserve", min_position=2))[1]["amount"] == 7
        assert (await bank.query("/account/alice/holds", min_position=2))[0] == 200
        for path in ("/account/alice", "/account/alice/", "/account/alice?min_position=x", "/account/alice?wait=0"):
            status, problem = await bank.query(path)
            assert (status, problem["type"]) == (404, "urn:counting-house:problem:not-found")
            assert "its PROJECTION_VIEWS is reserve,holds" in problem["detail"]
        await bank.projection.stop()
        del bank.projection.environment["PROJECTION_VIEWS"]
        with pytest.raises(
            RuntimeError,
            match=r"without accounts and directory and history.*Set PROJECTION_NAME to a new name",
        ):
            await bank.projection.start()
        bank.projection.environment["PROJECTION_NAME"] += "-anew"
        await bank.projection.start()
        for path in PATHS:
            assert (await bank.query(path, min_position=2))[0] == 200


def test_every_view_has_its_queries_here() -> None:
    assert set(PATHS.values()) == VIEWS.keys()


@pytest.mark.parametrize("names", ["acounts", "accounts;reserve", ",", "all,accounts"])
async def test_a_view_that_there_is_not_is_refused_at_the_start(tmp_path: Path, names: str) -> None:
    service = Service("projection_service", tmp_path / "log", DATA_DIR=str(tmp_path), PROJECTION_VIEWS=names)
    with pytest.raises(RuntimeError, match=rf"ended with 2.*\n.*PROJECTION_VIEWS: .*{', '.join(VIEWS)}"):
        await service.start()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("history,accounts", "the view history needs reserve: name what it needs, too"),
        ("holds,history", "the view history needs accounts and reserve: name what it needs, too"),
    ],
)
async def test_a_view_without_those_that_it_needs_is_refused_at_the_start(
    tmp_path: Path, names: str, said: str
) -> None:
    service = Service("projection_service", tmp_path / "log", DATA_DIR=str(tmp_path), PROJECTION_VIEWS=names)
    with pytest.raises(RuntimeError, match=rf"ended with 2.*\n.*PROJECTION_VIEWS: .*{said}"):
        await service.start()
