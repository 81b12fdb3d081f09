"""The table of the projection service, and reading one's own writes."""

import asyncio
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
    "/account/alice/events": "history",
    "/account/alice/holds": "holds",
}
"""Every query, with its view."""


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
    assert answer == {"amount": before + 150, "last_updated": (await stream(bank, account))[-1]["time"]}


async def test_an_empty_bank_has_an_empty_reserve_and_one_beyond_64_bits_is_exact(tmp_path: Path) -> None:
    async with open_bank(tmp_path) as bank:
        assert await bank.query("/reserve") == (200, {"amount": 0, "last_updated": None})
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
        ("/account/alice?wait=-1", "wait"),
        ("/account/alice?wait=61", "wait"),
        ("/account/alice?wait=nan", "wait"),
        ("/account/alice/holds?after=a%20b", "after"),
        ("/account/alice/holds?after=", "after"),
        ("/account/alice/holds?after=%00", "after"),
        ("/account/alice/holds?limit=0", "limit"),
        ("/account/alice/holds?limit=251", "limit"),
        ("/account/a%20b/holds", "account_id"),
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
        bank.projection.environment["PROJECTION_VIEWS"] = "history, reserve"
        await bank.projection.start()
        await bank.deposit("alice", 7)
        assert (await bank.query("/reserve", min_position=2))[1]["amount"] == 7
        assert len((await bank.query("/account/alice/events", min_position=2))[1]) == 2
        for path in ("/account/alice", "/account/alice/", "/account/alice?min_position=x", "/account/alice?wait=0"):
            status, problem = await bank.query(path)
            assert (status, problem["type"]) == (404, "urn:counting-house:problem:not-found")
            assert "its PROJECTION_VIEWS is reserve,history" in problem["detail"]
        await bank.projection.stop()
        del bank.projection.environment["PROJECTION_VIEWS"]
        with pytest.raises(
            RuntimeError, match=r"was built without accounts and holds.*Set PROJECTION_NAME to a new name"
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
    with pytest.raises(RuntimeError, match=r"ended with 2.*\n.*PROJECTION_VIEWS: .*accounts, reserve, history, holds"):
        await service.start()
