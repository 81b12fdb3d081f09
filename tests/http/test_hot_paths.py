"""The hot paths answer as the application does: a media type with a parameter goes to the application."""

import json
from typing import Any

import pytest

from tests.bank import Bank

HOT = {"Content-Type": "application/json"}
NOT_HOT = {"Content-Type": "application/json; charset=utf-8"}
OWN = {"event_id", "position", "version", "balance", "detail"}
"""What differs from one command to the next."""


async def post(bank: Bank, path: str, body: object, headers: dict[str, str]) -> tuple[int, dict[str, str], Any]:
    async with bank.http.post(bank.command.url + path, data=json.dumps(body).encode(), headers=headers) as response:
        shown = {
            "Content-Type": response.headers["Content-Type"],
            "has position": str("Ledger-Position" in response.headers),
        }
        return response.status, shown, await response.json(content_type=None)


def without_own(answer: Any) -> Any:
    if isinstance(answer, list):
        return [without_own(item) for item in answer]
    return {name: value for name, value in answer.items() if name not in OWN} | {"names": sorted(answer)}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/account/deposit/{}", {"amount": 5, "description": "Zoë 🏦"}),
        ("/account/deposit/{}", {"amount": 0}),
        ("/account/withdraw/{}", {"amount": 5}),
        ("/account/withdraw/{}", {"amount": 2**63 - 1}),
        ("/account/deposit/nobody", {"amount": 5}),
        ("/account/deposit/{}", {"amount": "5"}),
        ("/account/deposit/{}", {"amount": 5, "description": "a\0b"}),
        ("/account/deposit/{}", {"amount": 5, "currency": "EUR"}),
        ("/account/deposit/a%20b", {"amount": 5}),
        ("/commands", []),
        (
            "/commands",
            [
                {"type": "create-account", "account_id": "hot", "name": "x"},
                {"type": "deposit", "account_id": "hot", "amount": 5, "description": "Zoë 🏦"},
                {"type": "withdraw", "account_id": "hot", "amount": 50},
            ],
        ),
        ("/commands", [{"type": "create-account", "name": "x" * 201}]),
        ("/commands", [{"type": "deposit", "account_id": "a b", "amount": 5}]),
        ("/commands", [{"type": "transfer", "account_id": "a", "amount": 5}]),
    ],
)
async def test_a_hot_path_answers_as_the_application_does(bank: Bank, account: str, path: str, body: object) -> None:
    await bank.deposit(account, 1_000)
    await post(bank, "/commands", [{"type": "create-account", "account_id": "hot", "name": "x"}], NOT_HOT)
    hot = await post(bank, path.format(account), body, HOT)
    not_hot = await post(bank, path.format(account), body, NOT_HOT)
    assert (hot[0], hot[1], without_own(hot[2])) == (not_hot[0], not_hot[1], without_own(not_hot[2]))


@pytest.mark.parametrize(("first", "second"), [(HOT, NOT_HOT), (NOT_HOT, HOT)])
async def test_a_key_is_the_same_on_both_ways(
    bank: Bank, account: str, first: dict[str, str], second: dict[str, str]
) -> None:
    for number, (path, body) in enumerate(
        [
            (f"/account/deposit/{account}", {"amount": 5, "description": "x"}),
            (f"/account/withdraw/{account}", {"amount": 500_000}),
            ("/commands", [{"type": "deposit", "account_id": account, "amount": 5}]),
        ]
    ):
        key = {"Idempotency-Key": f"{account}-{number}-{first is HOT}"}
        assert await post(bank, path, body, {**first, **key}) == await post(bank, path, body, {**second, **key})


async def test_a_trace_is_passed_on_by_both_ways(bank: Bank, account: str) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for headers in (HOT, NOT_HOT):
        _, _, receipt = await post(
            bank, f"/account/deposit/{account}", {"amount": 1}, {**headers, "traceparent": trace}
        )
        async with bank.http.get(f"{bank.command.url}/events?after={receipt['position'] - 1}&limit=1") as response:
            (event,) = await response.json(content_type=None)
        assert event["traceparent"] == trace


@pytest.mark.parametrize("query", ["", "min_position={}", "min_position=0"])
async def test_a_query_is_answered_alike_on_both_ways(bank: Bank, account: str, query: str) -> None:
    """A query that names `wait` goes to the application."""
    _, receipt = await bank.deposit(account, 1)
    await bank.query(f"/account/{account}", min_position=receipt["position"], wait=30)
    answers = []
    for wait in ("", "&wait=0"):
        url = f"{bank.projection.url}/account/{account}?{query.format(receipt['position'])}{wait}"
        async with bank.http.get(url) as response:
            shown = [response.headers[name] for name in ("Content-Type", "Ledger-Position")]
            answers.append((response.status, shown, await response.json()))
    assert answers[0] == answers[1]
    assert answers[0][0] == 200
