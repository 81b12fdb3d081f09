"""The table of the command service, row by row: status, body, headers, and the one event that each command leaves."""

from typing import Any
from uuid import UUID

import pytest

from tests.bank import Bank

INT64_MAX = 2**63 - 1
PROBLEM = "urn:counting-house:problem:"


async def stream(bank: Bank, account_id: str) -> list[dict[str, Any]]:
    """The account's events up to now; none when no command has named it."""
    status, events = await bank.query(f"/account/{account_id}/events", min_position=await head(bank), wait=30)
    return events if status == 200 else []


async def last_event(bank: Bank, account_id: str) -> dict[str, Any]:
    event = (await stream(bank, account_id))[-1]
    return {"type": event["type"], **event["data"]}


@pytest.mark.parametrize("slash", ["", "/"])
async def test_creating_an_account_answers_201_with_the_account(bank: Bank, account_id: str, slash: str) -> None:
    body = {"name": "Alice", "id": account_id}
    async with bank.http.post(f"{bank.command.url}/account{slash}", json=body) as response:
        answer = await response.json()
    assert response.status == 201
    assert response.content_type == "application/json"
    assert response.headers["Location"] == f"{bank.projection.url}/account/{account_id}"
    assert response.headers["Ledger-Position"] == str(answer["position"])
    assert answer == {
        "status": 201,
        "id": account_id,
        "name": "Alice",
        "asset": "USD/2",
        "balance": 0,
        "available": 0,
        "version": 1,
        "position": answer["position"],
    }
    assert await last_event(bank, account_id) == {"type": "account-created", "name": "Alice"}


async def test_the_location_of_a_new_account_is_where_it_can_be_read(bank: Bank, account_id: str) -> None:
    async with bank.http.post(f"{bank.command.url}/account/{account_id}", json={"name": "Alice"}) as response:
        location, position = response.headers["Location"], response.headers["Ledger-Position"]
    async with bank.http.get(location, params={"min_position": position}) as response:
        assert (await response.json())["name"] == "Alice"


@pytest.mark.parametrize("body", [{"name": "Alice"}, {"name": "Alice", "id": None}])
async def test_an_account_without_an_id_is_given_a_uuid_7(bank: Bank, body: dict[str, Any]) -> None:
    status, answer = await bank.post("/account/", body)
    assert status == 201
    assert UUID(answer["id"]).version == 7
    assert [event["type"] for event in await stream(bank, answer["id"])] == ["account-created"]


async def test_an_account_is_in_the_asset_that_it_was_created_in(bank: Bank, account: str, account_id: str) -> None:
    euros = [f"{account_id}-{number}" for number in (2, 3)]
    status, answer = await bank.post(f"/account/{euros[0]}", {"name": "Alice", "asset": "EUR/2"})
    assert (status, answer["asset"]) == (201, "EUR/2")
    assert await last_event(bank, euros[0]) == {"type": "account-created", "name": "Alice", "asset": "EUR/2"}
    batch = [
        {"type": "create-account", "account_id": euros[1], "name": "Bob", "asset": "EUR/2"},
        {"type": "create-account", "account_id": euros[1], "name": "Bob", "asset": "EUR/3"},
        {"type": "deposit", "account_id": euros[1], "amount": 5},
        {"type": "transfer", "account_id": euros[1], "to": euros[0], "amount": 2},
    ]
    _, results = await bank.post("/commands", batch)
    assert [result["status"] for result in results] == [201, 400, 200, 200]
    assert results[0]["asset"] == "EUR/2"
    assert (await stream(bank, euros[1]))[1]["data"] == {
        "name": "Bob",
        "reason": "account-already-exists",
        "asset": "EUR/3",
    }
    status, answer = await bank.post(f"/account/transfer/{account}", {"to": euros[0], "amount": 1})
    assert (status, answer["type"], answer["reason"]) == (400, f"{PROBLEM}asset-mismatch", "asset-mismatch")
    _, view = await bank.query(f"/account/{euros[0]}", min_position=answer["position"])
    assert (view["asset"], view["balance"]) == ("EUR/2", 2)


