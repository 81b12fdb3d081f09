"""The projection's client of the feed, before a server that means it harm: bounded, and nothing of it is repeated."""

import asyncio
import resource
import sys
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from projection_service.feed import (
    ANSWER_SECONDS,
    BODY_BYTES_MAX,
    INTERIM_ANSWERS_MAX,
    Feed,
    FeedUnavailable,
    open_feed,
)
from shared.chain import CHAIN_START, START, ChainAt, extend
from shared.events import Position
from shared.witness import Signer, is_signed, new_key
from shared.zstd import zstd
from tests.bank import Service
from tests.examples import DEPOSITED, SIGNER, SOURCE, logged
from tests.integration.broker import eventually

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]
EVENT = logged(1, DEPOSITED)
END = ChainAt(Position(1), extend(CHAIN_START, [EVENT]))
PROOF = {"Chain": END.chain.hex(), "Signature": SIGNER.sign(END).hex(), "Key": SIGNER.public_key.hex()}


def headers(**changes: object) -> str:
    """Those of a page with the one event, as they have to be but for `changes`; None leaves one out."""
    fields = {"Position": 1, "Source": SOURCE, **PROOF, **changes}
    return "".join(f"Ledger-{name}: {value}\r\n" for name, value in fields.items() if value is not None)


HEADERS = headers()
SECRET = "what-the-feed-says"


def page(body: bytes = b"[]", headers: str = HEADERS, status: str = "200 OK") -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()

    return answer


