"""An account's statement: in pages that stay what they are, and as CSV that is whole or visibly broken."""

import asyncio
import base64
import csv
import io
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import datetime, timedelta
from operator import itemgetter
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from tests.bank import Bank, open_bank
from tests.http.test_commands import head, stream

CSV = {"Accept": "text/csv"}
COLUMNS = (
    *("position", "version", "time", "type", "change", "change_of_held", "balance", "held", "available"),
    *("counterpart", "description", "metadata", "reason", "hold_id", "command_id"),
)


async def statement(bank: Bank, account_id: str, slash: str = "", **parameters: Any) -> dict[str, Any]:
    """A page, which has all that was recorded until now."""
    query: dict[str, Any] = {"min_position": await head(bank), "wait": 30, **parameters}
    status, page = await bank.query(f"/account/{account_id}/statement{slash}", **query)
    assert status == 200, page
    return dict(page)


async def entries(bank: Bank, account_id: str, **parameters: Any) -> list[dict[str, Any]]:
    """Of all pages."""
    page = await statement(bank, account_id, **parameters)
    found: list[dict[str, Any]] = page["entries"]
    while page["next"]:
        page = await statement(bank, account_id, **parameters, cursor=page["next"])
        found += page["entries"]
    return found


async def as_csv(bank: Bank, account_id: str, **parameters: Any) -> tuple[str, aiohttp.ClientResponse]:
    query = {name: str(value) for name, value in {"min_position": await head(bank), "wait": 30, **parameters}.items()}
    url = f"{bank.projection.url}/account/{account_id}/statement"
    async with bank.http.get(url, params=query, headers=CSV) as response:
        assert response.status == 200
        return (await response.read()).decode(), response


@pytest.fixture
async def alice(bank: Bank, account_id: str) -> str:
    """An account with something of everything, and a payee that is named as formulas begin."""
    await bank.deposit(account_id, 5)
    await bank.create(f"-{account_id[1:]}", "Bob")
    for path, body in [
        ("", {"name": "Zoë", "asset": "USD/2"}),
        ("deposit/", {"amount": 1000, "description": 'Salary, "May"\r\nand more', "metadata": {"a": "b", "ü": ","}}),
        ("withdraw/", {"amount": 2000, "description": "=1+1"}),
        ("transfer/", {"amount": 100, "to": f"-{account_id[1:]}", "description": "\uff20rent"}),
        ("overdraft/", {"limit": 50}),
        ("hold/", {"amount": 60, "hold_id": "-7", "description": "+books"}),
        ("capture/", {"hold_id": "-7", "amount": 40, "to": f"-{account_id[1:]}"}),
        ("freeze/", {"description": "\tcourt order"}),
    ]:
        await bank.post(f"/account/{path}{account_id}", body)
    return account_id


@pytest.mark.parametrize("slash", ["", "/"])
async def test_a_statement_explains_a_balance_line_by_line(bank: Bank, alice: str, slash: str) -> None:
    events = await stream(bank, alice)
    page = await statement(bank, alice, slash, order="oldest", rejections=True)
    told = page.pop("entries")
    assert page == {
        "account_id": alice,
        "name": "Zoë",
        "asset": "USD/2",
        "from": None,
        "to": None,
        "opening_balance": 0,
        "closing_balance": 860,
        "next": None,
    }
    bob = f"-{alice[1:]}"
    amounts = [  # change, of what is held, and balance, held, available after it
        ("deposit-rejected", 0, 0, 0, 0, 0),
        ("account-created", 0, 0, 0, 0, 0),
        ("amount-deposited", 1000, 0, 1000, 0, 1000),
        ("withdrawal-rejected", 0, 0, 1000, 0, 1000),
        ("money-transferred", -100, 0, 900, 0, 900),
        ("overdraft-limit-set", 0, 0, 900, 0, 950),
        ("hold-placed", 0, 60, 900, 60, 890),
        ("hold-captured", -40, -60, 860, 0, 910),
        ("account-frozen", 0, 0, 860, 0, 910),
    ]
    names = ("type", "change", "change_of_held", "balance", "held", "available")
    assert [tuple(entry[name] for name in names) for entry in told] == amounts
    for entry, event in zip(told, events, strict=True):
        assert tuple(entry) == COLUMNS
        assert entry["position"] == int(event["sequence"])
        assert (entry["version"], entry["time"]) == (event["accountversion"], event["time"])
        assert entry["command_id"] == event["commandid"]
        assert entry["counterpart"] == event.get("counterpart")
        for name in ("description", "metadata", "reason", "hold_id"):
            assert entry[name] == event["data"].get(name)
    assert [entry["counterpart"] for entry in told if entry["counterpart"]] == [bob, bob]
    received = await entries(bank, bob)
    assert [(entry["change"], entry["balance"], entry["counterpart"]) for entry in received] == [
        (40, 140, alice),
        (100, 100, alice),
        (0, 0, None),
    ]
    accepted = [entry for entry in told if not entry["type"].endswith("-rejected")]
    assert await entries(bank, alice) == accepted[::-1]
    assert await entries(bank, alice, type="withdrawal-rejected") == told[3:4]
    assert await entries(bank, alice, type="hold-placed", rejections=True) == told[6:7]
    assert await entries(bank, alice, type="account-closed") == []