@pytest.mark.parametrize("asked", [{}, {"asset": None}, {"asset": "USD/2"}])
async def test_an_account_in_usd_is_recorded_as_before_there_were_assets(
    bank: Bank, account_id: str, asked: dict[str, Any]
) -> None:
    status, answer = await bank.post(f"/account/{account_id}", {"name": "Alice", **asked})
    assert (status, answer["asset"]) == (201, "USD/2")
    assert await last_event(bank, account_id) == {"type": "account-created", "name": "Alice"}
    await bank.post(f"/account/{account_id}", {"name": "Bob", **asked})
    assert (await stream(bank, account_id))[-1]["data"] == {"name": "Bob", "reason": "account-already-exists"}


@pytest.mark.parametrize("slash", ["", "/"])
async def test_an_account_is_created_under_the_id_in_the_path(bank: Bank, account_id: str, slash: str) -> None:
    status, answer = await bank.post(f"/account/{account_id}{slash}", {"name": "Alice"})
    assert (status, answer["id"]) == (201, account_id)


async def test_an_id_is_taken_once(bank: Bank, account: str) -> None:
    for path, body in [("/account", {"name": "Bob", "id": account}), (f"/account/{account}", {"name": "Bob"})]:
        async with bank.http.post(bank.command.url + path, json=body) as response:
            answer = await response.json(content_type=None)
        event = (await stream(bank, account))[-1]
        assert response.status == 400
        assert response.content_type == "application/problem+json"
        assert response.headers["Ledger-Position"] == str(answer["position"])
        assert answer == {
            "type": f"{PROBLEM}account-already-exists",
            "title": "Account already exists",
            "status": 400,
            "detail": f"The command was recorded as account-creation-rejected at position {answer['position']}.",
            "reason": "account-already-exists",
            "event_id": event["id"],
            "account_id": account,
            "position": int(event["sequence"]),
        }
        assert event["type"] == "account-creation-rejected"
        assert event["data"] == {"name": "Bob", "reason": "account-already-exists"}


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize(
    ("command", "event_type", "balance"), [("deposit", "amount-deposited", 130), ("withdraw", "amount-withdrawn", 70)]
)
async def test_an_accepted_amount_answers_200_with_a_receipt(
    bank: Bank, account: str, command: str, event_type: str, balance: int, slash: str
) -> None:
    body = {"amount": 30, "description": "Books"}
    status, answer = await bank.post(f"/account/{command}/{account}{slash}", body)
    event = (await stream(bank, account))[-1]
    assert status == 200
    assert answer == {
        "status": 200,
        "type": event_type,
        "event_id": event["id"],
        "account_id": account,
        "amount": 30,
        "balance": balance,
        "available": balance,
        "version": 3,
        "position": int(event["sequence"]),
    }
    assert (event["type"], event["data"]) == (event_type, body)


@pytest.mark.parametrize("slash", ["", "/"])
async def test_a_transfer_is_one_event_in_the_streams_of_both_accounts(
    bank: Bank, account: str, account_id: str, slash: str
) -> None:
    other = f"{account_id}-2"
    await bank.create(other)
    _, before = await bank.query("/reserve", min_position=await head(bank))
    body = {"to": other, "amount": 30, "description": "Rent"}
    status, answer = await bank.post(f"/account/transfer/{account}{slash}", body)
    event = (await stream(bank, account))[-1]
    assert status == 200
    assert answer == {
        "status": 200,
        "type": "money-transferred",
        "event_id": event["id"],
        "account_id": account,
        "amount": 30,
        "balance": 70,
        "available": 70,
        "version": 3,
        "position": int(event["sequence"]),
        "counterpart": {"account_id": other, "balance": 30, "version": 2},
    }
    assert (event["type"], event["data"]) == ("money-transferred", body)
    assert (event["counterpart"], event["counterpartversion"]) == (other, 2)
    assert (await stream(bank, other))[-1] == event
    payer, payee = [(await bank.query(f"/account/{name}"))[1] for name in (account, other)]
    assert [(view["balance"], view["version"], view["last_updated"]) for view in (payer, payee)] == [
        (70, 3, event["time"]),
        (30, 2, event["time"]),
    ]
    assert await bank.query("/reserve") == (200, before)


