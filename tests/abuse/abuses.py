"""What one hostile client, or a crowd of them, can do to a service. Each abuse says what came of it."""

import asyncio
import json
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from command_service.http import commands
from command_service.http.commands import BATCH_BYTES_MAX
from shared.platform import gate, http_protocol, watermark
from shared.platform.gate import BODIES_BYTES_MAX
from shared.platform.settings import ServiceSettings
from tests.bank import Service
from tests.wire import Answer, Connection, NoAnswer, read_answer, request

MIB = 1024 * 1024
LIMITS: dict[str, Any] = {
    **{name.upper(): field.default for name, field in ServiceSettings.model_fields.items()},
    **vars(commands),
    **vars(gate),
    **vars(http_protocol),
    **vars(watermark),
}
"""The settings and constants by their names, with the values that they have by themselves."""
WAVE = 500
"""So many connections are opened at once: the kernel's queue of those that wait for it is bounded too."""
HOSTILE_SECONDS = 45
PATIENT_SECONDS = 75
"""Longer than a service waits for anybody, unless it is told to."""
TRICKLE = 100
"""So many requests are sent at once, where it is not this that is tried: work takes its time whoever asks for it."""
WAIT_SECONDS = 10
HONEST_SECONDS = 15
FAR = 10**12
Outcome = str


class Abuse(NamedTuple):
    """`limits` name what has to hold, in words where it is no number.

    `patient` ones cost hardly anything and take their time, so they go together.
    """

    name: str
    limits: str
    run: Callable[[Service], Awaitable[Outcome]]
    service: Literal["command", "projection"] = "command"
    open_files_max: int | None = None
    patient: bool = False