@pytest.mark.parametrize("order", ["newest", "oldest"])
@pytest.mark.parametrize("rejections", [False, True])
async def test_its_pages_are_of_one_moment_while_events_arrive(
    bank: Bank, account: str, order: str, rejections: bool
) -> None:
    await bank.post("/commands", [{"type": "deposit", "account_id": account, "amount": n % 3} for n in range(300)])
    for limit in (1, 7, 50, 249, 250, 251):
        known = await entries(bank, account, order=order, limit=1000, rejections=True)
        assert len(known) > 300
        closing = max(known, key=itemgetter("version"))["balance"]
        if not rejections:
            known = [entry for entry in known if entry["type"] != "deposit-rejected"]
        asked: dict[str, Any] = {"order": order, "limit": limit, "rejections": rejections}
        page, found = await statement(bank, account, **asked), list[dict[str, Any]]()
        for _ in range(4):
            found += page["entries"]
            assert found == known[: len(found)]
            assert len(page["entries"]) == limit or len(found) == len(known)
            assert (page["opening_balance"], page["closing_balance"]) == (0, closing)
            assert (page["next"] is None) == (len(found) == len(known))
            if page["next"] is None:
                break
            await bank.deposit(account, 5)
            page = await statement(bank, account, **asked, cursor=page["next"])


async def test_a_page_looks_at_so_many_events_and_no_more(bank: Bank, account: str) -> None:
    """However many rejections an account has, even before it was there: a page without any has a next one."""
    nobody = f"{account}-later"
    for name in (account, nobody):
        await bank.post("/commands", [{"type": "deposit", "account_id": name, "amount": 0}] * 5000)
    await bank.create(nobody)
    await bank.deposit(nobody, 7)
    for name, order, types in (
        (account, "newest", ["amount-deposited", "account-created"]),
        (nobody, "oldest", ["account-created", "amount-deposited"]),
    ):
        pages = [await statement(bank, name, order=order)]
        while pages[-1]["next"]:
            pages.append(await statement(bank, name, order=order, cursor=pages[-1]["next"]))
        assert len(pages) == 3
        assert [len(page["entries"]) for page in pages] == [0, 0, 2]
        assert [entry["type"] for entry in pages[-1]["entries"]] == types
        assert {(page["opening_balance"], page["closing_balance"]) for page in pages} == {
            (0, 100 if name == account else 7)
        }


async def test_a_page_is_limited_in_size_but_never_empty(bank: Bank, account: str) -> None:
    metadata = {f"{number:064}": "ü" * 200 for number in range(20)}
    item = {"type": "deposit", "account_id": account, "amount": 1, "description": "x" * 1000, "metadata": metadata}
    for _ in range(2):
        await bank.post("/commands", [item] * 100)
    page = await statement(bank, account, limit=1000)
    assert 50 < len(page["entries"]) < 150
    rest = await entries(bank, account, limit=1000)
    assert rest[: len(page["entries"])] == page["entries"]
    assert [entry["version"] for entry in rest] == list(range(202, 0, -1))
    assert rest[0]["metadata"] == metadata