async def test_a_rejected_transfer_is_in_the_payers_stream_alone(bank: Bank, account: str, account_id: str) -> None:
    other = f"{account_id}-2"
    expected = [
        (f"{account_id}-3", account, 1, "account-not-found"),
        (account, other, 0, "amount-not-positive"),
        (account, other, 1, "counterpart-not-found"),
        (account, account, 1, "same-account"),
    ]
    for payer, payee, amount, reason in expected:
        status, answer = await bank.post(f"/account/transfer/{payer}", {"to": payee, "amount": amount})
        assert (status, answer["reason"], answer["account_id"]) == (400, reason, payer)
        recorded = {"type": "transfer-rejected", "to": payee, "amount": amount, "description": "", "reason": reason}
        assert await last_event(bank, payer) == recorded
    await bank.create(other)
    await bank.deposit(other, INT64_MAX)
    for amount, reason in (101, "insufficient-funds"), (1, "balance-limit-exceeded"):
        assert (await bank.post(f"/account/transfer/{account}", {"to": other, "amount": amount}))[1]["reason"] == reason
    assert len(await stream(bank, other)) == 2
    assert (await bank.query(f"/account/{account}"))[1]["balance"] == 100


async def test_transfers_in_a_batch_see_those_before_them(bank: Bank, account: str, account_id: str) -> None:
    batch: list[dict[str, Any]] = [
        {"type": "create-account", "account_id": f"{account_id}-2", "name": "Bob"},
        {"type": "transfer", "account_id": account, "to": f"{account_id}-2", "amount": 60},
        {"type": "transfer", "account_id": account, "to": f"{account_id}-2", "amount": 60},
        {"type": "transfer", "account_id": f"{account_id}-2", "to": account, "amount": 50},
        {"type": "transfer", "account_id": account, "to": f"{account_id}-2", "amount": 60},
    ]
    _, results = await bank.post("/commands", batch)
    assert [(one["status"], one.get("balance"), one.get("counterpart", {}).get("balance")) for one in results] == [
        (201, 0, None),
        (200, 40, 60),
        (400, None, None),
        (200, 10, 90),
        (200, 30, 70),
    ]
    assert [event["type"] for event in await stream(bank, f"{account_id}-2")] == [
        "account-created",
        *["money-transferred"] * 3,
    ]


async def test_an_overdraft_limit_lets_the_balance_go_below_zero(bank: Bank, account: str) -> None:
    status, answer = await bank.post(f"/account/overdraft/{account}", {"limit": 50})
    event = (await stream(bank, account))[-1]
    assert (status, answer) == (
        200,
        {
            "status": 200,
            "type": "overdraft-limit-set",
            "event_id": event["id"],
            "account_id": account,
            "balance": 100,
            "available": 150,
            "version": 3,
            "position": int(event["sequence"]),
        },
    )
    assert (event["type"], event["data"]) == ("overdraft-limit-set", {"limit": 50})
    assert (await bank.withdraw(account, 151))[1]["reason"] == "insufficient-funds"
    status, answer = await bank.withdraw(account, 140)
    assert (status, answer["balance"], answer["available"]) == (200, -40, 10)
    _, view = await bank.query(f"/account/{account}", min_position=answer["position"])
    assert (view["balance"], view["available"], view["overdraft_limit"]) == (-40, 10, 50)
    assert (await bank.post(f"/account/overdraft/{account}", {"limit": 39}))[1]["reason"] == "limit-in-use"
    status, answer = await bank.post(f"/account/overdraft/{account}", {"limit": 40})
    assert (status, answer["balance"], answer["available"]) == (200, -40, 0)


async def test_the_reserve_counts_what_is_below_zero(bank: Bank, account: str) -> None:
    await bank.post(f"/account/overdraft/{account}", {"limit": INT64_MAX})
    _, before = await bank.query("/reserve", min_position=await head(bank))
    _, answer = await bank.withdraw(account, INT64_MAX)
    _, after = await bank.query("/reserve", min_position=answer["position"])
    assert (answer["balance"], answer["available"]) == (100 - INT64_MAX, 100)
    assert after["amount"] == before["amount"] - INT64_MAX
    _, answer = await bank.deposit(account, INT64_MAX)
    assert (answer["balance"], answer["available"]) == (100, 100 + INT64_MAX)
    _, view = await bank.query(f"/account/{account}", min_position=answer["position"])
    assert (view["balance"], view["available"]) == (100, 100 + INT64_MAX)


