"""Holds over HTTP: what each command is answered and recorded with, what the views show, and that they expire."""

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest

from shared.events import written
from tests.bank import Bank
from tests.http.test_commands import head, last_event, stream

VISIBLE_SECONDS = 30


def in_seconds(seconds: float) -> str:
    return written(datetime.now(UTC) + timedelta(seconds=seconds))


async def place(bank: Bank, account: str, amount: int, hold_id: str | None = None, **more: object) -> dict[str, Any]:
    body = {"amount": amount, **({"hold_id": hold_id} if hold_id else {}), **more}
    status, answer = await bank.post(f"/account/hold/{account}", body)
    assert status == 200, answer
    return dict(answer)


async def open_holds(bank: Bank, account: str, query: str = "") -> Any:
    path = f"/account/{account}/holds{query}"
    status, holds = await bank.query(path, min_position=await head(bank), wait=VISIBLE_SECONDS)
    return holds if status == 200 else status


async def figures(bank: Bank, account: str) -> tuple[int, int, int]:
    """What a query says of it: balance, held, available."""
    _, view = await bank.query(f"/account/{account}", min_position=await head(bank), wait=VISIBLE_SECONDS)
    return view["balance"], view["held"], view["available"]


async def reserve(bank: Bank) -> int:
    _, view = await bank.query("/reserve", min_position=await head(bank), wait=VISIBLE_SECONDS)
    return int(view["amount"])


@pytest.mark.parametrize("slash", ["", "/"])
async def test_a_hold_takes_from_what_is_available_and_not_from_the_balance(
    bank: Bank, account: str, slash: str
) -> None:
    expires_at = in_seconds(3600)
    body = {"amount": 30, "hold_id": "order-7", "expires_at": expires_at, "description": "Books"}
    before = await reserve(bank)
    status, answer = await bank.post(f"/account/hold/{account}{slash}", body)
    event = (await stream(bank, account))[-1]
    assert status == 200
    assert answer == {
        "status": 200,
        "type": "hold-placed",
        "event_id": event["id"],
        "account_id": account,
        "hold_id": "order-7",
        "amount": 30,
        "balance": 100,
        "available": 70,
        "version": 3,
        "position": int(event["sequence"]),
    }
    assert (event["type"], event["data"]) == ("hold-placed", body)
    assert await figures(bank, account) == (100, 30, 70)
    assert await reserve(bank) == before
    assert await open_holds(bank, account) == [
        {
            "hold_id": "order-7",
            "amount": 30,
            "expires_at": expires_at,
            "description": "Books",
            "placed_at": event["time"],
        }
    ]
    assert (await bank.withdraw(account, 71))[1]["reason"] == "insufficient-funds"


async def test_a_hold_without_an_id_is_given_a_uuid_7_and_may_stay_for_ever(bank: Bank, account: str) -> None:
    answers = [await place(bank, account, 10) for _ in range(2)]
    ids = [answer["hold_id"] for answer in answers]
    assert [UUID(hold_id).version for hold_id in ids] == [7, 7]
    assert await last_event(bank, account) == {
        "type": "hold-placed",
        "hold_id": ids[1],
        "amount": 10,
        "description": "",
    }
    assert [hold["expires_at"] for hold in await open_holds(bank, account)] == [None, None]
    assert [hold["hold_id"] for hold in await open_holds(bank, account)] == sorted(ids)


@pytest.mark.parametrize("slash", ["", "/"])
async def test_a_capture_out_of_the_bank_takes_it_from_balance_and_reserve_and_releases_the_rest(
    bank: Bank, account: str, slash: str
) -> None:
    await place(bank, account, 30, "order-7")
    before = await reserve(bank)
    status, answer = await bank.post(f"/account/capture/{account}{slash}", {"hold_id": "order-7", "amount": 20})
    event = (await stream(bank, account))[-1]
    assert status == 200
    assert answer == {
        "status": 200,
        "type": "hold-captured",
        "event_id": event["id"],
        "account_id": account,
        "hold_id": "order-7",
        "amount": 20,
        "released": 10,
        "balance": 80,
        "available": 80,
        "version": 4,
        "position": int(event["sequence"]),
    }
    assert (event["type"], event["data"]) == ("hold-captured", {"hold_id": "order-7", "amount": 20, "released": 10})
    assert "counterpart" not in event
    assert await figures(bank, account) == (80, 0, 80)
    assert await reserve(bank) == before - 20
    assert await open_holds(bank, account) == []


