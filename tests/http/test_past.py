"""How it was: accounts and reserves at any position, and at any time, before."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.bank import Bank, open_bank
from tests.http.test_commands import head, stream

INT64_MAX = 2**63 - 1


async def ask(bank: Bank, path: str, **parameters: object) -> tuple[int, Any, int]:
    """Status, answer and Ledger-Position."""
    params = {name: str(value) for name, value in parameters.items()}
    async with bank.http.get(bank.projection.url + path, params=params) as response:
        return response.status, await response.json(content_type=None), int(response.headers["Ledger-Position"])


@pytest.mark.parametrize("slash", ["", "/"])
async def test_an_account_is_told_as_it_was(bank: Bank, account_id: str, slash: str) -> None:
    """At each position, and at the time of each event, whatever has come since."""
    path, told = f"/account/{account_id}{slash}", {}
    for _ in range(30):
        await bank.deposit(account_id, 1)
    before = await head(bank)
    for post in [
        ("", {"name": "Zoë", "asset": "EUR/2"}),
        ("deposit/", {"amount": 100}),
        ("withdraw/", {"amount": 1000}),
        ("hold/", {"amount": 60, "hold_id": "order-7"}),
        ("overdraft/", {"limit": 50}),
        ("freeze/", {}),
        ("release/", {"hold_id": "order-7"}),
    ]:
        await bank.post(f"/account/{post[0]}{account_id}", post[1])
        position = await head(bank)
        told[position] = (await ask(bank, path, min_position=position))[1]
    assert [one["balance"] for one in told.values()] == [0, 100, 100, 100, 100, 100, 100]
    for position, account in told.items():
        assert await ask(bank, path, at_position=position) == (200, account, position)
        assert await ask(bank, path, at_position=position, min_position=before) == (200, account, position)
        assert await ask(bank, path, at_position=position, min_position=max(told)) == (200, account, position)
    for event in (await stream(bank, account_id))[30:]:
        position = int(event["sequence"])
        assert await ask(bank, path, as_of=event["time"]) == (200, told[position], position)
    for position in (0, 1, before - 7, before):
        status, problem, at = await ask(bank, path, at_position=position)
        assert (status, problem["type"], at) == (404, "urn:counting-house:problem:not-found", position)
        assert f"at position {position}" in problem["detail"]


async def test_a_time_may_have_any_offset_and_lies_between_events(bank: Bank, account: str) -> None:
    (created, deposited) = await stream(bank, account)
    position = int(deposited["sequence"])
    moment = datetime.fromisoformat(deposited["time"])
    for as_of, at in [
        (moment.astimezone().isoformat(), position),
        (deposited["time"].replace("Z", "-00:00").lower(), position),
        ((moment - timedelta(microseconds=1)).isoformat(), int(created["sequence"])),
        ("0001-01-01T00:00:00Z", 0),
        ("2024-02-29T23:59:59.999+14:00", 0),
    ]:
        assert (await ask(bank, "/reserve", as_of=as_of))[::2] == (200, at)
    _, receipt = await bank.deposit(account, 1)
    answer = await ask(bank, "/reserve", as_of=datetime.now(UTC).isoformat(), min_position=receipt["position"])
    assert answer[2] == receipt["position"]


@pytest.mark.parametrize("slash", ["", "/"])
async def test_open_holds_are_told_as_they_were(bank: Bank, account_id: str, slash: str) -> None:
    """Page by page, whatever has ended since, or is another hold with the same id."""
    path, told = f"/account/{account_id}/holds{slash}", {}
    before = await head(bank)
    await bank.create(account_id)
    await bank.deposit(account_id, 1000)
    for command, body in [
        ("hold", {"hold_id": "b", "amount": 10, "description": "Zoë", "expires_at": "2999-12-31T23:59:59Z"}),
        ("hold", {"hold_id": "c", "amount": 20, "metadata": {"order": "7"}}),
        ("hold", {"hold_id": "a", "amount": 30}),
        ("hold", {"hold_id": "a", "amount": 40}),
        ("release", {"hold_id": "b"}),
        ("capture", {"hold_id": "c", "amount": 5}),
        ("hold", {"hold_id": "b", "amount": 50}),
        ("release", {"hold_id": "a"}),
    ]:
        await bank.post(f"/account/{command}/{account_id}", body)
        position = await head(bank)
        told[position] = (await ask(bank, path, min_position=position))[1]
    sums = [sum(hold["amount"] for hold in holds) for holds in told.values()]
    assert sums == [10, 30, 60, 60, 50, 30, 80, 50]
    for (position, holds), event in zip(told.items(), (await stream(bank, account_id))[2:], strict=True):
        assert await ask(bank, path, at_position=position) == (200, holds, position)
        assert await ask(bank, path, as_of=event["time"]) == (200, holds, position)
        paged: list[Any] = []
        while page := (
            await ask(bank, path, at_position=position, limit=1, **({"after": paged[-1]["hold_id"]} if paged else {}))
        )[1]:
            paged += page
        assert paged == holds
    assert await ask(bank, path, at_position=before + 1) == (200, [], before + 1)
    status, problem, at = await ask(bank, path, at_position=before)
    assert (status, problem["type"], at) == (404, "urn:counting-house:problem:not-found", before)
    assert f"at position {before}" in problem["detail"]


@pytest.mark.parametrize("slash", ["", "/"])
async def test_the_reserves_are_told_as_they_were(bank: Bank, account_id: str, slash: str) -> None:
    asset = f"{account_id[-12:].upper().replace('-', '').rjust(13, 'X')}/2"
    await bank.post(f"/account/{account_id}-0", {"name": "Alice", "asset": asset})
    empty = {"asset": asset, "amount": 0, "last_updated": None}
    begin = await head(bank)
    assert await ask(bank, f"/reserve{slash}", asset=asset, at_position=begin) == (200, empty, begin)
    told = {begin: (await ask(bank, "/reserves", min_position=begin))[1]}
    await bank.post(f"/account/{account_id}-1", {"name": "Alice", "asset": asset})
    for number, amount in ((0, INT64_MAX), (1, INT64_MAX), (1, 7)):
        await bank.deposit(f"{account_id}-{number}", amount)
        position = await head(bank)
        told[position] = (await ask(bank, "/reserves", min_position=position))[1]
    for position, reserves in told.items():
        assert await ask(bank, f"/reserves{slash}", at_position=position) == (200, reserves, position)
        for reserve in reserves:
            one = await ask(bank, f"/reserve{slash}", asset=reserve["asset"], at_position=position)
            assert one == (200, reserve, position)
        paged: list[Any] = []
        while page := (
            await ask(bank, "/reserves", at_position=position, after=paged[-1]["asset"] if paged else "", limit=1)
        )[1]:
            paged += page
        assert paged == reserves
    assert 2 * INT64_MAX in [reserve["amount"] for reserve in reserves]
    assert asset not in [reserve["asset"] for reserve in (await ask(bank, "/reserves", at_position=begin - 1))[1]]
    assert await ask(bank, "/reserve", asset=asset, at_position=0) == (200, empty, 0)
    dollars = {"asset": "USD/2", "amount": 0, "last_updated": None}
    assert await ask(bank, "/reserves", at_position=0) == (200, [dollars], 0)


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("path", ["/account/{}", "/account/{}/holds", "/reserve", "/reserves", "/accounts"])
async def test_a_position_to_come_is_waited_for(bank: Bank, account: str, path: str, slash: str) -> None:
    path, position = path.format(account) + slash, await head(bank)
    status, problem, _ = await ask(bank, path, at_position=position + 1, wait=0.05)
    assert (status, problem["type"]) == (503, "urn:counting-house:problem:projection-behind")
    waiting = asyncio.create_task(ask(bank, path, at_position=position + 1, wait=30))
    await bank.deposit(account, 5)
    assert (await waiting)[::2] == (200, position + 1)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("at_position=-1", "at_position"),
        ("at_position=x", "at_position"),
        ("at_position=1.5", "at_position"),
        (f"at_position={2**63}", "at_position"),
        (f"at_position={10**30}", "at_position"),
        ("at_position=", "at_position"),
        ("at_position=1&at_position=1", "at_position"),
        ("as_of=2026-01-01T00:00:00Z&as_of=2026-01-01T00:00:00Z", "as_of"),
        ("at_position=1&as_of=2026-01-01T00:00:00Z", "as_of"),
        ("as_of=", "as_of"),
        ("as_of=now", "as_of"),
        ("as_of=2026-01-01", "as_of"),
        ("as_of=2026-01-01T00:00:00", "as_of"),
        ("as_of=2026-01-01T00:00:00+01:00", "as_of"),  # the + is a space
        ("as_of=2025-02-29T00:00:00Z", "as_of"),
        ("as_of=2026-13-01T00:00:00Z", "as_of"),
        ("as_of=2026-01-01T24:00:00Z", "as_of"),
        ("as_of=0000-01-01T00:00:00Z", "as_of"),
        ("as_of=0001-01-01T00:00:00%2B01:00", "as_of"),
        ("as_of=9999-12-31T23:59:59-01:00", "as_of"),
        ("as_of=10000-01-01T00:00:00Z", "as_of"),
        ("as_of=9999-12-31T23:59:59Z", "as_of"),
        ("as_of=2026-01-01T00:00:00Z%00", "as_of"),
        ("as_of=%FF", "as_of"),
        ("as_of=" + "9" * 5000, "as_of"),
    ],
)
async def test_a_malformed_moment_is_422_and_names_the_field(bank: Bank, account: str, query: str, field: str) -> None:
    for path in (f"/account/{account}", f"/account/{account}/holds", "/reserve", "/reserves", "/accounts"):
        for slash in ("", "/"):
            status, problem = await bank.query(f"{path}{slash}?{query}")
            assert (status, [error["field"] for error in problem["errors"]]) == (422, [field]), path


@pytest.mark.parametrize("query", ["at_position=1", "as_of=2026-01-01T00:00:00Z", "at_position=x"])
async def test_a_query_without_a_past_does_not_tell_the_present_for_it(bank: Bank, account: str, query: str) -> None:
    for path in (f"/account/{account}/events", f"/account/{account}/events/", "/stream"):
        status, problem = await bank.query(f"{path}?{query}")
        assert (status, [error["field"] for error in problem["errors"]]) == (422, [query.partition("=")[0]])
        assert "no past" in problem["detail"]


async def test_a_projection_without_the_history_says_so(tmp_path: Path) -> None:
    async with open_bank(tmp_path) as bank:
        await bank.create("alice")
        await bank.projection.stop()
        bank.projection.environment |= {"PROJECTION_VIEWS": "accounts,reserve,holds", "PROJECTION_NAME": "small"}
        await bank.projection.start()
        assert (await bank.query("/account/alice", min_position=1))[0] == 200
        for path in ("/account/alice", "/account/alice/", "/account/alice/holds", "/reserve", "/reserve/", "/reserves"):
            for query in ("at_position=1", "as_of=2026-01-01T00:00:00Z"):
                status, problem = await bank.query(f"{path}?{query}")
                assert (status, problem["type"]) == (404, "urn:counting-house:problem:not-found")
                assert "its PROJECTION_VIEWS is accounts,reserve,holds, without history" in problem["detail"]


async def test_it_is_the_same_with_the_views_on_postgresql(tmp_path: Path, database_url: str) -> None:
    async with open_bank(tmp_path, database_url=database_url) as bank:
        await bank.create("alice")
        told, paths = {}, ("/account/alice", "/account/alice/holds", "/reserve")
        hold, release = ("hold", {"hold_id": "order-7", "amount": 10}), ("release", {"hold_id": "order-7"})
        for command, body in [*(("deposit", {"amount": amount}) for amount in (100, 0, 7)), hold, release, hold]:
            _, receipt = await bank.post(f"/account/{command}/alice", body)
            position = receipt["position"]
            told[position] = [(await ask(bank, path, min_position=position))[1] for path in paths]
        for position, answers in told.items():
            for path, answer in zip(paths, answers, strict=True):
                assert await ask(bank, path, at_position=position) == (200, answer, position)
        for position, event in enumerate(await stream(bank, "alice"), 1):
            assert (await ask(bank, "/reserves/", as_of=event["time"]))[::2] == (200, position)
        assert (await bank.query("/account/alice", as_of="9999-12-31T23:59:59Z"))[0] == 422