async def test_a_frozen_account_moves_no_money(bank: Bank, account: str, account_id: str) -> None:
    other = f"{account_id}-2"
    await bank.create(other)
    await bank.deposit(other, 10)
    status, answer = await bank.post(f"/account/freeze/{account}", {"description": "court order"})
    assert (status, answer["type"], answer["balance"], "amount" in answer) == (200, "account-frozen", 100, False)
    refused = [
        (f"/account/deposit/{account}", {"amount": 1}, "account-frozen"),
        (f"/account/withdraw/{account}", {"amount": 1}, "account-frozen"),
        (f"/account/transfer/{account}", {"to": other, "amount": 1}, "account-frozen"),
        (f"/account/transfer/{other}", {"to": account, "amount": 1}, "counterpart-frozen"),
        (f"/account/close/{account}", {}, "account-frozen"),
        (f"/account/freeze/{account}", {}, "account-frozen"),
        (f"/account/unfreeze/{other}", {}, "not-frozen"),
    ]
    for path, body, reason in refused:
        status, answer = await bank.post(path, body)
        assert (status, answer["reason"]) == (400, reason)
    _, view = await bank.query(f"/account/{account}", min_position=await head(bank))
    assert (view["status"], view["balance"], view["version"]) == ("frozen", 100, 8)
    assert (await bank.post(f"/account/unfreeze/{account}", {}))[0] == 200
    status, answer = await bank.post(f"/account/transfer/{other}", {"to": account, "amount": 1})
    assert (status, answer["counterpart"]["balance"]) == (200, 101)


async def test_a_closed_account_stays_closed(bank: Bank, account: str, account_id: str) -> None:
    other = f"{account_id}-2"
    await bank.create(other)
    await bank.deposit(other, 10)
    assert (await bank.post(f"/account/close/{account}", {}))[1]["reason"] == "balance-not-zero"
    await bank.withdraw(account, 100)
    status, answer = await bank.post(f"/account/close/{account}", {"description": "moved away"})
    assert (status, answer["type"], answer["balance"]) == (200, "account-closed", 0)
    refused = [
        (f"/account/{account}", {"name": "Bob"}, "account-already-exists"),
        (f"/account/deposit/{account}", {"amount": 1}, "account-closed"),
        (f"/account/withdraw/{account}", {"amount": 1}, "account-closed"),
        (f"/account/transfer/{account}", {"to": other, "amount": 1}, "account-closed"),
        (f"/account/transfer/{other}", {"to": account, "amount": 1}, "counterpart-closed"),
        (f"/account/overdraft/{account}", {"limit": 1}, "account-closed"),
        (f"/account/freeze/{account}", {}, "account-closed"),
        (f"/account/unfreeze/{account}", {}, "account-closed"),
        (f"/account/close/{account}", {}, "account-closed"),
    ]
    for path, body, reason in refused:
        status, answer = await bank.post(path, body)
        assert (status, answer["reason"]) == (400, reason)
    _, view = await bank.query(f"/account/{account}", min_position=await head(bank))
    assert (view["status"], view["balance"]) == ("closed", 0)


async def test_a_description_can_be_left_out(bank: Bank, account: str) -> None:
    await bank.deposit(account, 1)
    assert await last_event(bank, account) == {"type": "amount-deposited", "amount": 1, "description": ""}


REJECTIONS = [
    ("deposit", 0, "amount-not-positive"),
    ("deposit", -1, "amount-not-positive"),
    ("deposit", -INT64_MAX - 1, "amount-not-positive"),
    ("deposit", INT64_MAX, "balance-limit-exceeded"),
    ("withdraw", 0, "amount-not-positive"),
    ("withdraw", -1, "amount-not-positive"),
    ("withdraw", 101, "insufficient-funds"),
    ("withdraw", INT64_MAX, "insufficient-funds"),
]


@pytest.mark.parametrize(("command", "amount", "reason"), REJECTIONS)
async def test_a_rejected_amount_answers_400_and_is_recorded(
    bank: Bank, account: str, command: str, amount: int, reason: str
) -> None:
    status, answer = await bank.post(f"/account/{command}/{account}", {"amount": amount})
    assert (status, answer["type"], answer["reason"]) == (400, PROBLEM + reason, reason)
    event_type = {"deposit": "deposit-rejected", "withdraw": "withdrawal-rejected"}[command]
    recorded = {"type": event_type, "amount": amount, "description": "", "reason": reason}
    assert await last_event(bank, account) == recorded


