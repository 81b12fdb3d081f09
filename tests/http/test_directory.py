"""The accounts as a list: filters, orders, pages."""

from typing import Any

import pytest

from tests.bank import Bank
from tests.http.test_commands import head

SECONDS = 30


async def listed(bank: Bank, **parameters: object) -> dict[str, Any]:
    """A page of what there is by now."""
    query = {name: str(value) for name, value in parameters.items()}
    query |= {"min_position": str(await head(bank)), "wait": str(SECONDS)}
    async with bank.http.get(f"{bank.projection.url}/accounts", params=query) as response:
        assert (response.status, response.content_type) == (200, "application/json")
        assert "at_position" in query or int(response.headers["Ledger-Position"]) >= int(query["min_position"])
        page: dict[str, Any] = await response.json()
    return page


async def every(bank: Bank, **parameters: object) -> list[dict[str, Any]]:
    page = await listed(bank, **parameters)
    found = list(page["accounts"])
    while page["next"]:
        page = await listed(bank, **parameters, cursor=page["next"])
        found += page["accounts"]
    return found


@pytest.fixture
async def people(bank: Bank, account_id: str) -> str:
    """The beginning of names that nobody else has: Ann has 300 EUR-cents, Bea 100 and Cid 200, who is frozen."""
    for name, amount in ("Ann", 300), ("Bea", 100), ("Cid", 200):
        await bank.post(f"/account/{name}-{account_id}", {"name": f"{account_id} {name}", "asset": "EUR/2"})
        await bank.deposit(f"{name}-{account_id}", amount)
    await bank.post(f"/account/freeze/Cid-{account_id}", {})
    return account_id


@pytest.mark.parametrize("slash", ["", "/"])
async def test_an_account_in_a_list_is_as_it_is_alone(bank: Bank, people: str, slash: str) -> None:
    _, page = await bank.query(f"/accounts{slash}", prefix=people, min_position=await head(bank), wait=SECONDS)
    assert page["next"] is None
    assert page["accounts"] == [(await bank.query(f"/account/{name}-{people}"))[1] for name in ("Ann", "Bea", "Cid")]


@pytest.mark.parametrize(
    ("parameters", "names"),
    [
        ({}, "Ann Bea Cid"),
        ({"order": "desc"}, "Cid Bea Ann"),
        ({"sort": "id", "order": "desc"}, "Cid Bea Ann"),
        ({"sort": "last_updated"}, "Ann Bea Cid"),
        ({"sort": "balance", "asset": "EUR/2"}, "Bea Cid Ann"),
        ({"sort": "balance", "asset": "EUR/2", "order": "desc", "min_balance": 101}, "Ann Cid"),
        ({"asset": "EUR/2", "min_balance": 100, "max_balance": 200}, "Bea Cid"),
        ({"asset": "EUR/2", "min_balance": 201, "max_balance": 200}, ""),
        ({"asset": "USD/2"}, ""),
        ({"status": "frozen"}, "Cid"),
        ({"status": "open", "sort": "last_updated", "order": "desc"}, "Bea Ann"),
        ({"status": "closed"}, ""),
    ],
)
@pytest.mark.parametrize("limit", [1, 2, 250])
async def test_filters_and_orders(
    bank: Bank, people: str, parameters: dict[str, object], names: str, limit: int
) -> None:
    found = await every(bank, prefix=people, limit=limit, **parameters)
    assert [account["name"].split()[-1] for account in found] == names.split()


async def test_a_prefix_is_of_the_name_as_it_is_written(bank: Bank, people: str) -> None:
    assert len(await every(bank, prefix=f"{people} ")) == 3
    assert [one["id"] for one in await every(bank, prefix=f"{people} B")] == [f"Bea-{people}"]
    assert await every(bank, prefix=f"{people} b") == []
    assert await every(bank, prefix=f"{people}%") == []


async def test_a_list_by_balance_goes_on_where_its_page_ended(bank: Bank, people: str) -> None:
    """Also when the account there has moved: those behind it are neither left out nor repeated."""
    parameters = {"prefix": people, "sort": "balance", "asset": "EUR/2"}
    page = await listed(bank, **parameters, limit=1)
    assert [one["balance"] for one in page["accounts"]] == [100]
    await bank.deposit(f"Bea-{people}", 1000)
    page = await listed(bank, **parameters, cursor=page["next"])
    assert [one["balance"] for one in page["accounts"]] == [200, 300, 1100]


@pytest.mark.parametrize("sort", ["name", "id"])
async def test_a_list_of_the_past_has_the_accounts_that_were_there_as_they_were(
    bank: Bank, people: str, sort: str
) -> None:
    parameters = {"prefix": people, "sort": sort}
    before = await head(bank)
    then = await every(bank, **parameters)
    for name in ("Abe", "Bob"):
        await bank.post(f"/account/{name}-{people}", {"name": f"{people} {name}", "asset": "EUR/2"})
    await bank.deposit(f"Ann-{people}", 1000)
    await bank.post(f"/account/unfreeze/Cid-{people}", {})
    now = await every(bank, **parameters)
    assert [one["name"].split()[-1] for one in now] == ["Abe", "Ann", "Bea", "Bob", "Cid"]
    for limit in (1, 2, 250):
        assert await every(bank, **parameters, at_position=before, limit=limit) == then
        assert await every(bank, **parameters, at_position=await head(bank), limit=limit) == now
    assert await every(bank, **parameters, at_position=before, status="frozen") == then[2:]
    assert await every(bank, **parameters, at_position=before, asset="EUR/2", min_balance=200) == [then[0], then[2]]
    assert await every(bank, **parameters, at_position=before, asset="USD/2") == []
    assert await every(bank, **parameters, at_position=0) == []
    async with bank.http.get(f"{bank.projection.url}/accounts?at_position={before}") as response:
        assert response.headers["Ledger-Position"] == str(before)
