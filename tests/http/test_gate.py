"""What the gate of both services lets through: whose requests, from where, and with which headers."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser

from shared.gate import ONCE
from tests.bank import Bank, Service, open_bank
from tests.http.test_commands import head
from tests.http.test_connections import exchange, statuses
from tests.integration.broker import eventually

GET = "GET /events HTTP/1.1"
POST = "POST /account/deposit/gate HTTP/1.1"
JSON = ("Content-Type: application/json", "Content-Length: 13")
BODY = b'{"amount": 1}'


async def ask(service: Service, line: str, headers: Iterable[str], body: bytes = b"") -> tuple[int, bytes]:
    """Status and body of the answer to a request that is sent as it is given."""
    request = "\r\n".join([line, *headers, "Connection: close", "", ""])
    answer = await exchange(service, request.encode("latin-1") + body)
    (status,) = statuses(answer)
    return status, answer.partition(b"\r\n\r\n")[2]


@asynccontextmanager
async def nothing_recorded(bank: Bank) -> AsyncIterator[None]:
    before = await head(bank)
    yield
    assert await head(bank) == before


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "10.0.0.1", "a b", "localhost@evil", "\xe4", "[", ""]
)
@pytest.mark.parametrize("service", ["command", "projection"])
async def test_a_name_that_is_not_ours_reads_and_writes_nothing(bank: Bank, service: str, host: str) -> None:
    """A page whose name leads here (DNS rebinding) sends its own name as the host."""
    async with nothing_recorded(bank):
        for line, headers, body in [(GET, (), b""), (POST, JSON, BODY), ("GET /docs HTTP/1.1", (), b"")]:
            status, answer = await ask(getattr(bank, service), line, [f"Host: {host}", *headers], body)
            assert status == 421
            assert b"ALLOWED_HOSTS" in answer


@pytest.mark.parametrize("target", ["http://evil.example/readyz", "HTTP://127.0.0.1/readyz", "http://127.0.0.1", "a:1"])
@pytest.mark.parametrize("method", ["GET", "POST", "CONNECT"])
async def test_a_target_that_names_its_own_host_is_refused(bank: Bank, method: str, target: str) -> None:
    """RFC 9112, section 3.2.2: it would be meant instead of the Host header, which is what the gate looks at."""
    for service in (bank.command, bank.projection):
        status, answer = await ask(service, f"{method} {target} HTTP/1.1", ["Host: localhost"])
        assert status == 400
        assert (b"must begin with /" in answer) == ("//" in target or method == "CONNECT")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1234", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:8080"])
async def test_the_names_of_the_loopback_are_ours(bank: Bank, host: str) -> None:
    assert (await ask(bank.command, GET, [f"Host: {host}"]))[0] == 200


@pytest.mark.parametrize(
    "headers", [[], ["Host: localhost", "Host: evil.example"], ["Host: evil.example", "Host: localhost"]]
)
async def test_there_is_one_host(bank: Bank, headers: list[str]) -> None:
    status, answer = await ask(bank.command, GET, headers)
    assert (status, [error["field"] for error in json.loads(answer)["errors"]]) == (400, ["Host"])


async def test_a_length_that_comes_twice_is_named(bank: Bank) -> None:
    status, answer = await ask(bank.command, POST, ["Host: localhost", *JSON, "Content-Length: 13"], BODY)
    assert (status, [error["field"] for error in json.loads(answer)["errors"]]) == (400, ["Content-Length"])


@pytest.mark.parametrize(
    ("allowed", "host", "status"),
    [
        ("bank.example, ledger", "ledger:8080", 200),
        ("bank.example, ledger", "bank.example", 200),
        ("bank.example, ledger", "evil.example", 421),
        ("*", "evil.example", 200),
        ("0.0.0.0", "192.0.2.7:8080", 200),
        ("0.0.0.0", "evil.example", 421),
    ],
)
async def test_allowed_hosts_are_ours_too(tmp_path: Path, allowed: str, host: str, status: int) -> None:
    """A service that listens on every address may be called by every address: an address cannot be rebound."""
    async with open_bank(tmp_path, projections=0) as bank:
        await bank.command.stop()
        bank.command.environment["ALLOWED_HOSTS"] = allowed
        await bank.command.start()
        assert (await ask(bank.command, GET, [f"Host: {host}"]))[0] == status


@pytest.mark.parametrize(
    "header",
    [
        "Origin: https://evil.example",
        "Origin: null",
        "Origin: ",
        "Origin: http://localhost:3000",
        "Origin: http://localhost:3000/localhost",
        "Origin: localhost",
        "Origin: //localhost",
        "Origin: http:localhost",
        "Origin: file:///localhost",
        "Origin: file://localhost",
        "Origin: http://evil//localhost",
        "Origin: http://localhost/",
        "Origin: http://localhost http://localhost",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: Cross-Site",
        "Sec-Fetch-Site: cross-site ",
        "Sec-Fetch-Site: cross-site\t",
        "Sec-Fetch-Site: cross-site, x",
        "Sec-Fetch-Site: same-origin, cross-site",
        "Sec-Fetch-Site: ",
    ],
)
async def test_a_page_of_another_origin_posts_nothing(bank: Bank, header: str) -> None:
    async with nothing_recorded(bank):
        status, answer = await ask(bank.command, POST, ["Host: localhost", header, *JSON], BODY)
    assert status == 403
    assert b"pages elsewhere" in answer


@pytest.mark.parametrize(
    "header",
    [
        *("Origin: http://localhost", "Origin: https://LOCALHOST", "Sec-Fetch-Site: same-origin"),
        *("Sec-Fetch-Site: same-site", "Sec-Fetch-Site: None "),
    ],
)
async def test_our_own_pages_may_post(bank: Bank, header: str) -> None:
    assert (await ask(bank.command, POST, ["Host: localhost", header, *JSON], BODY))[0] == 400


@pytest.mark.parametrize("name", sorted({*ONCE.values()} - {"Host"}))
@pytest.mark.parametrize("path", ["/account/deposit/gate", "/commands", "/commands/", "/account"])
async def test_a_header_that_may_come_once_comes_once(bank: Bank, path: str, name: str) -> None:
    """Otherwise whoever stands between may have read another one than we do."""
    async with nothing_recorded(bank):
        twice = [f"{name.lower()}: application/json", f"{name.upper()}: application/json"]
        status, answer = await ask(bank.command, f"POST {path} HTTP/1.1", ["Host: localhost", *JSON, *twice], BODY)
    assert status == 422
    assert {error["field"] for error in json.loads(answer)["errors"]} == {name}


POSTS_OF_A_PAGE = """async ([command, commands]) => {
    const text = JSON.stringify({amount: 1}), batch = JSON.stringify([{type: "create-account", name: "x"}]);
    const bytes = new TextEncoder().encode(text);
    const quietly = async (url, options) => { try { await fetch(url, {method: "POST", ...options}); } catch {} };
    for (const body of [text, bytes, bytes.buffer, new Blob([text]), new URLSearchParams({amount: 1}), new FormData()])
        for (const mode of ["no-cors", "cors"])
            await quietly(command, {mode, body, credentials: "include"});
    await quietly(commands, {mode: "no-cors", body: new Blob([batch])});
    await quietly(command, {mode: "cors", body: text, headers: {"Content-Type": "application/json"}});
    navigator.sendBeacon(command, bytes);
    navigator.sendBeacon(commands, new Blob([batch]));
    const form = document.createElement("form");
    Object.assign(form, {method: "POST", action: command, enctype: "text/plain", target: "frame"});
    const frame = document.createElement("iframe");
    frame.name = "frame";
    document.body.append(frame, form);
    form.append(Object.assign(document.createElement("input"), {name: '{"amount": 1, "description": "', value: '"}'}));
    form.submit();
}"""
BLANK = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\nConnection: close\r\n\r\n<p/>"


async def test_no_page_of_another_origin_makes_a_browser_post_a_command(
    bank: Bank, browser: Browser, account: str
) -> None:
    """With everything that a page can send elsewhere, read from the browser's own side."""
    answered: list[int] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(BLANK)
        writer.close()

    async with nothing_recorded(bank), await asyncio.start_server(answer, "127.0.0.1", 0) as elsewhere:
        page = await browser.new_page()
        page.on("response", lambda response: answered.append(response.status) if response.status != 200 else None)
        await page.goto(f"http://127.0.0.1:{elsewhere.sockets[0].getsockname()[1]}/")
        url = bank.command.url
        await page.evaluate(POSTS_OF_A_PAGE, [f"{url}/account/deposit/{account}", f"{url}/commands"])
        await eventually(lambda: asyncio.sleep(0, len(answered)), lambda count: count >= 8, "the answers")
        await page.close()
    assert set(answered) <= {403, 405}
