"""The same key with the same request is one command, whatever happens in between."""

import asyncio
from pathlib import Path

import pytest

from tests.bank import Bank, open_bank
from tests.http.test_commands import stream

Request = tuple[str, object]


def requests(account_id: str) -> list[Request]:
    """Each kind of request, accepted and rejected ones among them."""
    return [
        ("/account", {"name": "Alice", "id": account_id}),
        ("/account", {"name": 'Zoë "🏦" \\ \x7f/\u2028'}),
        (f"/account/{account_id}", {"name": "Bob"}),
        (f"/account/deposit/{account_id}", {"amount": 100, "description": "Salary"}),
        (f"/account/deposit/{account_id}", {"amount": 0}),
        (f"/account/withdraw/{account_id}", {"amount": 30}),
        (f"/account/withdraw/{account_id}", {"amount": 1000}),
        (f"/account/{account_id}-2", {"name": "Bob"}),
        (f"/account/overdraft/{account_id}", {"limit": 10}),
        (f"/account/unfreeze/{account_id}", {}),
        (f"/account/transfer/{account_id}", {"to": f"{account_id}-2", "amount": 20}),
        (f"/account/transfer/{account_id}", {"to": f"{account_id}-2", "amount": 1000}),
        (f"/account/hold/{account_id}", {"amount": 2, "hold_id": "h"}),
        (f"/account/hold/{account_id}", {"amount": 1}),
        (f"/account/capture/{account_id}", {"hold_id": "h", "amount": 1, "to": f"{account_id}-2"}),
        (f"/account/capture/{account_id}", {"hold_id": "h"}),
        (f"/account/release/{account_id}", {"hold_id": "h"}),
        (
            "/commands",
            [
                {"type": "deposit", "account_id": account_id, "amount": 5},
                {"type": "withdraw", "account_id": account_id, "amount": 9999},
                {"type": "create-account", "name": "Carol"},
            ],
        ),
        ("/commands", []),
        (f"/account/deposit/{account_id}", {"amount": 5, "if_version": 7, "metadata": {"invoice": "2026-117"}}),
        (f"/account/deposit/{account_id}", {"amount": 5, "if_version": 0}),
        (
            "/commands?atomic=true",
            [
                {"type": "deposit", "account_id": account_id, "amount": 5},
                {"type": "withdraw", "account_id": account_id, "amount": 9999},
                {"type": "create-account", "name": "Carol"},
            ],
        ),
        (
            "/commands?atomic=true",
            [
                {"type": "deposit", "account_id": account_id, "amount": 5},
                {"type": "withdraw", "account_id": account_id, "amount": 1},
            ],
        ),
    ]


async def ask(bank: Bank, request: Request, key: str) -> tuple[int, dict[str, str], bytes]:
    """Status, the headers that the contract names, and the body, byte for byte."""
    path, body = request
    headers = {"Idempotency-Key": key}
    async with bank.http.post(bank.command.url + path, json=body, headers=headers) as response:
        named = {name: response.headers.get(name, "") for name in ("Location", "Ledger-Position", "Content-Type")}
        return response.status, named, await response.read()


async def test_the_same_request_gets_the_same_answer_and_no_event(bank: Bank, account_id: str) -> None:
    for number, request in enumerate(requests(account_id)):
        first = await ask(bank, request, f"{account_id}-{number}")
        before = await bank.log()
        assert await ask(bank, request, f"{account_id}-{number}") == first
        assert len(await bank.log()) == len(before)


async def test_the_answer_outlives_a_crash(tmp_path: Path) -> None:
    async with open_bank(tmp_path, projections=0) as bank:
        answers = [await ask(bank, request, f"key-{n}") for n, request in enumerate(requests("alice"))]
        log = await bank.log()
        await bank.command.kill()
        await bank.command.start()
        assert [await ask(bank, request, f"key-{n}") for n, request in enumerate(requests("alice"))] == answers
        assert await bank.log() == log