@pytest.mark.parametrize("command", ["deposit", "withdraw"])
async def test_a_command_for_an_account_that_does_not_exist_is_recorded_in_its_stream(
    bank: Bank, account_id: str, command: str
) -> None:
    status, answer = await bank.post(f"/account/{command}/{account_id}", {"amount": 1})
    assert (status, answer["reason"]) == (400, "account-not-found")
    status, account = await bank.create(account_id)
    assert (status, account["version"], account["balance"]) == (201, 2, 0)
    types = [event["type"] for event in await stream(bank, account_id)]
    assert types == [{"deposit": "deposit-rejected", "withdraw": "withdrawal-rejected"}[command], "account-created"]


async def test_a_balance_reaches_the_limit_and_can_be_emptied(bank: Bank, account: str) -> None:
    status, answer = await bank.deposit(account, INT64_MAX - 100)
    assert (status, answer["balance"]) == (200, INT64_MAX)
    assert (await bank.deposit(account, 1))[0] == 400
    status, answer = await bank.withdraw(account, INT64_MAX)
    assert (status, answer["balance"]) == (200, 0)


@pytest.mark.parametrize(
    "account_id",
    ["a", "Z" * 64, "A1._:-", "01a20960-3f1e-7562-9347-0dbb2f6a3de1", "deposit", "events", "-", "...", ".a"],
)
async def test_every_id_of_the_contract_works_in_every_path(bank: Bank, account_id: str) -> None:
    assert (await bank.post("/account", {"name": "Alice", "id": account_id}))[0] == 201
    assert (await bank.deposit(account_id, 2))[0] == 200
    assert (await bank.withdraw(account_id, 1))[0] == 200
    assert (await bank.create(account_id))[0] == 400
    assert len(await stream(bank, account_id)) == 4
    assert (await bank.query(f"/account/{account_id}", min_position=await head(bank)))[1]["balance"] == 1


async def head(bank: Bank) -> int:
    async with bank.http.get(f"{bank.command.url}/events", params={"after": str(2**62)}) as response:
        return int(response.headers["Ledger-Position"])


@pytest.mark.parametrize(
    "name", ["A", "é" * 200, "🏦" * 200, " ", "\n", "Robert'); DROP TABLE events;--", '"\\', "\u2028", "\ud7ff"]
)
async def test_a_name_is_kept_as_it_was_sent(bank: Bank, account_id: str, name: str) -> None:
    status, answer = await bank.create(account_id, name)
    assert (status, answer["name"]) == (201, name)
    assert (await last_event(bank, account_id))["name"] == name
    assert (await bank.query(f"/account/{account_id}", min_position=answer["position"]))[1]["name"] == name


@pytest.mark.parametrize("slash", ["", "/"])
async def test_a_batch_answers_each_command_as_it_would_have_been_alone(
    bank: Bank, account_id: str, slash: str
) -> None:
    batch = [
        {"type": "deposit", "account_id": account_id, "amount": 1},
        {"type": "create-account", "account_id": account_id, "name": "Alice"},
        {"type": "create-account", "account_id": account_id, "name": "Bob"},
        {"type": "deposit", "account_id": account_id, "amount": 100, "description": "Salary"},
        {"type": "withdraw", "account_id": account_id, "amount": 101},
        {"type": "withdraw", "account_id": account_id, "amount": 30},
        {"type": "create-account", "name": "Carol"},
    ]
    status, results = await bank.post(f"/commands{slash}", batch)
    assert status == 200
    assert [(result["status"], result.get("reason"), result.get("balance")) for result in results] == [
        (400, "account-not-found", None),
        (201, None, 0),
        (400, "account-already-exists", None),
        (200, None, 100),
        (400, "insufficient-funds", None),
        (200, None, 70),
        (201, None, 0),
    ]
    first = results[0]["position"]
    assert [result["position"] for result in results] == list(range(first, first + 7))
    assert [event["accountversion"] for event in await stream(bank, account_id)] == [1, 2, 3, 4, 5, 6]
    created, accepted = await bank.create(f"{account_id}-2"), await bank.deposit(account_id, 1)
    rejected = await bank.withdraw(account_id, 72)
    for (status, alone), result in zip((created, accepted, rejected), (results[1], *results[3:5]), strict=True):
        assert (status, list(alone)) == (result["status"], list(result))