async def test_a_range_has_the_balances_at_its_ends(bank: Bank, account_id: str) -> None:
    await bank.create(account_id)
    for amount in (1, 2, 4, 8):
        await asyncio.sleep(0.002)
        await bank.deposit(account_id, amount)
    told = await entries(bank, account_id, order="oldest")
    times = [entry["time"] for entry in told]
    assert len(set(times)) == 5
    for first in range(5):
        for last in range(first, 5):
            page = await statement(bank, account_id, **{"from": times[first]}, to=times[last], order="oldest")
            assert page["entries"] == told[first:last]
            assert page["opening_balance"] == (told[first - 1]["balance"] if first else 0)
            assert page["closing_balance"] == (told[last - 1]["balance"] if last else 0)
            assert (page["from"], page["to"]) == (times[first], times[last])
    day = times[0][:10]
    for from_, to in ((day, day), (day[:7], day[:7]), (day[:4], day[:4]), (day, None), ("0001", "9999")):
        query = {"from": from_, **({"to": to} if to else {})}
        page = await statement(bank, account_id, **query, order="oldest")
        assert page["entries"][: len(told)] == told
        assert (page["opening_balance"], page["closing_balance"]) == (0, 15)
    assert (page["from"], page["to"]) == ("0001-01-01T00:00:00.000000Z", None)
    before = (datetime.fromisoformat(times[0]) - timedelta(days=400)).isoformat()[:10]
    empty = await statement(bank, account_id, **{"from": before}, to=before)
    assert (empty["entries"], empty["opening_balance"], empty["closing_balance"]) == ([], 0, 0)
    later = await statement(bank, account_id, **{"from": "9999-12-31"})
    assert (later["entries"], later["opening_balance"], later["closing_balance"]) == ([], 15, 15)


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("headers", [{}, CSV])
async def test_there_is_none_of_an_account_that_is_not_there(
    bank: Bank, account_id: str, slash: str, headers: dict[str, str]
) -> None:
    await bank.deposit(account_id, 1)
    query = {"min_position": str(await head(bank))}
    url = f"{bank.projection.url}/account/{account_id}/statement{slash}"
    async with bank.http.get(url, params=query, headers=headers) as response:
        problem = await response.json(content_type="application/problem+json")
    assert (response.status, problem["type"]) == (404, "urn:counting-house:problem:not-found")
    assert int(response.headers["Ledger-Position"]) >= int(query["min_position"])


async def test_a_statement_of_a_position_has_nothing_that_came_after(bank: Bank, alice: str) -> None:
    """Though all of it may be of one time."""
    everything = await entries(bank, alice, rejections=True)
    for last in [entry["position"] for entry in everything if entry["version"] > 1]:
        await bank.deposit(alice, 1)
        expected = [entry for entry in everything if entry["position"] <= last]
        page = await statement(bank, alice, rejections=True, at_position=last, limit=1)
        assert (page["opening_balance"], page["closing_balance"]) == (0, expected[0]["balance"])
        assert await entries(bank, alice, rejections=True, at_position=last, limit=3) == expected
        oldest = await entries(bank, alice, rejections=True, at_position=last, order="oldest", to="9999")
        assert oldest == expected[::-1]
        text, response = await as_csv(bank, alice, rejections=True, at_position=last)
        assert [line["position"] for line in csv.DictReader(io.StringIO(text))] == [
            str(e["position"]) for e in expected
        ]
        assert response.headers["Ledger-Position"] == str(last)
    assert (await bank.query(f"/account/{alice}/statement", at_position=everything[-1]["position"] - 1))[0] == 404
    status, _ = await bank.query(f"/account/{alice}/statement", at_position=await head(bank) + 1, wait=0)
    assert status == 503


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("named_by", ["at_position", "at_position of CSV", "cursor"])
async def test_a_position_to_come_is_waited_for(bank: Bank, account: str, named_by: str, slash: str) -> None:
    position = await head(bank) + 1
    query, ledger, _, *rest = decoded((await statement(bank, account, limit=1))["next"])
    parameters = (
        {"cursor": encoded([query, ledger, position, *rest])} if named_by == "cursor" else {"at_position": position}
    )
    url = URL(bank.projection.url) / f"account/{account}/statement{slash}" % parameters
    headers = CSV if named_by == "at_position of CSV" else {}

    async def ask(wait: float) -> tuple[int, str | None]:
        async with bank.http.get(url % {"wait": wait}, headers=headers) as response:
            await response.read()
            return response.status, response.headers["Ledger-Position"]

    assert (await ask(0.05))[0] == 503
    waiting = asyncio.create_task(ask(30))
    await bank.deposit(account, 5)
    assert await waiting == (200, str(position))