async def test_a_capture_into_another_account_is_one_event_in_the_streams_of_both(
    bank: Bank, account: str, account_id: str
) -> None:
    other = f"{account_id}-2"
    await bank.create(other)
    await place(bank, account, 30, "order-7")
    before = await reserve(bank)
    status, answer = await bank.post(f"/account/capture/{account}", {"hold_id": "order-7", "to": other})
    event = (await stream(bank, account))[-1]
    assert (status, answer["amount"], answer["released"]) == (200, 30, 0)
    assert answer["counterpart"] == {"account_id": other, "balance": 30, "version": 2}
    assert event["data"] == {"hold_id": "order-7", "amount": 30, "released": 0, "to": other}
    assert (event["counterpart"], event["counterpartversion"]) == (other, 2)
    assert (await stream(bank, other))[-1] == event
    assert await reserve(bank) == before
    assert (await figures(bank, account), await figures(bank, other)) == ((70, 0, 70), (30, 0, 30))


@pytest.mark.parametrize("slash", ["", "/"])
async def test_a_release_gives_it_back(bank: Bank, account: str, slash: str) -> None:
    await place(bank, account, 30, "order-7")
    await bank.post(f"/account/freeze/{account}", {})
    status, answer = await bank.post(f"/account/release/{account}{slash}", {"hold_id": "order-7"})
    event = (await stream(bank, account))[-1]
    assert status == 200
    assert answer == {
        "status": 200,
        "type": "hold-released",
        "event_id": event["id"],
        "account_id": account,
        "hold_id": "order-7",
        "amount": 30,
        "balance": 100,
        "available": 100,
        "version": 5,
        "position": int(event["sequence"]),
    }
    assert (event["type"], event["data"]) == ("hold-released", {"hold_id": "order-7", "amount": 30})
    assert await figures(bank, account) == (100, 0, 100)


async def test_each_rejection_has_its_reason_and_is_recorded_with_what_was_asked(
    bank: Bank, account: str, account_id: str
) -> None:
    nobody, other = f"{account_id}-2", f"{account_id}-3"
    await bank.create(other)
    await place(bank, account, 60, "order-7")
    long_ago = "2020-01-01T00:00:00.000000Z"
    hold, capture, release = "hold", "capture", "release"
    rejected: list[tuple[str, str, dict[str, Any], str]] = [
        (hold, nobody, {"hold_id": "x", "amount": 1}, "account-not-found"),
        (hold, account, {"hold_id": "x", "amount": 0}, "amount-not-positive"),
        (hold, account, {"hold_id": "x", "amount": 41}, "insufficient-funds"),
        (hold, account, {"hold_id": "order-7", "amount": 1}, "hold-already-exists"),
        (hold, account, {"hold_id": "x", "amount": 1, "expires_at": long_ago}, "expiry-not-in-the-future"),
        (capture, nobody, {"hold_id": "order-7"}, "account-not-found"),
        (capture, account, {"hold_id": "x"}, "hold-not-found"),
        (capture, other, {"hold_id": "order-7"}, "hold-not-found"),
        (capture, account, {"hold_id": "order-7", "amount": 0}, "amount-not-positive"),
        (capture, account, {"hold_id": "order-7", "amount": 61}, "amount-over-hold"),
        (capture, account, {"hold_id": "order-7", "to": account}, "same-account"),
        (capture, account, {"hold_id": "order-7", "amount": 1, "to": nobody}, "counterpart-not-found"),
        (release, nobody, {"hold_id": "order-7"}, "account-not-found"),
        (release, account, {"hold_id": "x"}, "hold-not-found"),
        (release, other, {"hold_id": "order-7"}, "hold-not-found"),
    ]
    for command, asked, body, reason in rejected:
        status, answer = await bank.post(f"/account/{command}/{asked}", body)
        assert (status, answer["reason"], answer["account_id"]) == (400, reason, asked)
        more = {"description": ""} if command == hold else {}
        assert await last_event(bank, asked) == {"type": f"{command}-rejected", **body, **more, "reason": reason}
    assert (await bank.post(f"/account/overdraft/{account}", {"limit": 0}))[0] == 200
    await bank.post(f"/account/overdraft/{other}", {"limit": 50})
    await place(bank, other, 50, "order-8")
    assert (await bank.post(f"/account/overdraft/{other}", {"limit": 49}))[1]["reason"] == "limit-in-use"
    assert (await bank.post(f"/account/close/{other}", {}))[1]["reason"] == "holds-open"
    assert await figures(bank, account) == (100, 60, 40)
    assert [hold["hold_id"] for hold in await open_holds(bank, account)] == ["order-7"]