async def test_duplicates_at_the_same_moment_are_one_command(bank: Bank, account: str) -> None:
    duplicates = [bank.deposit(account, 10, key=f"{account}-together") for _ in range(50)]
    answers = await asyncio.gather(*duplicates)
    assert [answer for answer in answers if answer != answers[0]] == []
    assert len(await stream(bank, account)) == 3


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/account/deposit/{}", {"amount": 11}),
        ("/account/deposit/{}", {"amount": 10, "description": "x"}),
        ("/account/deposit/{}", {"amount": 10, "metadata": {"a": "b"}}),
        ("/account/deposit/{}", {"amount": 10, "if_version": 0}),
        ("/account/withdraw/{}", {"amount": 10}),
        ("/account/transfer/{}", {"to": "other", "amount": 10}),
        ("/account/deposit/other", {"amount": 10}),
        ("/account/{}", {"name": "Alice"}),
        ("/commands", [{"type": "deposit", "account_id": "other", "amount": 10}]),
        ("/commands", [{"type": "deposit", "account_id": "{}", "amount": 10}]),
        ("/commands", []),
    ],
)
async def test_the_same_key_with_another_request_is_422_and_records_nothing(
    bank: Bank, account: str, path: str, body: object
) -> None:
    key = f"{account}-reused"
    first = await bank.deposit(account, 10, key)
    before = await bank.log()
    if isinstance(body, list):
        body = [{**command, "account_id": command["account_id"].format(account)} for command in body]
    status, problem = await bank.post(path.format(account), body, key)
    assert (status, problem["type"]) == (422, "urn:counting-house:problem:idempotency-key-reused")
    assert await bank.log() == before
    assert await bank.deposit(account, 10, key) == first


async def test_the_same_batch_atomic_and_not_are_two_requests(bank: Bank, account: str) -> None:
    batch = [{"type": "deposit", "account_id": account, "amount": 10}] * 2
    for first, other, key in [
        ("/commands", "/commands?atomic=true", f"{account}-plain"),
        ("/commands?atomic=true", "/commands?atomic=false", f"{account}-atomic"),
    ]:
        assert (await bank.post(first, batch, key))[0] == 200
        status, problem = await bank.post(other, batch, key)
        assert (status, problem["type"]) == (422, "urn:counting-house:problem:idempotency-key-reused")
    assert await bank.post("/commands?atomic=false", batch, f"{account}-plain") == await bank.post(
        "/commands", batch, f"{account}-plain"
    )
    assert len(await stream(bank, account)) == 6


async def test_an_empty_batch_uses_its_key(bank: Bank, account: str) -> None:
    key = f"{account}-empty"
    assert await bank.post("/commands", [], key) == (200, [])
    assert (await bank.deposit(account, 10, key))[0] == 422
    assert await bank.post("/commands", [], key) == (200, [])


async def test_a_key_is_the_same_with_and_without_parameters_of_the_media_type(bank: Bank, account: str) -> None:
    answers = []
    for media_type in ("application/json", "Application/JSON; charset=utf-8", "application/vnd.bank+json"):
        headers = {"Content-Type": media_type, "Idempotency-Key": f"{account}-media-type"}
        url = f"{bank.command.url}/account/deposit/{account}"
        async with bank.http.post(url, data=b'{"amount": 10}', headers=headers) as response:
            answers.append((response.status, await response.json()))
    assert answers == [answers[0]] * 3


async def test_spacing_the_order_of_fields_and_defaults_do_not_make_another_request(bank: Bank, account: str) -> None:
    url = f"{bank.command.url}/account/deposit/{account}"
    answers = []
    for body in (b'{"amount": 10}', b'{"description":"","amount":10}', b' {"amount":\n10 } '):
        headers = {"Content-Type": "application/json", "Idempotency-Key": f"{account}-spaced"}
        async with bank.http.post(url, data=body, headers=headers) as response:
            answers.append((response.status, await response.json()))
    assert answers == [answers[0]] * 3


async def test_the_order_of_metadata_does_not_make_another_request(bank: Bank, account: str) -> None:
    answers = []
    for metadata in ({"a": "1", "b": "2"}, {"b": "2", "a": "1"}):
        body = {"amount": 10, "metadata": metadata}
        answers.append(await bank.post(f"/account/deposit/{account}", body, f"{account}-ordered"))
    assert answers[0] == answers[1]
    assert len(await stream(bank, account)) == 3


async def test_a_key_is_the_same_quoted_and_bare(bank: Bank, account: str) -> None:
    first = await bank.deposit(account, 10, key=f"{account}-key")
    assert await bank.deposit(account, 10, key=f'"{account}-key"') == first
    assert len(await stream(bank, account)) == 3


async def test_a_malformed_request_does_not_use_up_its_key(bank: Bank, account: str) -> None:
    key = f"{account}-malformed"
    assert (await bank.post(f"/account/deposit/{account}", {"amount": "10"}, key))[0] == 422
    assert (await bank.deposit(account, 10, key))[0] == 200


async def test_without_a_key_the_same_request_is_two_commands(bank: Bank, account: str) -> None:
    await bank.deposit(account, 10)
    assert (await bank.deposit(account, 10))[1]["balance"] == 120