async def test_a_link_can_ask_for_csv(bank: Bank, alice: str) -> None:
    """Which cannot say what it accepts."""
    text, _ = await as_csv(bank, alice)
    async with bank.http.get(f"{bank.projection.url}/account/{alice}/statement?format=csv") as response:
        assert (response.content_type, (await response.read()).decode()) == ("text/csv", text)
        assert response.headers["Content-Disposition"].startswith("attachment")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("from=x", "from"),
        ("from=", "from"),
        ("from=2026-13", "from"),
        ("from=2025-02-29", "from"),
        ("from=0000", "from"),
        ("from=10000", "from"),
        ("from=2026-01-01T00:00:00", "from"),
        ("from=2026-01-01T00:00:00+01:00", "from"),
        ("from=2026%00", "from"),
        ("from=%FF", "from"),
        ("from=" + "2" * 5000, "from"),
        ("from=2026&from=2026", "from"),
        ("to=0001-01-01T00:00:00%2B01:00", "to"),
        ("to=9999-12-31T23:59:59-01:00", "to"),
        ("to=2026-02-30", "to"),
        ("from=2026-10&to=2026-09", "to"),
        ("to=2026&to=2027", "to"),
        ("order=x", "order"),
        ("order=oldest&order=oldest", "order"),
        ("type=x", "type"),
        ("type=", "type"),
        ("type=amount-deposited%0A", "type"),
        ("type=amount-deposited&type=hold-placed", "type"),
        ("rejections=x", "rejections"),
        ("rejections=true&rejections=true", "rejections"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=1.5", "limit"),
        (f"limit={10**30}", "limit"),
        ("limit=1&limit=1", "limit"),
        ("cursor=", "cursor"),
        ("cursor=x", "cursor"),
        ("cursor=%00", "cursor"),
        ("cursor=" + "A" * 201, "cursor"),
        ("min_position=-1", "min_position"),
        ("wait=61", "wait"),
        ("at_position=-1", "at_position"),
        (f"at_position={2**63}", "at_position"),
        ("at_position=1&at_position=1", "at_position"),
        ("format=json", "format"),
        ("as_of=2026-01-01T00:00:00Z", "as_of"),
    ],
)
async def test_a_malformed_query_is_422_and_names_the_field(bank: Bank, account: str, query: str, field: str) -> None:
    for slash in ("", "/"):
        for headers in ({}, CSV):
            url = f"{bank.projection.url}/account/{account}/statement{slash}?{query}"
            async with bank.http.get(URL(url, encoded=True), headers=headers) as response:
                problem = await response.json(content_type="application/problem+json")
            assert (response.status, [error["field"] for error in problem["errors"]]) == (422, [field])


async def test_an_id_that_is_none_is_422(bank: Bank) -> None:
    for path in ("/account/a%20b/statement", "/account/%00/statement", "/account/" + "a" * 65 + "/statement/"):
        status, problem = await bank.query(path)
        assert (status, [error["field"] for error in problem["errors"]]) == (422, ["account_id"])


def decoded(cursor: str) -> list[Any]:
    said: list[Any] = json.loads(base64.urlsafe_b64decode(cursor + "=="))
    return said