async def test_a_batch_can_be_empty_and_as_large_as_10_000(bank: Bank, account: str) -> None:
    assert await bank.post("/commands", []) == (200, [])
    status, results = await bank.post("/commands", [{"type": "deposit", "account_id": account, "amount": 1}] * 10_000)
    assert (status, len(results), results[-1]["balance"]) == (200, 10_000, 10_100)


METADATA = {
    "invoice": "2026-117",
    "\U0001f3e6": 'Zo\u00eb \\ "',
    "": "",
    "k" * 64: "v" * 200,
    **{str(n): "" for n in range(16)},
}


async def test_every_command_carries_metadata_into_its_event(bank: Bank, account_id: str) -> None:
    assert len(METADATA) == 20
    other = f"{account_id}-2"
    await bank.create(other)
    bodies: list[tuple[str, dict[str, Any]]] = [
        (f"/account/deposit/{account_id}", {"amount": 1}),
        ("/account", {"name": "Alice", "id": account_id}),
        (f"/account/{account_id}", {"name": "Alice"}),
        (f"/account/deposit/{account_id}", {"amount": 100}),
        (f"/account/withdraw/{account_id}", {"amount": 1}),
        (f"/account/transfer/{account_id}", {"to": other, "amount": 1}),
        (f"/account/transfer/{account_id}", {"to": other, "amount": 1000}),
        (f"/account/overdraft/{account_id}", {"limit": 5}),
        (f"/account/freeze/{account_id}", {"description": "x"}),
        (f"/account/unfreeze/{account_id}", {}),
        (f"/account/close/{account_id}", {}),
    ]
    for path, body in bodies:
        await bank.post(path, {**body, "metadata": METADATA})
        assert list((await last_event(bank, account_id)).items())[-1] == ("metadata", METADATA)
    assert (await last_event(bank, other))["metadata"] == METADATA


async def test_metadata_without_a_pair_are_left_out(bank: Bank, account: str) -> None:
    item = {"type": "deposit", "account_id": account, "amount": 5, "description": "Salary", "metadata": {}}
    await bank.post("/commands", [item])
    recorded = {"type": "amount-deposited", "amount": 5, "description": "Salary"}
    assert await last_event(bank, account) == recorded


async def test_of_two_metadata_with_one_key_the_last_counts_as_everywhere_in_a_body(bank: Bank, account: str) -> None:
    url = f"{bank.command.url}/account/deposit/{account}"
    body = b'{"amount": 5, "amount": 6, "metadata": {"a": "b", "a": "c"}}'
    async with bank.http.post(url, data=body, headers={"Content-Type": "application/json"}) as response:
        assert response.status == 200
    recorded = {"type": "amount-deposited", "amount": 6, "description": "", "metadata": {"a": "c"}}
    assert await last_event(bank, account) == recorded


async def test_a_command_for_another_version_is_rejected_and_recorded(bank: Bank, account: str) -> None:
    for if_version in (0, 1, 3, INT64_MAX):
        status, answer = await bank.post(f"/account/withdraw/{account}", {"amount": 1, "if_version": if_version})
        assert (status, answer["type"], answer["reason"]) == (400, f"{PROBLEM}version-mismatch", "version-mismatch")
        assert await last_event(bank, account) == {
            "type": "withdrawal-rejected",
            "amount": 1,
            "description": "",
            "reason": "version-mismatch",
            "if_version": if_version,
        }
    status, answer = await bank.post(f"/account/withdraw/{account}", {"amount": 1, "if_version": 6})
    assert (status, answer["version"], answer["balance"]) == (200, 7, 99)
    assert await last_event(bank, account) == {"type": "amount-withdrawn", "amount": 1, "description": ""}


async def test_version_0_is_that_of_an_account_without_events(bank: Bank, account_id: str) -> None:
    assert (await bank.post(f"/account/{account_id}", {"name": "Alice", "if_version": 1}))[0] == 400
    assert (await bank.post(f"/account/{account_id}", {"name": "Alice", "if_version": 0}))[0] == 400
    assert (await bank.post(f"/account/{account_id}", {"name": "Alice", "if_version": 2}))[0] == 201
    assert (await bank.post("/account", {"name": "Alice", "if_version": 1}))[1]["reason"] == "version-mismatch"
    assert (await bank.post("/account", {"name": "Alice", "if_version": 0}))[0] == 201


LINKED = "linked-command-rejected"