def endless(head: str, chunk: bytes) -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\n{HEADERS}{head}".encode())
        while True:
            writer.write(chunk)
            await writer.drain()

    return answer


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[")


async def silent(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    await asyncio.sleep(2 * ANSWER_SECONDS)


class Liar:
    """An HTTP server that gives each request the same answer, and counts them."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.requests: list[bytes] = []


@asynccontextmanager
async def lying(answer: Answer) -> AsyncIterator[Liar]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                liar.requests.append(request)
                await answer(writer)
                if answer is hang_up:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    liar = Liar(server.sockets[0].getsockname()[1])
    try:
        yield liar
    finally:
        server.close()


@asynccontextmanager
async def feed_of(answer: Answer) -> AsyncIterator[Feed]:
    async with lying(answer) as liar, open_feed(liar.url) as feed:
        yield feed


def peak_mebibytes() -> float:
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


async def bomb(writer: asyncio.StreamWriter) -> None:
    """Half a gigabyte of spaces, as half a megabyte."""
    gzip = zlib.compressobj(1, wbits=31)
    body = b"".join([*(gzip.compress(b" " * 2**20) for _ in range(512)), gzip.flush()])
    await page(body, f"{HEADERS}Content-Encoding: gzip\r\n")(writer)


def packed(parts: Iterable[bytes]) -> Answer:
    """A page that says that it is compressed with zstd."""
    return page(b"".join(parts), f"{HEADERS}Content-Encoding: zstd\r\n")


def half_a_gigabyte(is_told: bool) -> Answer:
    """Of spaces, as fifty kilobytes that say how many they are, or don't."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        compressor = zstd.ZstdCompressor()
        if is_told:
            compressor.set_pledged_input_size(2**29)
        await packed([*(compressor.compress(b" " * 2**20) for _ in range(512)), compressor.flush()])(writer)

    return answer


GOOD = zstd.compress(b"[" + EVENT + b"]")
SKIPPED = 0x184D2A50.to_bytes(4, "little")
"""How a part begins that is passed over; its size follows. https://www.rfc-editor.org/rfc/rfc8878, section 3.1.2"""
UNAVAILABLE = {
    "a position in words": page(headers=headers(Position=SECRET)),
    "a negative position": page(headers=headers(Position=-1)),
    "a position over 64 bits": page(headers=headers(Position=2**63)),
    "a position of 5000 digits": page(headers=headers(Position="9" * 5000)),
    "no position": page(headers=headers(Position=None)),
    "a published position in words": page(headers=headers(Published=SECRET)),
    "a published position over 64 bits": page(headers=headers(Published=2**63)),
    "no source": page(headers=headers(Source=None)),
    "a source of 5000 characters": page(headers=headers(Source="x" * 5000)),
    **{f"no {name}": page(headers=headers(**{name: None})) for name in PROOF},
    **{f"a {name} in words": page(headers=headers(**{name: SECRET})) for name in PROOF},
    **{f"half a {name}": page(headers=headers(**{name: PROOF[name][::2]})) for name in PROOF},
    "a header of 1 MB": page(headers=f"{HEADERS}X: {'x' * 2**20}\r\n"),
    "200,000 headers": page(headers=HEADERS + "X: x\r\n" * 200_000),
    "a redirect": page(SECRET.encode(), f"{HEADERS}Location: http://127.0.0.1:1/{SECRET}\r\n", "302 Found"),
    "an error": page(SECRET.encode(), status=f"503 {SECRET}"),
    "a body over the limit": page(b"[" + b" " * BODY_BYTES_MAX + b"]"),
    "an endless body": endless("Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b" " * 0x10000 + b"\r\n"),
    "endless headers": endless("", b"X: x\r\n" * 1000),
    "a gzip bomb": bomb,
    "a zstd bomb": half_a_gigabyte(is_told=True),
    "a zstd bomb that does not say how large it is": half_a_gigabyte(is_told=False),
    "zstd in parts that are too large together": packed([zstd.compress(b" " * (BODY_BYTES_MAX // 4))] * 5),
    "zstd in 400,000 parts": packed([zstd.compress(b"")] * 400_000),
    "zstd in 400,000 parts that are passed over": packed([SKIPPED + bytes(4)] * 400_000),
    "zstd that is cut off": packed([GOOD[:-5]]),
    "zstd that is cut off in what is passed over": packed([GOOD, SKIPPED + (2**32 - 1).to_bytes(4, "little")]),
    "zstd with a bit flipped": packed([GOOD[:20], bytes([GOOD[20] ^ 64]), GOOD[21:]]),
    "zstd, and then something else": packed([GOOD, b"[]"]),
    "no zstd": packed([b"[" + EVENT + b"]"]),
    "no zstd, empty": packed([]),
    "no HTTP": endless(f"{SECRET}\r\n\r\n", b"\0" * 1000),
    "half an answer": hang_up,
}


@pytest.mark.parametrize("lie", UNAVAILABLE)
async def test_an_answer_that_is_no_feeds_is_a_feed_that_is_away(lie: str) -> None:
    before = peak_mebibytes()
    async with feed_of(UNAVAILABLE[lie]) as feed, asyncio.timeout(3 * ANSWER_SECONDS):
        for _ in range(3):
            with pytest.raises(FeedUnavailable) as caught:
                await feed.read(Position(0))
    assert SECRET not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert peak_mebibytes() - before < 100


UNREADABLE = {
    "no JSON": b"<html>",
    "no events": b"[{}]",
    "an amount of 10^30": b"[" + EVENT.replace(b"100", b"1" + b"0" * 30) + b"]",
    "extensions 100,000 deep": b'[{"x":' + b"[" * 100_000,
    "a hole": b"[" + logged(2, DEPOSITED) + b"]",
    "twice the same": b"[" + EVENT + b"," + EVENT + b"]",
    "of another ledger": b"[" + EVENT.replace(SOURCE.encode(), b"/ledgers/another") + b"]",
}


@pytest.mark.parametrize("lie", UNREADABLE)
async def test_a_page_that_is_no_run_of_the_ledgers_events_is_a_feed_that_is_away(lie: str) -> None:
    async with feed_of(page(UNREADABLE[lie])) as feed:
        with pytest.raises(FeedUnavailable):
            await feed.read(Position(0))


@pytest.mark.parametrize("body", [[b"[" + EVENT + b"]"], [b"[", EVENT, b"", b"\n]"]], ids=["whole", "in parts"])
@pytest.mark.parametrize("is_packed", [False, True])
async def test_a_good_page_is_read_as_it_is_or_compressed(body: list[bytes], is_packed: bool) -> None:
    async with lying(packed(map(zstd.compress, body)) if is_packed else page(b"".join(body))) as liar:
        async with open_feed(liar.url) as feed:
            (event,) = (await feed.read(Position(0))).batch.following(START)
        assert bytes(event.encoded) == EVENT
        assert b"Accept-Encoding: zstd\r\n" in liar.requests[0]


def in_turn(*answers: Answer) -> Answer:
    """One for each request."""
    left = list(answers)

    async def answer(writer: asyncio.StreamWriter) -> None:
        await left.pop(0)(writer)

    return answer


def signed(number: int, signer: Signer = SIGNER, **changes: object) -> Answer:
    """The page with the event at position `number` alone, of a log of three."""
    events = [logged(position, DEPOSITED, version=position) for position in (1, 2, 3)]
    end = ChainAt(Position(number), extend(CHAIN_START, events[:number]))
    proof = {"Chain": end.chain.hex(), "Signature": signer.sign(end).hex(), "Key": signer.public_key.hex()}
    return page(b"[%b]" % events[number - 1], headers(**{"Position": 3, **proof, **changes}))


async def test_pages_are_read_on_to_the_head_and_are_one() -> None:
    async with feed_of(in_turn(signed(1), signed(2), signed(3))) as feed:
        found = await feed.read(Position(0))
    assert [event.position for event in found.batch.following(START)] == [1, 2, 3]
    assert is_signed(found.signature, found.key, found.source, found.batch.end)


@pytest.mark.parametrize(
    "lie",
    [
        signed(2, Chain=PROOF["Chain"]),
        signed(2, Signature=PROOF["Signature"]),
        signed(2, Signer(SOURCE, new_key())),
        signed(2, Source="/ledgers/another"),
        signed(3),
        signed(1),
        page(b"[]", headers(Position=3)),
        page(status="503 Service Unavailable"),
        page(b"[{}]"),
        hang_up,
        silent,
    ],
)
async def test_a_lie_behind_a_good_page_costs_nothing_of_it(lie: Answer) -> None:
    async with feed_of(in_turn(signed(1), lie)) as feed, asyncio.timeout(ANSWER_SECONDS / 2):
        found = await feed.read(Position(0))
    assert [event.position for event in found.batch.following(START)] == [1]
    assert is_signed(found.signature, found.key, found.source, found.batch.end)


async def test_large_pages_are_read_one_after_the_other() -> None:
    async with lying(page(b"[" + b" " * (BODY_BYTES_MAX // 2) + EVENT + b"]")) as liar, open_feed(liar.url) as feed:
        for _ in range(5):
            assert (await feed.read(Position(0))).head == 1


@pytest.mark.parametrize("chunk", [b"1\r\n \r\n" * 8000, b"1;" + b"x" * 60_000], ids=["of one byte", "with extensions"])
async def test_chunks_that_are_more_framing_than_body_are_given_up_soon(chunk: bytes) -> None:
    async with feed_of(endless("Transfer-Encoding: chunked\r\n\r\n", chunk)) as feed:
        began = time.monotonic()
        for _ in range(2):
            with pytest.raises(FeedUnavailable):
                await feed.read(Position(0))
        assert time.monotonic() - began < 2


INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


def interim_before(answer: Answer, repeated: int) -> Answer:
    async def answer_with_interim(writer: asyncio.StreamWriter) -> None:
        for _ in range(0, repeated, 1000):
            writer.write(INTERIM * min(repeated, 1000))
            await writer.drain()
        await answer(writer)

    return answer_with_interim


async def test_a_few_interim_answers_are_passed_over_and_endless_ones_are_no_answer() -> None:
    good = page(b"[" + EVENT + b"]")
    async with feed_of(interim_before(good, INTERIM_ANSWERS_MAX)) as feed:
        for _ in range(2):
            assert (await feed.read(Position(0))).head == 1
    async with feed_of(interim_before(good, 10**9)) as feed:
        began = time.monotonic()
        for _ in range(2):
            with pytest.raises(FeedUnavailable):
                await feed.read(Position(0))
        assert time.monotonic() - began < 2


@pytest.mark.parametrize("head", [0, 1_000_000])
async def test_a_feed_that_gives_nothing_is_asked_less_and_less_often(tmp_path: Path, head: int) -> None:
    """It answers at once when it was asked to wait, or claims a head without its events."""
    nothing = {"Chain": START.chain.hex(), "Signature": SIGNER.sign(START).hex()}
    answer = page(headers=headers(Position=head, **nothing))
    async with lying(answer) as liar, projection(tmp_path, liar.url):
        await asyncio.sleep(3)
        assert 1 < len(liar.requests) < 20


@asynccontextmanager
async def projection(folder: Path, ledger_url: str) -> AsyncIterator[Service]:
    service = Service("projection_service", folder / "projection.log", DATA_DIR=str(folder), LEDGER_URL=ledger_url)
    await service.start()
    try:
        yield service
    finally:
        await service.kill()


async def test_what_is_secret_in_the_address_is_sent_and_told_nobody(tmp_path: Path) -> None:
    async with lying(page(SECRET.encode(), status=f"500 {SECRET}")) as liar:
        address = liar.url.replace("http://", "http://joe:hunter2@") + "/path-token?key=query-token"
        async with projection(tmp_path, address) as service:

            async def readiness() -> str:
                return str((await service.wait_for("/readyz", 503))["detail"])

            problem = await eventually(readiness, lambda detail: "answered 500" in detail, "the feed's answer to show")
            shown = problem + service.log.read_text()
    assert liar.url.removeprefix("http://") in problem
    for secret in ("joe", "hunter2", "path-token", "query-token", SECRET):
        assert secret not in shown
    assert liar.requests[0].startswith(b"GET /path-token/events?key=query-token&after=0&")
    assert b"Authorization: Basic am9lOmh1bnRlcjI=" in liar.requests[0]