def encoded(said: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")


async def test_a_cursor_of_another_statement_or_a_forged_one_is_422(bank: Bank, account: str, account_id: str) -> None:
    await bank.post("/commands", [{"type": "deposit", "account_id": account, "amount": 1}] * 5)
    other = f"{account_id}-other"
    await bank.create(other)
    page = await statement(bank, account, limit=2, order="oldest")
    cursor = page["next"]
    good: dict[str, Any] = {"order": "oldest", "cursor": cursor}
    assert len((await statement(bank, account, **good, limit=3))["entries"]) == 3
    query, ledger, position, first, last, at = decoded(cursor)
    forged = [
        [query, ledger, position, first, last + 1, at],
        [query, ledger, position, first, 2**63 - 1, at],
        [query, ledger, position, first, 2**63, at],
        [query, ledger, position, first, last, last + 1],
        [query, ledger, position, at + 1, last, at],
        [query, ledger, position, -1, last, at],
        [query, ledger, 0, first, last, at],
        [query, ledger, position, first, last],
        [query, ledger, position, first, last, "1"],
        [query, ledger, position, first, last, None],
        ["", ledger, position, first, last, at],
        [query, "0123456789abcdef", position, first, last, at],
        {"query": query},
        "x",
        [[[[]]]],
    ]
    asked: list[tuple[str, dict[str, Any]]] = [
        (other, good),
        (account, {"cursor": cursor}),
        (account, {**good, "rejections": True}),
        (account, {**good, "type": "amount-deposited"}),
        (account, {**good, "from": "2026"}),
        (account, {**good, "to": "2999"}),
        *((account, {"order": "oldest", "cursor": encoded(said)}) for said in forged),
        (account, {"order": "oldest", "cursor": base64.urlsafe_b64encode(b"\xff\xfe").decode()}),
    ]
    for name, parameters in asked:
        for slash in ("", "/"):
            status, problem = await bank.query(f"/account/{name}/statement{slash}", **parameters)
            assert (status, [error["field"] for error in problem.get("errors", [])]) == (422, ["cursor"]), parameters
    ahead = encoded([query, ledger, 2**62, first, last, at])
    status, problem = await bank.query(f"/account/{account}/statement", order="oldest", cursor=ahead, wait=0.05)
    assert (status, problem["type"]) == (503, "urn:counting-house:problem:projection-behind")


async def test_as_csv_it_has_every_line_and_nothing_that_a_spreadsheet_would_run(bank: Bank, alice: str) -> None:
    for parameters in ({"order": "oldest", "rejections": True}, {}, {"type": "hold-placed"}, {"from": "9999"}):
        text, response = await as_csv(bank, alice, **parameters)
        assert response.headers["Content-Type"] == "text/csv; charset=utf-8; header=present"
        assert response.headers["Content-Disposition"] == f'attachment; filename="statement-{alice}.csv"'
        assert response.headers["Vary"] == "Accept"
        assert int(response.headers["Ledger-Position"]) >= await head(bank)
        assert text.endswith("\r\n")
        (names, *lines) = csv.reader(io.StringIO(text, newline=""))
        assert tuple(names) == COLUMNS
        for line, entry in zip(lines, await entries(bank, alice, **parameters), strict=True):
            told = dict(zip(names, line, strict=True))
            assert json.loads(told.pop("metadata") or "null") == entry.pop("metadata")
            for name in ("counterpart", "description", "hold_id"):
                text = entry.pop(name) or ""
                assert told.pop(name) == (
                    f"'{text}" if text[:1] in ("=", "+", "-", "\uff20", "\t", "\r", "\n") and text else text
                )
            assert told == {name: "" if value is None else str(value) for name, value in entry.items()}
    text, _ = await as_csv(bank, alice, order="oldest", rejections=True)
    for harmless in ("'=1+1", "'\uff20rent", "'+books", "'-7", "'\tcourt order", f",'-{alice[1:]},"):
        assert harmless in text


@pytest.mark.parametrize(
    ("accept", "is_csv"),
    [
        ("text/csv", True),
        ("TEXT/CSV", True),
        ("text/csv; charset=utf-8", True),
        ("application/json;q=0.5, text/csv", True),
        ("text/csv;q=0.9, */*;q=0.1", True),
        ("application/json, text/csv;q=0.9", False),
        ("text/csv, application/json", False),
        ("text/csv;q=0.5, */*", False),
        ("text/*", True),
        ("text/csv;q=0", False),
        ("text/csv;q=x", False),
        ("text/csvx", False),
        ("*/*", False),
        ("", False),
        (",;,;q=,=", False),
    ],
)
async def test_who_prefers_csv_gets_it(bank: Bank, account: str, accept: str, is_csv: bool) -> None:
    for slash in ("", "/"):
        url = f"{bank.projection.url}/account/{account}/statement{slash}"
        query = {"min_position": str(await head(bank))}
        async with bank.http.get(url, params=query, headers={"Accept": accept}) as response:
            assert (response.status, response.headers["Vary"]) == (200, "Accept")
            assert response.content_type == ("text/csv" if is_csv else "application/json")


async def test_csv_has_no_pages(bank: Bank, account: str) -> None:
    for query in ("limit=5", "cursor=x"):
        url = f"{bank.projection.url}/account/{account}/statement?{query}"
        async with bank.http.get(url, headers=CSV) as response:
            problem = await response.json(content_type="application/problem+json")
        assert (response.status, problem["errors"][0]["field"]) == (422, query.partition("=")[0])


LINES = 10_000
"""More than fits in the buffers between here and there."""


@asynccontextmanager
async def long_statement(bank: Bank) -> AsyncIterator[aiohttp.ClientResponse]:
    """Of one of `LINES` lines, the head has been read."""
    await bank.create("long")
    item = {"type": "deposit", "account_id": "long", "amount": 1, "description": "x" * 200}
    await bank.post("/commands", [item] * LINES)
    query = {"min_position": str(LINES + 1), "wait": "60"}
    url = f"{bank.projection.url}/account/long/statement"
    async with bank.http.get(url, params=query, headers=CSV, read_bufsize=4096) as response:
        assert response.status == 200
        yield response


async def test_a_slow_reader_gets_all_of_it_and_nobody_waits_for_it(tmp_path: Path) -> None:
    async with open_bank(tmp_path) as bank, long_statement(bank) as response:
        first = await response.content.readexactly(1000)
        for number in range(20):
            await bank.deposit("long", 1)
            view = await bank.query("/account/long", min_position=LINES + 2 + number)
            assert view[0] == 200
        text = first + await response.content.read()
        lines = list(csv.reader(io.StringIO(text.decode(), newline="")))[1:]
        assert [line[1] for line in lines] == [str(version) for version in range(LINES + 1, 0, -1)]


async def test_who_leaves_in_the_middle_is_no_trouble(tmp_path: Path) -> None:
    async with open_bank(tmp_path) as bank:
        async with long_statement(bank) as response:
            await response.content.readexactly(1000)
        for _ in range(3):
            url = f"{bank.projection.url}/account/long/statement"
            async with bank.http.get(url, headers=CSV, read_bufsize=4096) as response:
                await response.content.readexactly(1000)
                response.close()
        text, _ = await as_csv(bank, "long")
        assert text.count("\r\n") == LINES + 2
        assert "error" not in bank.projection.log.read_text()


async def test_a_statement_breaks_off_visibly_when_the_views_are_put_back(tmp_path: Path) -> None:
    async with open_bank(tmp_path) as bank, long_statement(bank) as response:
        await response.content.readexactly(1000)
        await bank.command.stop()  # so that nobody brings them to where they were
        (file,) = tmp_path.glob("projection-*.sqlite3")
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("UPDATE checkpoint SET position = 7")
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.read()
        assert "a statement is broken off" in bank.projection.log.read_text()


async def test_it_is_the_same_with_the_views_on_postgresql(tmp_path: Path, database_url: str) -> None:
    async with open_bank(tmp_path, database_url=database_url) as bank:
        await bank.create("alice")
        await bank.create("bob")
        item = {"type": "deposit", "account_id": "alice", "amount": 2, "metadata": {"a": "ü"}, "description": "=1"}
        await bank.post("/commands", [item] * 600)
        await bank.post("/account/transfer/alice", {"to": "bob", "amount": 1})
        whole = await entries(bank, "alice", limit=1000, order="oldest")
        assert [entry["version"] for entry in whole] == list(range(1, 603))
        assert (whole[-1]["balance"], whole[-1]["counterpart"], whole[-2]["metadata"]) == (1199, "bob", {"a": "ü"})
        assert await entries(bank, "alice", limit=97) == whole[::-1]
        page = await statement(bank, "alice", **{"from": whole[-1]["time"]}, to="9999-12")
        assert (page["entries"], page["opening_balance"], page["closing_balance"]) == (whole[-1:], 1200, 1199)
        text, _ = await as_csv(bank, "alice", order="oldest")
        lines = list(csv.DictReader(io.StringIO(text, newline="")))
        assert [line["balance"] for line in lines] == [str(entry["balance"]) for entry in whole]
        assert {line["description"] for line in lines} == {"", "'=1"}
