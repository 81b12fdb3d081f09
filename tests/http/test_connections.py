"""What a connection may take, over raw sockets: bytes, seconds, descriptors. And what half a connection still gets."""

import asyncio
import contextlib
import io
import json
import re
import socket
from collections.abc import AsyncIterator, Callable
from functools import partial
from operator import eq
from pathlib import Path

import pytest

from tests.bank import START_SECONDS, STOP_SECONDS, Bank, Service, open_bank
from tests.http.test_commands import head

HOST = b"Host: 127.0.0.1\r\n"
JSON = HOST + b"Content-Type: application/json\r\n"
CLOSE = b"Connection: close\r\n"
LIVEZ = b"GET /livez HTTP/1.1\r\n" + HOST
END_SECONDS = 30
"""Far beyond the limits that `impatient` sets, and short of those that a service has without settings."""
TAKEN_BYTES_MAX = 8 * 1024 * 1024
"""What the kernel's buffers on both sides take at most beyond what the service does."""


class Client:
    """One connection to `service`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, service: Service) -> "Client":
        return cls(*await asyncio.open_connection("127.0.0.1", service.port))

    async def rest(self) -> bytes:
        """What comes until the service closes the connection, which it has to."""
        received = b""
        async with asyncio.timeout(END_SECONDS):
            with contextlib.suppress(ConnectionError):
                while part := await self.reader.read(65536):
                    received += part
        self.writer.close()
        return received

    async def trickle(self, part: bytes) -> bytes:
        """Send `part` again and again, slowly, for as long as the service takes it; what it says."""

        async def send() -> None:
            with contextlib.suppress(ConnectionError):
                while not self.reader.at_eof():
                    self.writer.write(part)
                    await self.writer.drain()
                    await asyncio.sleep(0.05)

        sending = asyncio.create_task(send())
        try:
            return await self.rest()
        finally:
            sending.cancel()


async def exchange(service: Service, request: bytes, half_close: bool = False) -> bytes:
    client = await Client.connect(service)
    client.writer.write(request)
    if half_close:
        client.writer.write_eof()
    return await client.rest()


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


async def metric(bank: Bank, service: Service, name: str) -> float:
    async with bank.http.get(service.url + "/metrics") as response:
        found = re.search(rf"^{re.escape(name)} (\S+)$", await response.text(), re.MULTILINE)
        assert found, name
        return float(found[1])


async def becomes(bank: Bank, service: Service, name: str, accept: Callable[[float], bool]) -> None:
    """Wait until `accept` takes the metric `name`."""
    async with asyncio.timeout(END_SECONDS):
        while not accept(await metric(bank, service, name)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def entries(service: Service, event: str) -> list[dict[str, object]]:
    """The entries of the service's log that start so."""
    logged = (json.loads(line) for line in service.log.read_text().splitlines())
    return [entry for entry in logged if entry["event"].startswith(event)]


@contextlib.asynccontextmanager
async def running(folder: Path, open_files_max: int | None = None, **settings: object) -> AsyncIterator[Service]:
    service = Service(
        "command_service",
        folder / "log",
        DATA_DIR=str(folder),
        **{name: str(value) for name, value in settings.items()},
    )
    if open_files_max:
        service.command_line = ["sh", "-c", f'ulimit -n {open_files_max}; exec "$0" "$@"', *service.command_line]
    try:
        await service.start()
        yield service
    finally:
        await service.kill()