def fees(account: str, other: str, amount: int) -> list[dict[str, Any]]:
    """A payment of `amount`, and what is paid for it."""
    return [
        {"type": "create-account", "account_id": other, "name": "Bob"},
        {"type": "transfer", "account_id": account, "to": other, "amount": amount},
        {"type": "transfer", "account_id": account, "to": other, "amount": 1, "description": "fee"},
        {"type": "deposit", "account_id": other, "amount": 5},
    ]


@pytest.mark.parametrize("slash", ["", "/"])
async def test_an_atomic_batch_that_is_rejected_changes_nothing_and_says_why(
    bank: Bank, account: str, account_id: str, slash: str
) -> None:
    other = f"{account_id}-2"
    _, before = await bank.query("/reserve", min_position=await head(bank))
    status, results = await bank.post(f"/commands{slash}?atomic=true", fees(account, other, 100))
    assert (status, [result["status"] for result in results]) == (200, [400] * 4)
    assert [result["reason"] for result in results] == [LINKED, LINKED, "insufficient-funds", LINKED]
    assert [result["type"] for result in results] == [PROBLEM + result["reason"] for result in results]
    first = results[0]["position"]
    assert [result["position"] for result in results] == list(range(first, first + 4))
    assert [(event["type"], event["data"]["reason"]) for event in (await stream(bank, account))[2:]] == [
        ("transfer-rejected", LINKED),
        ("transfer-rejected", "insufficient-funds"),
    ]
    assert [(event["type"], event["data"]["reason"]) for event in await stream(bank, other)] == [
        ("account-creation-rejected", LINKED),
        ("deposit-rejected", LINKED),
    ]
    _, view = await bank.query(f"/account/{account}")
    assert (view["balance"], view["version"]) == (100, 4)
    assert (await bank.query(f"/account/{other}"))[0] == 404
    assert (await bank.query("/reserve"))[1] == before


async def test_an_atomic_batch_that_is_accepted_is_answered_as_another(
    bank: Bank, account: str, account_id: str
) -> None:
    status, results = await bank.post("/commands?atomic=true", fees(account, f"{account_id}-2", 99))
    told = [(result["status"], result.get("reason"), result["balance"]) for result in results]
    assert (status, told) == (200, [(201, None, 0), (200, None, 1), (200, None, 0), (200, None, 105)])


@pytest.mark.parametrize("query", ["", "?", "?atomic=false"])
async def test_a_batch_is_atomic_only_when_it_is_asked_for(
    bank: Bank, account: str, account_id: str, query: str
) -> None:
    _, results = await bank.post(f"/commands{query}", fees(account, f"{account_id}-2", 100))
    assert [result["status"] for result in results] == [201, 200, 400, 200]


async def test_an_atomic_batch_of_one_or_none_is_answered_as_another(bank: Bank, account: str) -> None:
    assert await bank.post("/commands?atomic=true", []) == (200, [])
    for key in (None, f"{account}/0", f"{account}-atomic"):
        withdrawal = {"type": "withdraw", "account_id": account, "amount": 101}
        _, (result,) = await bank.post("/commands?atomic=true", [withdrawal], key)
        assert (result["status"], result["reason"]) == (400, "insufficient-funds")
    assert [event["commandid"] for event in (await stream(bank, account))[-2:]] == [
        f"{account}/0/0",
        f"{account}-atomic",
    ]


async def test_traceparent_is_passed_on_in_the_event_if_it_is_one(bank: Bank, account: str) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for sent, expected in [(trace, trace), ("nonsense", None), (trace.replace("b7ad6b7169203331", "0" * 16), None)]:
        url = f"{bank.command.url}/account/deposit/{account}"
        async with bank.http.post(url, json={"amount": 1}, headers={"traceparent": sent}) as response:
            assert response.status == 200
        assert (await stream(bank, account))[-1].get("traceparent") == expected


async def test_every_command_has_its_own_commandid(bank: Bank, account: str) -> None:
    await bank.post("/commands", [{"type": "deposit", "account_id": account, "amount": 1}] * 3)
    await bank.post("/commands", [{"type": "deposit", "account_id": account, "amount": 1}] * 2, key="batch")
    await bank.deposit(account, 1, key="batch/0")
    await bank.deposit(account, 1, key="my-key")
    ids = [event["commandid"] for event in await stream(bank, account)]
    assert len(set(ids)) == len(ids)
    assert ids[-4:] == ["batch/0", "batch/1", "batch/0/0", "my-key"]