class Client:
    """A connection that is written to as far as the service lets it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        # From the beginning: a reset takes with it what has come and was not read.
        self._answer = asyncio.ensure_future(read_answer(reader, is_head=False))

    @property
    def is_ended(self) -> bool:
        return self._reader.at_eof() or self._reader.exception() is not None

    async def send(self, data: bytes) -> bool:
        """False once the service has ended the connection."""
        with suppress(OSError):
            self._writer.write(data)
            await self._writer.drain()
            return not self.is_ended
        return False

    def begin(self, data: bytes) -> None:
        """Send without waiting for it to be taken."""
        self._writer.write(data)

    async def answer(self, seconds: float = HOSTILE_SECONDS) -> Answer | None:
        with suppress(NoAnswer, TimeoutError):
            async with asyncio.timeout(seconds):
                return await asyncio.shield(self._answer)
        return None

    def close(self) -> None:
        self._answer.cancel()
        self._answer.add_done_callback(lambda answer: answer.cancelled() or answer.exception())
        self._writer.transport.abort()


@asynccontextmanager
async def crowd(service: Service, size: int) -> AsyncIterator[list[Client]]:
    clients: list[Client] = []
    try:
        while len(clients) < size:
            wave = min(WAVE, size - len(clients))
            opened = await asyncio.gather(
                *(asyncio.open_connection("127.0.0.1", service.port) for _ in range(wave)), return_exceptions=True
            )
            clients += [Client(*streams) for streams in opened if not isinstance(streams, BaseException)]
            if any(isinstance(streams, BaseException) for streams in opened):
                break
        yield clients
    finally:
        for client in clients:
            client.close()


def said(answers: Iterable[Answer | None]) -> Outcome:
    """How often each status was answered."""
    counts = Counter(str(answer.status) if answer else "no answer" for answer in answers)
    return ", ".join(f"{status}: {number}" for status, number in sorted(counts.items()))


async def honest(service: Service) -> Outcome:
    """What a client hears that comes new and asks for something small."""
    connection = Connection(service.port)
    try:
        return f"an honest client: {(await connection.ask(request('GET', '/livez'))).status}"
    except NoAnswer as error:
        return f"an honest client: nothing ({error})"
    finally:
        connection.close()


def head_of(path: str, *headers: str) -> bytes:
    return "\r\n".join(
        [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", *headers]
    ).encode()


async def many_headers(service: Service) -> Outcome:
    return await _send_headers(service, b"X-Header: abc\r\n" * 4096, 64 * MIB)


async def one_header(service: Service) -> Outcome:
    return await _send_headers(service, b"a" * 65536, 175 * MIB, b"X-Header: ")


async def _send_headers(service: Service, part: bytes, bytes_max: int, before: bytes = b"") -> Outcome:
    begin, sent = time.monotonic(), 0
    async with crowd(service, 1) as (client,):
        await client.send(head_of("/account") + b"\r\n" + before)
        while sent < bytes_max and time.monotonic() - begin < HOSTILE_SECONDS:
            if not await client.send(part):
                break
            sent += len(part)
        await client.send(b"\r\n\r\n")
        return f"{said([await client.answer(5)])} after {sent / MIB:.1f} MiB"


async def silent(service: Service) -> Outcome:
    async with crowd(service, 1100) as clients:
        await asyncio.sleep(2)
        told = await honest(service)
        return f"{sum(client.is_ended for client in clients)} of {len(clients)} turned away; {told}"


async def slow_headers(service: Service) -> Outcome:
    async with crowd(service, 300) as clients:

        async def trickle(client: Client) -> bool:
            await client.send(b"GET /livez HTTP/1.1\r\nX: ")
            return await _until_ended(client, b"a")

        ended = await asyncio.gather(*map(trickle, clients))
        return f"{sum(ended)} of {len(clients)} ended within {PATIENT_SECONDS} s; {await honest(service)}"


async def slow_bodies(service: Service) -> Outcome:
    async with crowd(service, 60) as clients:

        async def hold(number: int, client: Client) -> bool:
            path = "/commands/" if number % 2 else "/commands"
            head = head_of(path, f"Content-Length: {BATCH_BYTES_MAX}")
            for _ in range(BATCH_BYTES_MAX // MIB - 1):
                if not await client.send((head + b"\r\n\r\n" if head else b"") + b" " * MIB):
                    return True
                head = b""
            return await _until_ended(client, b" ")

        ended = await asyncio.gather(*(hold(number, client) for number, client in enumerate(clients)))
        return f"{sum(ended)} of {len(clients)} ended within {PATIENT_SECONDS} s; {await honest(service)}"


async def _until_ended(client: Client, part: bytes) -> bool:
    """Send `part` once a second; did the service end it in time?"""
    begin = time.monotonic()
    while time.monotonic() - begin < PATIENT_SECONDS:
        if not await client.send(part):
            return True
        await asyncio.sleep(1)
    return False


async def endless_bodies(service: Service) -> Outcome:
    """Together they hold all but what there is for bodies. Each begins again as soon as it is ended."""
    stop = asyncio.Event()
    share = BODIES_BYTES_MAX // 24 - 65536

    async def never_end() -> None:
        while not stop.is_set():
            async with crowd(service, 1) as clients:
                for client in clients:
                    await client.send(head_of("/commands", f"Content-Length: {BATCH_BYTES_MAX}") + b"\r\n\r\n")
                    sent = 0
                    while sent < share and await client.send(b" " * 65536):
                        sent += 65536
                    while not stop.is_set() and await client.answer(0.5) is None and not client.is_ended:
                        pass
            await asyncio.sleep(0.05)

    item = {"type": "deposit", "account_id": "nobody", "amount": 5, "description": "x" * 200}
    batch = request("POST", "/commands", json.dumps([item] * 4_000).encode())
    answers: list[Answer | None] = []
    async with asyncio.TaskGroup() as group:
        for _ in range(24):
            group.create_task(never_end())
        await asyncio.sleep(2)
        begin = time.monotonic()
        connection = Connection(service.port)
        while time.monotonic() - begin < HONEST_SECONDS:
            try:
                answers.append(await connection.ask(batch))
            except NoAnswer:
                answers.append(None)
            await asyncio.sleep(0.1)
        stop.set()
        connection.close()
    return f"honest batches: {said(answers)}"


async def pipelined(service: Service) -> Outcome:
    wait = request("GET", f"/events?after={FAR}&wait=60")
    async with crowd(service, 200) as clients:
        await asyncio.gather(*(client.send(wait) for client in clients))
        for client in clients:
            # Not waited for: it is not taken before the poll's end.
            client.begin(request("GET", "/missing") * 7000)
            await asyncio.sleep(0.01)
        return await honest(service)


async def small_chunks(service: Service) -> Outcome:
    chunked = head_of("/commands", "Transfer-Encoding: chunked") + b"\r\n\r\n" + b"1\r\n \r\n" * MIB
    async with crowd(service, 16) as clients:
        await asyncio.gather(*(client.send(chunked) for client in clients))
        return said([await client.answer() for client in clients])


async def unknown_fields(service: Service) -> Outcome:
    fields = b",".join(b'"%x":0' % number for number in range(1_500_000))
    return await _one(service, b'[{"type":"deposit","account_id":"a","amount":1,' + fields + b"}]")


async def one_bad_byte(service: Service) -> Outcome:
    text = (
        b'[{"type":"deposit","account_id":"a","amount":1,"description":"' + b"a" * (BATCH_BYTES_MAX - 100) + b'\xff"}]'
    )
    return await _one(service, text)


async def _one(service: Service, body: bytes) -> Outcome:
    begin, log_bytes = time.monotonic(), service.log.stat().st_size
    async with crowd(service, 1) as (client,):
        await client.send(request("POST", "/commands", body))
        answered = said([await client.answer(HOSTILE_SECONDS)])
    grown = service.log.stat().st_size - log_bytes
    return f"{answered} after {time.monotonic() - begin:.1f} s; {grown / MIB:.1f} MiB of log"


async def deep(service: Service) -> Outcome:
    nested = b'[{"a":' + b"[" * 5000 + b"]" * 5000 + b',"type":"deposit","account_id":"a","amount":1}]'
    return await _many(service, request("POST", "/commands", nested), 1000)


async def bad_bytes(service: Service) -> Outcome:
    return await _many(service, request("POST", "/account/deposit/a", b'{"amount":1,"description":"\xff"}'), 1000)


async def repeated(service: Service) -> Outcome:
    twice = (("Idempotency-Key", "a"),) * 200
    return await _many(service, request("POST", "/account/deposit/a", b'{"amount":1}', *twice), 10_000)


async def _many(service: Service, raw: bytes, times: int) -> Outcome:
    log_bytes, answers = service.log.stat().st_size, list[Answer | None]()

    async def ask(count: int) -> None:
        connection = Connection(service.port)
        for _ in range(count):
            try:
                answers.append(await connection.ask(raw))
            except NoAnswer:
                answers.append(None)
        connection.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(ask(times // 10))
    grown = service.log.stat().st_size - log_bytes
    return f"{said(answers)}; {grown / MIB:.1f} MiB of log"


async def left_polls(service: Service) -> Outcome:
    """The service is watched until the last of them would have been answered."""
    end = time.monotonic() + WAIT_SECONDS
    for _ in range(10_000 // TRICKLE):
        async with crowd(service, TRICKLE) as clients:
            poll = request("GET", f"/events?after={FAR}&wait={max(0.0, end - time.monotonic()):.2f}")
            await asyncio.gather(*(client.send(poll) for client in clients))
            await asyncio.sleep(0.02)
    await asyncio.sleep(max(0.0, end - time.monotonic()) + 2)
    return await honest(service)


async def many_waits(service: Service) -> Outcome:
    """All of them end at the same moment."""
    async with crowd(service, 18_000) as clients:
        end = time.monotonic() + WAIT_SECONDS
        for first in range(0, len(clients), TRICKLE):
            wait = max(0.0, end - time.monotonic())
            raw = request("GET", f"/reserve?min_position={FAR}&wait={wait:.2f}")
            await asyncio.gather(*(client.send(raw) for client in clients[first : first + TRICKLE]))
            await asyncio.sleep(0.02)
        answers = await asyncio.gather(*(client.answer() for client in clients))
        return said(answers)


async def never_reading(service: Service) -> Outcome:
    item = {"type": "deposit", "account_id": "nobody", "amount": 5, "description": "x" * 1000}
    connection = Connection(service.port)
    await connection.ask(request("POST", "/commands", json.dumps([item] * 5000).encode()))
    connection.close()
    before = open_files(service)
    sockets = []
    for _ in range(500):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", service.port))
        sock.sendall(request("GET", "/events?limit=10000"))
        sockets.append(sock)
        await asyncio.sleep(0)
    begin, kept = time.monotonic(), len(sockets)
    while time.monotonic() - begin < PATIENT_SECONDS and kept > 0:
        await asyncio.sleep(2)
        kept = max(0, open_files(service) - before)
    for sock in sockets:
        sock.close()
    return f"{len(sockets) - kept} of {len(sockets)} ended within {PATIENT_SECONDS} s; {await honest(service)}"


def open_files(service: Service) -> int:
    """A client that does not read cannot see that the service has hung up."""
    assert service.process is not None
    return len(list(Path(f"/proc/{service.process.pid}/fd").iterdir()))


ABUSES = (
    Abuse("64 MiB of headers on one connection", "HEADER_BYTES_MAX", many_headers),
    Abuse("one header of 175 MiB", "HEADER_BYTES_MAX", one_header),
    Abuse("200 clients with 7,000 requests each behind a long poll", "READ_BYTES", pipelined),
    Abuse("16 clients that send 1 MiB in chunks of one byte", "FRAMING_BYTES_MAX", small_chunks),
    Abuse("1,100 silent connections at `ulimit -n 1024`", "CONNECTIONS_MAX", silent, open_files_max=1024),
    Abuse("24 clients that never end their 16 MiB batch, and come again", "BODIES_BYTES_MAX", endless_bodies),
    Abuse("a 16 MiB batch of 1.5 million unknown fields", "BATCH_BYTES_MAX", unknown_fields),
    Abuse("a 16 MiB batch with one bad byte", "BATCH_BYTES_MAX", one_bad_byte),
    Abuse("5,000 nested arrays before the type, 1,000 times", "the decoder's depth", deep),
    Abuse("invalid UTF-8, 1,000 times", "the decoder", bad_bytes),
    Abuse("200 Idempotency-Keys on one request, 10,000 times", "one of each header", repeated),
    Abuse("10,000 long polls, sent and left", "WAITS_MAX", left_polls),
    Abuse("18,000 waits for a far position", "WAITS_MAX, CONNECTIONS_MAX", many_waits, service="projection"),
    Abuse("300 clients that send their headers byte by byte", "HEADER_SECONDS", slow_headers, patient=True),
    Abuse("60 clients that never end their 16 MiB body", "BODIES_BYTES_MAX, BODY_SECONDS", slow_bodies),
    Abuse(
        "500 clients that ask for the feed and never read",
        "WRITE_SECONDS, UNREAD_BYTES_MAX",
        never_reading,
        patient=True,
    ),
)