@pytest.fixture(scope="module")
async def impatient(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    limits = {"HEADER_SECONDS": 1, "BODY_SECONDS": 1, "IDLE_SECONDS": 1, "WRITE_SECONDS": 1}
    async with running(tmp_path_factory.mktemp("impatient"), **limits) as service:
        yield service


MALFORMED = {
    "path not in ASCII": b"GET /account/\xff\xfe HTTP/1.1\r\n" + HOST + CLOSE,
    "bad escape": b"POST /account/deposit/%zz HTTP/1.1\r\n" + JSON + CLOSE + b"Content-Length: 14\r\n",
    "escaped byte that is no text": b"POST /account/deposit/%ff HTTP/1.1\r\n"
    + JSON
    + CLOSE
    + b"Content-Length: 14\r\n",
    "NUL": b"POST /account/deposit/\0 HTTP/1.1\r\n" + JSON + CLOSE + b"Content-Length: 14\r\n",
    "NUL in a header": LIVEZ + b"X: a\0b\r\n" + CLOSE,
    "unknown method": b"BREW /livez HTTP/1.1\r\n" + HOST + CLOSE,
    "other method": b"PROPFIND /livez HTTP/1.1\r\n" + HOST + CLOSE,
    "huge length": b"POST /account/ HTTP/1.1\r\n" + JSON + b"Content-Length: 99999999999999999999999999\r\n",
    "negative length": b"POST /account/ HTTP/1.1\r\n" + JSON + b"Content-Length: -1\r\n",
    "two lengths": b"POST /account/ HTTP/1.1\r\n" + JSON + b"Content-Length: 14\r\nContent-Length: 3\r\n",
    "length and chunks": b"POST /account/ HTTP/1.1\r\n"
    + JSON
    + b"Content-Length: 14\r\nTransfer-Encoding: chunked\r\n",
    "other encoding": b"POST /account/ HTTP/1.1\r\n" + JSON + b"Transfer-Encoding: gzip\r\n",
    "HTTP/0.9": b"GET /livez\r\n",
    "a request in HTTP/2": b"GET /livez HTTP/2.0\r\n" + HOST,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n",
    "other version": b"GET /livez HTTP/9.7\r\n" + HOST,
    "tunnel": b"CONNECT example.org:443 HTTP/1.1\r\n" + HOST,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100,
    "folded header": LIVEZ + b"X: a\r\n b\r\n" + CLOSE,
    "space before the colon": LIVEZ + b"X : a\r\n" + CLOSE,
    "upgrade with a body": b"POST /account/ HTTP/1.1\r\n"
    + JSON
    + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 14\r\n",
}
CREATE = b'{"name": "Eve"}'


@pytest.mark.parametrize("request_head", MALFORMED.values(), ids=MALFORMED.keys())
async def test_what_is_not_a_request_is_told_so_and_nothing_is_recorded(bank: Bank, request_head: bytes) -> None:
    before = await head(bank)
    answers = await exchange(bank.command, request_head + b"\r\n" + CREATE[:14])
    assert [400 <= status < 500 for status in statuses(answers)] == [True]
    assert b"\r\nx-content-type-options: nosniff\r\n" in answers
    assert json.loads(answers.partition(b"\r\n\r\n")[2])["type"].startswith("urn:counting-house:problem:")
    assert await head(bank) == before
    assert not any(entry["level"] == "error" for entry in entries(bank.command, ""))


async def test_garbage_behind_a_command_does_not_cost_its_answer(bank: Bank, account: str) -> None:
    body = b'{"amount": 7}'
    deposit = b"POST /account/deposit/%b HTTP/1.1\r\n%bContent-Length: 13\r\n\r\n%b" % (account.encode(), JSON, body)
    answers = await exchange(bank.command, deposit + deposit + b"GARBAGE\r\n\r\n")
    assert statuses(answers) == [200, 200, 400]
    assert (await bank.deposit(account, 1))[1]["balance"] == 115


async def test_a_command_with_a_bad_body_behind_another_is_not_recorded(bank: Bank, account: str) -> None:
    deposit = b"POST /account/deposit/%b HTTP/1.1\r\n%b" % (account.encode(), JSON)
    good = deposit + b'Content-Length: 13\r\n\r\n{"amount": 7}'
    bad = deposit + b'Transfer-Encoding: chunked\r\n\r\nd\r\n{"amount": 7}\r\nnot a chunk\r\n\r\n'
    assert statuses(await exchange(bank.command, good + bad + good)) == [200, 400]
    assert (await bank.deposit(account, 1))[1]["balance"] == 108


async def test_a_request_that_offers_another_protocol_is_answered_in_this_one(bank: Bank) -> None:
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
    assert statuses(await exchange(bank.command, LIVEZ + offer + b"something else")) == [200]


async def test_a_connection_is_kept_as_the_client_asks(bank: Bank) -> None:
    requests = [LIVEZ + b"\r\n", LIVEZ + b"\r\n", LIVEZ + CLOSE + b"\r\n", LIVEZ + b"\r\n"]
    assert statuses(await exchange(bank.command, b"".join(requests))) == [200] * 3
    assert statuses(await exchange(bank.command, b"GET /livez HTTP/1.0\r\n" + HOST + b"\r\n")) == [200]


ENDLESS = {
    "one header": (LIVEZ + b"X: ", b"a" * 65536),
    "many headers": (LIVEZ, b"a: b\r\n" * 1000),
    "target": (b"GET /livez?", b"a" * 65536),
    "empty lines": (b"", b"\r\n" * 32768),
    "one trailer": (
        b"POST /account/ HTTP/1.1\r\n" + JSON + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ",
        b"a" * 65536,
    ),
    "many trailers": (
        b"POST /account/ HTTP/1.1\r\n" + JSON + b"Transfer-Encoding: chunked\r\n\r\n0\r\n",
        b"a: b\r\n" * 999,
    ),
    "a chunk's extension": (
        b"POST /account/ HTTP/1.1\r\n" + JSON + b"Transfer-Encoding: chunked\r\n\r\n2;",
        b"a" * 65536,
    ),
}


def flood(service: Service, start: bytes, part: bytes) -> tuple[int, bytes]:
    """Send until that fails; how much was taken, and what the service said."""
    taken, answers = 0, b""
    with socket.create_connection(("127.0.0.1", service.port), END_SECONDS) as client:
        client.sendall(start)
        with contextlib.suppress(ConnectionError):
            while taken <= TAKEN_BYTES_MAX:
                taken += client.send(part)
        with contextlib.suppress(ConnectionError):
            while part := client.recv(65536):
                answers += part
    return taken, answers


@pytest.mark.parametrize(("start", "part"), ENDLESS.values(), ids=ENDLESS.keys())
async def test_headers_and_trailers_without_an_end_are_cut_off_early(bank: Bank, start: bytes, part: bytes) -> None:
    before = await head(bank)
    memory = await metric(bank, bank.command, "process_resident_memory_bytes")
    taken, answers = await asyncio.to_thread(flood, bank.command, start, part)
    assert taken <= TAKEN_BYTES_MAX
    assert statuses(answers) == [431]
    assert await head(bank) == before
    assert await metric(bank, bank.command, "process_resident_memory_bytes") < memory + TAKEN_BYTES_MAX


@pytest.mark.parametrize("trailers", [False, True])
async def test_headers_that_come_at_once_are_limited_with_what_it_costs_to_keep_them(
    bank: Bank, trailers: bool
) -> None:
    """2,000 headers of four bytes take a quarter of a megabyte in memory."""
    fields = b"a:b\r\n" * 2000
    chunked = b"POST /account/ HTTP/1.1\r\n" + JSON + b"Transfer-Encoding: chunked\r\n\r\nf\r\n" + CREATE + b"\r\n0\r\n"
    before = await head(bank)
    assert statuses(await exchange(bank.command, (chunked if trailers else LIVEZ) + fields + b"\r\n")) == [431]
    assert await head(bank) == before
    assert statuses(
        await exchange(bank.command, LIVEZ + b"a: b\r\n" * 500 + b"X: " + b"x" * 40000 + b"\r\n" + CLOSE + b"\r\n")
    ) == [200]


async def memory(bank: Bank) -> float:
    return await metric(bank, bank.command, "process_resident_memory_bytes")


async def test_requests_that_are_pipelined_without_an_end_are_parsed_in_their_turn(bank: Bank) -> None:
    """Each one that is parsed is held as some 4 KiB until it is answered."""
    before = await memory(bank)
    client = await Client.connect(bank.command)
    client.writer.write((LIVEZ + b"\r\n") * 25_000)
    for _ in range(200):
        await client.reader.readuntil(b'"alive"}')
    assert await memory(bank) < before + TAKEN_BYTES_MAX
    client.writer.transport.abort()


async def test_requests_behind_one_that_waits_are_not_parsed(bank: Bank) -> None:
    before = await memory(bank)
    clients = [await Client.connect(bank.command) for _ in range(20)]
    for client in clients:
        client.writer.write(b"GET /events?after=999999999&wait=60 HTTP/1.1\r\n" + HOST + b"\r\n")
    for client in clients:
        client.writer.write((LIVEZ + b"\r\n") * 5000)
    assert statuses(await exchange(bank.command, LIVEZ + CLOSE + b"\r\n")) == [200]
    assert await memory(bank) < before + TAKEN_BYTES_MAX
    for client in clients:
        client.writer.transport.abort()


async def test_what_is_pipelined_is_answered_in_order_wherever_it_is_cut(bank: Bank, account: str) -> None:
    """The body has an empty line, as the end of a head; what comes last is half a request."""
    body = b'{"amount":\r\n\r\n 7}'
    start = b"POST /account/deposit/%b HTTP/1.1\r\n%b" % (account.encode(), JSON)
    plain = start + b"Content-Length: %d\r\n\r\n" % len(body) + body
    chunked = start + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    missing = b"GET /missing HTTP/1.1\r\n" + HOST + b"\r\n"
    requests = (plain + missing + chunked + plain + LIVEZ + b"\r\n") * 3 + plain[:-1]
    for size in (7, 331, len(requests)):
        client = await Client.connect(bank.command)
        for begin in range(0, len(requests), size):
            client.writer.write(requests[begin : begin + size])
            await asyncio.sleep(0.001)
        client.writer.write_eof()
        assert statuses(await client.rest()) == [200, 404, 200, 200, 200] * 3 + [400]
    assert (await bank.deposit(account, 1))[1]["balance"] == 101 + 3 * 9 * 7


DEPOSIT = b"POST /account/deposit/alike HTTP/1.1\r\n" + HOST
OF_JSON, OF_14 = b"Content-Type: application/json\r\n", b"Content-Length: 14\r\n\r\n"
KEPT = OF_JSON + b"Idempotency-Key: alike\r\n" + CLOSE
ALIKE = {
    "deposit": (200, DEPOSIT + KEPT + OF_14 + b'{"amount": 70}'),
    "deposit in chunks": (
        200,
        DEPOSIT + KEPT + b'Transfer-Encoding: chunked\r\n\r\n7\r\n{"amoun\r\n7\r\nt": 70}\r\n0\r\n\r\n',
    ),
    "of HTTP/1.0": (200, DEPOSIT.replace(b"/1.1", b"/1.0") + KEPT + OF_14 + b'{"amount": 70}'),
    "another body under its key": (422, DEPOSIT + KEPT.replace(b"alike", b"taken") + OF_14 + b'{"amount": 71}'),
    "rejected": (400, DEPOSIT + KEPT.replace(b"alike", b"nobody") + OF_14 + b'{"amount": -7}'),
    "no JSON": (422, DEPOSIT + OF_JSON + CLOSE + OF_14 + b'{"amount": 70,'),
    "no such field": (422, DEPOSIT + OF_JSON + CLOSE + OF_14 + b'{"a\\u006": 70}'),
    "no such parameter": (
        422,
        DEPOSIT.replace(b"/alike", b"/alike?now=1") + OF_JSON + CLOSE + OF_14 + b'{"amount": 70}',
    ),
    "no such account's id": (422, DEPOSIT.replace(b"/alike", b"/a%7Fb") + OF_JSON + CLOSE + OF_14 + b'{"amount": 70}'),
    "another type": (415, DEPOSIT + CLOSE + b"Content-Type: text/plain\r\n" + OF_14 + b'{"amount": 70}'),
    "packed": (415, DEPOSIT + OF_JSON + CLOSE + b"Content-Encoding: gzip\r\n" + OF_14 + b'{"amount": 70}'),
    "no host": (400, DEPOSIT.replace(HOST, b"") + OF_JSON + CLOSE + OF_14 + b'{"amount": 70}'),
    "another host": (
        421,
        DEPOSIT.replace(HOST, b"Host: evil.example\r\n") + OF_JSON + CLOSE + OF_14 + b'{"amount": 70}',
    ),
    "another origin": (403, DEPOSIT + OF_JSON + CLOSE + b"Origin: http://evil.example\r\n" + OF_14 + b'{"amount": 70}'),
    "two keys": (422, DEPOSIT + KEPT + b"Idempotency-Key: another\r\n" + OF_14 + b'{"amount": 70}'),
    "a query's path": (405, b"POST /events HTTP/1.1\r\n" + HOST + OF_JSON + CLOSE + OF_14 + b'{"amount": 70}'),
    "no path": (404, b"POST /missing HTTP/1.1\r\n" + HOST + OF_JSON + CLOSE + OF_14 + b'{"amount": 70}'),
}


@pytest.mark.parametrize(("status", "request_"), ALIKE.values(), ids=ALIKE.keys())
async def test_a_request_is_answered_alike_whole_and_in_pieces(bank: Bank, status: int, request_: bytes) -> None:
    """Whole, it is answered in another way: without a task of its own."""
    await bank.post("/account/alike", {"name": "Alike"})
    await bank.deposit("alike", 70, key="taken")
    begin, end = request_.split(b"\r\n\r\n", 1)
    answers = []
    for pieces in ([request_], [begin + b"\r\n\r\n", end], [begin + b"\r\n\r\n" + end[:1], end[1:-1], end[-1:]]):
        client = await Client.connect(bank.command)
        for piece in pieces:
            client.writer.write(piece)
            await asyncio.sleep(0.02)
        first, *lines = (await client.rest()).split(b"\r\n")
        answers.append([first, *sorted(line for line in lines if not line.startswith(b"date: "))])
    assert statuses(answers[0][0]) == [status]
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize("behind", [b'Content-Length: 12\r\n\r\n{"amount":1}', b"Content-Length: 0\r\n\r\n"])
async def test_what_is_wrong_with_a_request_is_not_told_of_the_next(bank: Bank, behind: bytes) -> None:
    """The first has no Host; behind it is garbage."""
    request = b"POST /account/deposit/alike HTTP/1.1\r\n" + OF_JSON + behind
    for cut in (len(request), len(request) + 10):
        client = await Client.connect(bank.command)
        for piece in ((request + b"\0GARBAGE\r\n\r\n")[:cut], (request + b"\0GARBAGE\r\n\r\n")[cut:]):
            client.writer.write(piece)
            await asyncio.sleep(0.02)
        first, second = (await client.rest()).split(b"HTTP/1.1 400 ")[1:]
        assert b"Host" in first
        assert b"Invalid method" in second
        assert b"Host" not in second


@pytest.mark.parametrize("trailer", [b"Connection: close\r\n", b"Expect: 100-continue\r\n"])
@pytest.mark.parametrize("path", [b"account/deposit/alike", b"missing"])
async def test_a_trailer_means_the_same_wherever_it_is_cut(bank: Bank, path: bytes, trailer: bytes) -> None:
    """It may end the connection: the parser reads nothing behind it. There is nothing to go on with."""
    chunked = b'Transfer-Encoding: chunked\r\n\r\nc\r\n{"amount":1}\r\n0\r\n' + trailer + b"X: y\r\n\r\n"
    request = b"POST /%b HTTP/1.1\r\n" % path + JSON + chunked
    for cut in (len(request), len(request) - 2, len(request) - 8):
        client = await Client.connect(bank.command)
        for piece in (request[:cut], request[cut:] + LIVEZ + CLOSE + b"\r\n"):
            client.writer.write(piece)
            await asyncio.sleep(0.02)
        told = statuses(await client.rest())
        assert len(told) == (1 if b"close" in trailer else 2)
        assert 100 not in told


async def test_who_is_refused_before_being_told_to_go_on_leaves_no_error_in_the_log(bank: Bank) -> None:
    start = b"POST /account/deposit/alike HTTP/1.1\r\n" + JSON + b"Expect: 100-continue\r\n"
    request = start + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"
    assert statuses(await exchange(bank.command, request)) == [400]
    await exchange(bank.command, LIVEZ + CLOSE + b"\r\n")
    assert not any(entry["level"] == "error" for entry in entries(bank.command, ""))


FRAMES = {"chunks of one byte": b"1\r\n \r\n", "extensions": b"1;" + b"x" * 1000 + b"\r\n \r\n"}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
async def test_a_body_that_is_mostly_framing_is_cut_off_early(bank: Bank, frame: bytes) -> None:
    """As in Go's net/http since CVE-2023-39326."""
    start = b"POST /commands HTTP/1.1\r\n" + JSON + b"Transfer-Encoding: chunked\r\n\r\n"
    taken, answers = await asyncio.to_thread(flood, bank.command, start, frame * (65536 // len(frame)))
    assert taken <= TAKEN_BYTES_MAX
    assert statuses(answers) == [400]
    assert b"65536" in answers


async def test_a_body_in_another_encoding_than_chunks_is_refused(bank: Bank, account: str) -> None:
    start = b"POST /account/deposit/%b HTTP/1.1\r\n%b" % (account.encode(), JSON)
    end = b'Transfer-Encoding: %b\r\n\r\nd\r\n{"amount": 7}\r\n0\r\n\r\n'
    for encoding, status in [(b"gzip, chunked", 400), (b"identity, chunked", 400), (b"Chunked ", 200)]:
        assert statuses(await exchange(bank.command, start + CLOSE + end % encoding)) == [status]
    assert (await bank.deposit(account, 1))[1]["balance"] == 108


async def test_a_body_in_small_chunks_is_read(bank: Bank) -> None:
    start = b"POST /commands HTTP/1.1\r\n" + JSON + CLOSE + b"Transfer-Encoding: chunked\r\n\r\n"
    small = b"1\r\n \r\n" * 10_000 + b"5\r\n     \r\n" * 100_000
    assert statuses(await exchange(bank.command, start + small + b"2\r\n[]\r\n0\r\n\r\n")) == [200]


def send_all(service: Service, request: bytes) -> tuple[bool, bytes]:
    """As a client that reads nothing before it has sent everything: could it, and what does it read then?"""
    answers = b""
    with socket.create_connection(("127.0.0.1", service.port), END_SECONDS) as client:
        try:
            client.sendall(request)
            while part := client.recv(65536):
                answers += part
        except ConnectionError:
            return False, answers
    return True, answers


@pytest.mark.parametrize("connection", [b"", CLOSE])
@pytest.mark.parametrize(
    ("target", "media_type", "status"),
    [(b"/commands", b"text/plain", 415), (b"/commands", b"application/json", 413), (b"/missing", b"text/plain", 404)],
)
async def test_an_answer_that_comes_before_the_end_of_the_body_is_not_lost(
    bank: Bank, target: bytes, media_type: bytes, status: int, connection: bytes
) -> None:
    body = b" " * 20 * 1024 * 1024
    start = b"POST %b HTTP/1.1\r\n%b%bContent-Type: %b\r\n" % (target, HOST, connection, media_type)
    request = start + b"Content-Length: %d\r\n\r\n" % len(body) + body
    if not connection:
        request += LIVEZ + CLOSE + b"\r\n"
    is_sent, answers = await asyncio.to_thread(send_all, bank.command, request)
    assert is_sent
    assert statuses(answers) == ([status] if connection else [status, 200])


async def test_an_answered_body_is_not_read_for_ever(bank: Bank) -> None:
    start = b"POST /missing HTTP/1.1\r\n" + JSON + CLOSE + b"Content-Length: 1000000000000\r\n\r\n"
    is_sent, _ = await asyncio.to_thread(send_all, bank.command, start + b" " * 128 * 1024 * 1024)
    assert not is_sent


async def test_a_client_of_http_1_0_is_not_told_to_continue(bank: Bank) -> None:
    """RFC 9110, section 10.1.1."""
    start = b"POST /account/ HTTP/1.%d\r\n" + JSON + CLOSE + b"Expect: 100-continue \r\n"
    end = b"Content-Length: %d\r\n\r\n" % len(CREATE) + CREATE
    assert statuses(await exchange(bank.command, start % 0 + end)) == [201]
    assert statuses(await exchange(bank.command, start % 1 + end)) == [100, 201]


async def test_a_trailer_is_not_taken_for_a_header(bank: Bank, account: str) -> None:
    """Neither of its own request nor of the next one on the connection."""
    start = b"POST /account/deposit/%b HTTP/1.1\r\n%b" % (account.encode(), JSON)
    chunked = (
        b'Transfer-Encoding: chunked\r\n\r\nd\r\n{"amount": 7}\r\n0\r\nIdempotency-Key: %b\r\n\r\n' % account.encode()
    )
    plain = CLOSE + b'Content-Length: 13\r\n\r\n{"amount": 7}'
    assert statuses(await exchange(bank.command, start + chunked + start + chunked + start + plain)) == [200] * 3
    assert (await bank.deposit(account, 1, key=account))[1]["balance"] == 122


@pytest.mark.parametrize(
    ("start", "part", "expected", "cause"),
    [
        (LIVEZ, b"X-Slow: a\r\n", [408], "header"),
        (b"POST /account/ HTTP/1.1\r\n" + JSON + b"Content-Length: 9999\r\n\r\n", b"{", [408], "body"),
        (b"GET /livez HTTP/1.1\r\n" + HOST + b"Content-Length: 9999\r\n\r\n", b"{", [200], "body"),
        (b"", b"", [], "idle"),
        (b"", b"\r\n", [], "idle"),
        (LIVEZ + b"\r\n", b"", [200], "idle"),
    ],
    ids=["headers", "body", "body that nobody reads", "silent", "empty lines", "idle after an answer"],
)
async def test_a_client_that_takes_too_long_is_hung_up_on(
    bank: Bank, impatient: Service, start: bytes, part: bytes, expected: list[int], cause: str
) -> None:
    counter = f'http_cut_off_total{{cause="{cause}"}}'
    before = await metric(bank, impatient, counter)
    client = await Client.connect(impatient)
    client.writer.write(start)
    assert statuses(await client.trickle(part)) == expected
    assert await metric(bank, impatient, counter) > before


async def test_a_client_that_asks_now_and_then_is_not_idle(impatient: Service) -> None:
    client = await Client.connect(impatient)
    for _ in range(10):
        client.writer.write(LIVEZ + b"\r\n")
        await client.reader.readuntil(b'"alive"}')
        await asyncio.sleep(0.3)
    client.writer.close()


async def fill(bank: Bank, service: Service, account: str) -> None:
    """A log of some megabytes."""
    url = service.url + "/commands"
    item = {"type": "deposit", "account_id": account, "amount": 1, "description": "x" * 1000}
    batch = json.dumps([{"type": "create-account", "account_id": account, "name": "A"}, *[item] * 3000]).encode()
    headers = {"Content-Type": "application/json"}
    async with bank.http.post(url, data=io.BytesIO(batch), headers=headers) as response:
        assert response.status == 200


async def test_a_client_that_stops_reading_is_hung_up_on(bank: Bank, impatient: Service) -> None:
    await fill(bank, impatient, "never-reading")
    before = await metric(bank, impatient, 'http_cut_off_total{cause="write"}')
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", impatient.port))
        client.sendall((b"GET /events?limit=10000 HTTP/1.1\r\n" + HOST + b"\r\n") * 20)
        await becomes(bank, impatient, 'http_cut_off_total{cause="write"}', lambda count: count > before)


async def test_answers_that_nobody_reads_do_not_fill_the_memory(bank: Bank, tmp_path: Path) -> None:
    """Those that were left for longest are given up; whoever reads is served."""
    item = {"type": "deposit", "account_id": "never-reading", "amount": 1}
    batch = json.dumps([item] * 10_000).encode()
    request = b"POST /commands HTTP/1.1\r\n" + JSON + b"Content-Length: %d\r\n\r\n" % len(batch) + batch
    async with running(tmp_path, WRITE_SECONDS=10_000) as service:
        with contextlib.ExitStack() as clients:
            for number in range(1, 41):
                client = clients.enter_context(socket.socket())
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.connect(("127.0.0.1", service.port))
                await asyncio.to_thread(client.sendall, request)
                await becomes(bank, service, "ledger_head_position", partial(eq, number * 10_000))
            await becomes(bank, service, 'http_cut_off_total{cause="write"}', lambda count: count > 0)
            assert statuses(await exchange(service, LIVEZ + CLOSE + b"\r\n")) == [200]


async def test_a_wait_is_not_cut_short_by_limits_on_the_client(impatient: Service) -> None:
    answer = await exchange(impatient, b"GET /events?after=999999&wait=4 HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n")
    assert statuses(answer) == [200]


async def test_connections_over_the_limit_get_a_503_and_one_line_in_the_log(bank: Bank, tmp_path: Path) -> None:
    async with running(tmp_path, CONNECTIONS_MAX=3) as service:
        for times in (1, 2):
            await becomes(bank, service, "http_connections", lambda count: count == 1)
            # One is what the metrics are asked over.
            holding = [await Client.connect(service) for _ in range(2)]
            for _ in range(5):
                refused = await exchange(service, LIVEZ + b"\r\n")
                assert statuses(refused) == [503]
                assert b"retry-after:" in refused
            assert statuses(await (await Client.connect(service)).rest()) == [503], "to one that says nothing"
            assert await metric(bank, service, "http_connections_refused_total") == 6 * times
            for client in holding:
                client.writer.close()
            async with asyncio.timeout(END_SECONDS):
                while len(entries(service, "connections are taken again")) < times:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            assert len(entries(service, "connections are refused")) == times


async def test_connections_never_use_up_the_descriptors(bank: Bank, tmp_path: Path) -> None:
    async with running(tmp_path, open_files_max=256, CONNECTIONS_MAX=10_000, IDLE_SECONDS=5) as service:
        (lowered,) = entries(service, "CONNECTIONS_MAX is lowered")
        assert lowered["connections_max"] == 128
        assert await metric(bank, service, "http_connections_max") == 128
        crowd = [await Client.connect(service) for _ in range(500)]
        assert statuses(await exchange(service, LIVEZ + b"\r\n")) == [503], "behind many that say nothing"
        # The connection that was there before is served, and opens what files it needs.
        headers = {"Content-Type": "application/json"}
        async with bank.http.post(
            service.url + "/account/alice", data=b'{"name": "Alice"}', headers=headers
        ) as created:
            assert created.status == 201
        assert await metric(bank, service, "process_open_fds") < 256
        assert await metric(bank, service, "http_connections_refused_total") >= 500 - 128
        # The silent ones are cut off in the end, and there is room again.
        async with asyncio.timeout(END_SECONDS):
            while statuses(await exchange(service, LIVEZ + CLOSE + b"\r\n")) != [200]:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        assert not any(entry["level"] == "error" for entry in entries(service, ""))
        for client in crowd:
            client.writer.close()


async def test_a_half_closed_client_gets_its_answers(bank: Bank, account: str) -> None:
    deposit = b'POST /account/deposit/%b HTTP/1.1\r\n%bContent-Length: 13\r\n\r\n{"amount": 7}' % (
        account.encode(),
        JSON,
    )
    assert statuses(await exchange(bank.command, LIVEZ + b"\r\n", half_close=True)) == [200]
    assert statuses(await exchange(bank.command, deposit * 3, half_close=True)) == [200] * 3
    assert (await bank.deposit(account, 1))[1]["balance"] == 122


async def test_a_half_closed_client_of_the_feed_gets_its_whole_page(bank: Bank, account: str) -> None:
    await fill(bank, bank.command, f"{account}-filled")
    client = await Client.connect(bank.command)
    client.writer.write(b"GET /events?after=%d&limit=10000 HTTP/1.1\r\n" % (await head(bank) - 3000) + HOST + b"\r\n")
    client.writer.write_eof()
    await asyncio.sleep(0.5)  # it reads late, and the service has to keep what it could not send
    assert len(json.loads((await client.rest()).partition(b"\r\n\r\n")[2])) > 300


@pytest.mark.parametrize(
    ("of_projection", "path", "status"),
    [(False, b"/events?after=999999999&wait=60", 200), (True, b"/reserve?min_position=999999999&wait=60", 503)],
)
async def test_nobody_waits_for_a_client_that_has_finished(
    bank: Bank, of_projection: bool, path: bytes, status: int
) -> None:
    """`END_SECONDS` is half of what they ask to wait."""
    service = bank.projection if of_projection else bank.command
    request = b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"\r\n"
    assert statuses(await exchange(service, request, half_close=True)) == [status]
    waiting = [await Client.connect(service) for _ in range(200)]
    for client in waiting:
        client.writer.write(request + LIVEZ + b"\r\n")
    half_closed, gone = waiting[:100], waiting[100:]
    await becomes(bank, service, "http_connections", lambda count: count >= 200)
    for client in half_closed:
        client.writer.write_eof()
    for client in gone:
        client.writer.transport.abort()
    assert [statuses(await client.rest()) for client in half_closed] == [[status, 200]] * 100
    await becomes(bank, service, "http_connections", lambda count: count < 100)


async def test_a_wait_costs_little_memory(tmp_path: Path) -> None:
    """It is waited for before the application is entered, which would hold 15 KiB for it.

    Time goes the same way: to make all that, and to look through it for garbage.
    """
    async with open_bank(tmp_path) as bank:
        for service, query in [(bank.command, b"/events?after"), (bank.projection, b"/reserve?min_position")]:
            clients = [await Client.connect(service) for _ in range(500)]
            for client in clients:
                client.writer.write(LIVEZ + b"\r\n")
                await client.reader.readuntil(b'"alive"}')
            before = await metric(bank, service, "process_resident_memory_bytes")
            for client in clients:
                client.writer.write(b"GET %b=999999999&wait=50 HTTP/1.1\r\n%b\r\n" % (query, HOST))
            await exchange(service, b"GET %b=999999999&wait=1 HTTP/1.1\r\n%b%b\r\n" % (query, HOST, CLOSE))
            after = await metric(bank, service, "process_resident_memory_bytes")
            assert (after - before) / len(clients) < 8 * 1024
            for client in clients:
                client.writer.transport.abort()


@pytest.mark.parametrize(
    "cut",
    [
        b"",
        b"Content-Length: 20\r\n\r\n",
        b'Content-Length: 20\r\n\r\n{"name": "Eve"',
        b"Transfer-Encoding: chunked\r\n\r\n" + b"f\r\n" + CREATE,
    ],
    ids=["headers", "no body", "body", "chunks"],
)
async def test_half_a_request_is_not_recorded(bank: Bank, cut: bytes) -> None:
    before = await head(bank)
    assert statuses(await exchange(bank.command, b"POST /account/ HTTP/1.1\r\n" + JSON + cut, half_close=True)) == [400]
    assert await head(bank) == before


async def test_a_stop_waits_for_nobody_who_does_not_ask_for_anything(tmp_path: Path) -> None:
    async with running(tmp_path) as service:
        requests = [
            b"",
            LIVEZ,
            LIVEZ + b"\r\n",
            b"GET /events?after=99&wait=60 HTTP/1.1\r\n" + HOST + b"\r\n",
        ]
        clients = []
        for request in requests:
            client = await Client.connect(service)
            client.writer.write(request)
            clients.append(client)
        half_closed = await Client.connect(service)
        half_closed.writer.write(LIVEZ + b"\r\n")
        half_closed.writer.write_eof()
        assert await clients[2].reader.readuntil(b'"alive"}')
        async with asyncio.timeout(min(START_SECONDS, STOP_SECONDS)):
            assert await service.stop() == 0
        assert statuses(await half_closed.rest()) == [200]
        assert statuses(await clients[3].rest()) == [200]
        assert not entries(service, "Cancel"), "nothing was cut short"
        for client in clients:
            client.writer.close()