async def test_holds_in_a_batch_see_those_before_them(bank: Bank, account: str) -> None:
    hold = {"type": "hold", "account_id": account, "hold_id": "order-7", "amount": 60}
    capture = {"type": "capture", "account_id": account, "hold_id": "order-7", "amount": 10}
    release = {"type": "release", "account_id": account, "hold_id": "order-7"}
    _, results = await bank.post("/commands", [hold, hold, capture, capture, hold, release, release, hold])
    assert [(one["status"], one.get("reason", one.get("available"))) for one in results] == [
        (200, 40),
        (400, "hold-already-exists"),
        (200, 90),
        (400, "hold-not-found"),
        (200, 30),
        (200, 90),
        (400, "hold-not-found"),
        (200, 30),
    ]
    assert await figures(bank, account) == (90, 60, 30)
    assert [(one["hold_id"], one["amount"]) for one in await open_holds(bank, account)] == [("order-7", 60)]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("2999-12-31T23:59:59Z", "2999-12-31T23:59:59.000000Z"),
        ("2999-12-31t23:59:59.1z", "2999-12-31T23:59:59.100000Z"),
        ("2999-12-31T23:59:59.1234567+01:00", "2999-12-31T22:59:59.123457Z"),
        ("2999-12-31T23:59:59-23:59", "3000-01-01T23:58:59.000000Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
    ],
)
async def test_an_expiry_is_kept_as_times_are_written(bank: Bank, account: str, sent: str, kept: str) -> None:
    await place(bank, account, 1, "alone", expires_at=sent)
    assert (await last_event(bank, account))["expires_at"] == kept
    batch = [{"type": "hold", "account_id": account, "hold_id": "in-a-batch", "amount": 1, "expires_at": sent}]
    assert (await bank.post("/commands", batch))[1][0]["status"] == 200
    assert (await last_event(bank, account))["expires_at"] == kept


async def test_the_same_hold_asked_for_twice_with_one_key_is_one(bank: Bank, account: str) -> None:
    key = f"{account}-hold"
    first = await bank.post(f"/account/hold/{account}", {"amount": 10}, key)
    assert first[0] == 200
    assert await bank.post(f"/account/hold/{account}", {"amount": 10}, key) == first
    assert len(await open_holds(bank, account)) == 1


async def test_a_hold_expires_soon_after_its_time_and_never_before(bank: Bank, account: str) -> None:
    zone = timezone(timedelta(hours=-3))
    expires_at = (datetime.now(UTC) + timedelta(seconds=1)).astimezone(zone).isoformat()
    await place(bank, account, 30, "brief", expires_at=expires_at)
    await place(bank, account, 30, "lasting", expires_at=in_seconds(3600))
    async with asyncio.timeout(VISIBLE_SECONDS):
        while len(await open_holds(bank, account)) > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    event = (await stream(bank, account))[-1]
    assert (event["type"], event["data"]) == ("hold-expired", {"hold_id": "brief", "amount": 30})
    assert event["time"] >= written(datetime.fromisoformat(expires_at))
    assert await figures(bank, account) == (100, 30, 70)
    for command in ("capture", "release"):
        _, answer = await bank.post(f"/account/{command}/{account}", {"hold_id": "brief"})
        assert answer["reason"] == "hold-not-found"


async def test_readiness_and_metrics_tell_of_the_clerk(bank: Bank) -> None:
    async with bank.http.get(f"{bank.command.url}/readyz") as response:
        assert (await response.json())["clerk"] in ("nothing is due", "starting")
    async with bank.http.get(f"{bank.command.url}/metrics") as response:
        assert "\nledger_hold_overdue_seconds 0.0\n" in await response.text()


async def test_open_holds_are_read_page_by_page(bank: Bank, account: str) -> None:
    ids = [f"h-{number:03}" for number in range(100)]
    batch = [{"type": "hold", "account_id": account, "hold_id": hold_id, "amount": 1} for hold_id in reversed(ids)]
    await bank.post("/commands", batch)
    found: list[str] = []
    while page := await open_holds(bank, account, "?limit=33" + "".join(f"&after={last}" for last in found[-1:])):
        found += [hold["hold_id"] for hold in page]
    assert found == ids
    assert [hold["hold_id"] for hold in await open_holds(bank, account)] == ids
    assert await open_holds(bank, account, "?after=h-099") == []


async def test_an_account_without_holds_has_none_and_one_that_is_not_there_is_404(bank: Bank, account_id: str) -> None:
    assert await open_holds(bank, account_id) == 404
    await bank.deposit(account_id, 1)
    assert await open_holds(bank, account_id) == 404
    await bank.create(account_id)
    url = f"{bank.projection.url}/account/{account_id}/holds"
    position = await head(bank)
    async with bank.http.get(url, params={"min_position": str(position)}) as response:
        assert (response.status, await response.json()) == (200, [])
        assert int(response.headers["Ledger-Position"]) >= position
