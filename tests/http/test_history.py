"""One account's events, from the view that has them: the same bytes as in the feed, in pages."""

import json

import pytest

from tests.bank import Bank
from tests.http.test_commands import head

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def read(bank: Bank, account_id: str, slash: str = "", **parameters: object) -> tuple[bytes, int]:
    """The page and its Ledger-Position, which has all that was recorded until now."""
    query = {name: str(value) for name, value in {"min_position": await head(bank), "wait": 30, **parameters}.items()}
    async with bank.http.get(f"{bank.projection.url}/account/{account_id}/events{slash}", params=query) as response:
        assert response.status == 200
        assert response.content_type == "application/cloudevents-batch+json"
        return await response.read(), int(response.headers["Ledger-Position"])


@pytest.mark.parametrize("slash", ["", "/"])
async def test_an_accounts_history_is_its_whole_story_byte_for_byte(bank: Bank, account_id: str, slash: str) -> None:
    """An event of each type."""
    after = await head(bank)
    await bank.create(account_id, 'Zoë 🏦 \\u0000 "\\/\n')
    await bank.create(account_id)
    body = {"amount": 70, "description": "ü \\ \x7f"}
    async with bank.http.post(
        f"{bank.command.url}/account/deposit/{account_id}", json=body, headers={"traceparent": TRACE}
    ) as response:
        assert response.status == 200
    await bank.deposit(account_id, 0)
    await bank.withdraw(account_id, 1000)
    await bank.withdraw(account_id, 40)
    async with bank.http.get(f"{bank.command.url}/events", params={"after": str(after)}) as response:
        feed = await response.read()
    history, position = await read(bank, account_id, slash)
    assert history == feed
    assert position == after + 6
    assert [(event["accountversion"], event["type"]) for event in json.loads(history)] == [
        (1, "account-created"),
        (2, "account-creation-rejected"),
        (3, "amount-deposited"),
        (4, "deposit-rejected"),
        (5, "withdrawal-rejected"),
        (6, "amount-withdrawn"),
    ]


async def test_it_is_read_page_by_page(bank: Bank, account: str) -> None:
    await bank.post("/commands", [{"type": "deposit", "account_id": account, "amount": 1}] * 998)
    whole = json.loads((await read(bank, account))[0])
    assert [event["accountversion"] for event in whole] == list(range(1, 1001))
    assert json.loads((await read(bank, account, after=1, limit=2))[0]) == whole[1:3]
    # A page is read in pieces.
    for limit in (249, 250, 251, 500, 501):
        assert json.loads((await read(bank, account, after=7, limit=limit))[0]) == whole[7 : 7 + limit]
    assert json.loads((await read(bank, account, after=900, limit=10_000))[0]) == whole[900:]
    assert (await read(bank, account, after=1000))[0] == b"[]"


async def test_a_page_is_limited_in_bytes_but_never_empty(bank: Bank, account: str) -> None:
    item = {"type": "deposit", "account_id": account, "amount": 1, "description": "x" * 1000}
    await bank.post("/commands", [item] * 1500)
    page, _ = await read(bank, account, after=2, limit=10_000)
    events = json.loads(page)
    assert 1024 * 1024 - 2000 < len(page) < 1024 * 1024 + 2000
    following, _ = await read(bank, account, after=2 + len(events), limit=1)
    assert json.loads(following)[0]["accountversion"] == 3 + len(events)


async def test_ones_own_command_is_in_it(bank: Bank, account: str) -> None:
    for _ in range(20):
        _, receipt = await bank.deposit(account, 1)
        status, events = await bank.query(
            f"/account/{account}/events", min_position=receipt["position"], after=receipt["version"] - 1
        )
        assert (status, [event["id"] for event in events]) == (200, [receipt["event_id"]])


async def test_the_history_of_an_account_that_only_rejections_name_is_there(bank: Bank, account_id: str) -> None:
    await bank.deposit(account_id, 1)
    (event,) = json.loads((await read(bank, account_id))[0])
    assert (event["type"], event["data"]["reason"]) == ("deposit-rejected", "account-not-found")


async def test_the_history_of_an_account_that_no_command_named_is_404(bank: Bank, account_id: str) -> None:
    async with bank.http.get(f"{bank.projection.url}/account/{account_id}/events") as response:
        problem = await response.json(content_type="application/problem+json")
    assert (response.status, problem["type"]) == (404, "urn:counting-house:problem:not-found")
    assert account_id in problem["detail"]
    assert response.headers["Ledger-Position"]


@pytest.mark.parametrize("query", ["after=-1", f"after={2**63}", "limit=0", "limit=10001", "limit=x"])
async def test_a_malformed_page_is_422(bank: Bank, account: str, query: str) -> None:
    status, problem = await bank.query(f"/account/{account}/events?{query}")
    assert (status, [error["field"] for error in problem["errors"]]) == (422, [query.partition("=")[0]])
