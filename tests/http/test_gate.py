"""What the gate of both services lets through: whose requests, from where, and with which headers."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser

from shared.platform.gate import ONCE
from tests.bank import Bank, Service, open_bank
from tests.http.test_commands import head
from tests.http.test_connections import TAKEN_BYTES_MAX, Client, exchange, memory, statuses
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


async def test_a_long_name_is_not_kept(bank: Bank) -> None:
    before = await memory(bank)
    for number in range(300):
        host = f"{number:06}" * 10_000
        assert (await ask(bank.command, GET, [f"Host: {host}"]))[0] == 421
    assert await memory(bank) < before + TAKEN_BYTES_MAX


@pytest.mark.parametrize(
    "target",
    [
        *("/account//", "/account///", "/account/deposit//", "/account/withdraw//", "/account/deposit/%2F"),
        *("/account%2Fdeposit%2Fgate", "/account/deposit%2Fgate", "/account/%64eposit/gate", "/commands//"),
        *("/%63ommands", "//commands", "/account/deposit/.", "/account/deposit/..", "/account/deposit/%2e%2E"),
    ],
)
@pytest.mark.parametrize("body", [BODY, b'{"name":"Eve"}', b"[]"])
async def test_a_path_that_others_may_read_in_another_way_records_nothing(bank: Bank, target: str, body: bytes) -> None:
    """A slash that is not one, an id that is none, and one whose path is another's (RFC 3986, section 5.2.4)."""
    headers = ["Host: localhost", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    async with nothing_recorded(bank):
        assert (await ask(bank.command, f"POST {target} HTTP/1.1", headers, body))[0] in (404, 422)


async def test_an_id_is_decoded_and_nothing_else_of_a_path(bank: Bank, account: str) -> None:
    spelled = f"%{ord(account[0]):x}{account[1:]}"
    for service, line, expected in [
        (bank.command, f"POST /account/deposit/{spelled}", 200),
        (bank.command, f"POST /account/deposit/{spelled}/", 200),
        (bank.command, "GET /%65vents", 404),
        (bank.projection, f"GET /account/{spelled}?min_position={await head(bank)}", 200),
        (bank.projection, f"GET /account/{spelled}/events", 200),
        (bank.projection, f"GET /%61ccount/{account}/events", 404),
        (bank.projection, f"GET /account/{account}%2Fevents", 422),
        (bank.projection, f"GET /%61ccount/{account}", 404),
        (bank.projection, "GET /%72eserve", 404),
    ]:
        posts = line.startswith("POST")
        headers = ["Host: localhost", *(JSON if posts else ())]
        assert (await ask(service, f"{line} HTTP/1.1", headers, BODY if posts else b""))[0] == expected, line
    assert (await bank.deposit(account, 1))[1]["balance"] == 103


async def test_space_around_a_header_is_not_part_of_it(bank: Bank, account: str) -> None:
    """RFC 9112, section 5.1."""
    line, tail = f"POST /account/deposit/{account} HTTP/1.1", " \t "
    for key in ("a" + tail, tail + "a", '"a"' + tail):
        headers = [f"Host:{tail}localhost{tail}", f"Idempotency-Key: {account}{key.strip()}{tail}"]
        headers += [f"{name}{tail}" for name in JSON[:1]] + [*JSON[1:]]
        assert (await ask(bank.command, line, headers, BODY))[0] == (422 if '"' in key else 200)
    assert (await bank.deposit(account, 1))[1]["balance"] == 102


async def test_whoever_asks_whether_to_send_a_body_is_told_that_it_is_too_large(bank: Bank) -> None:
    client = await Client.connect(bank.command)
    start = b"POST /account/ HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    start += b"Expect: 100-continue\r\nContent-Length: 65537\r\n\r\n"
    client.writer.write(start)
    assert statuses(await client.reader.readuntil(b"\r\n\r\n")) == [413]
    client.writer.close()


@pytest.mark.parametrize(("encoding", "status"), [("gzip", 415), ("identity, br", 415), ("", 415), ("Identity", 400)])
async def test_a_body_that_is_encoded_is_refused(bank: Bank, encoding: str, status: int) -> None:
    """400 is the ledger's: there is no such account."""
    line = "POST /account/deposit/nobody HTTP/1.1"
    headers = ["Host: localhost", *JSON, f"Content-Encoding: {encoding}"]
    assert (await ask(bank.command, line, headers, BODY))[0] == status


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


@pytest.mark.parametrize("name", sorted({*ONCE.values()} - {"Host", "Content-Length"}))
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
