"""The command service's feed, as the projection reads it: the way to every event, whatever the broker did.

What answers there may be anybody, or broken: each answer is bounded in size and time, and none of its text is repeated.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from urllib.parse import urlsplit

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError, RawResponseMessage
from aiohttp.streams import StreamReader
from msgspec.structs import replace

from projection_service.batch import Batch, Hole, Unproven
from shared.chain import ChainAt
from shared.errors import LedgerError
from shared.events import EVENT_SEPARATOR, Position, RecordedEvent, UnreadableEvent, Value, decode_events
from shared.platform.settings import shown_url
from shared.witness import is_signed
from shared.zstd import CODING, zstd

PAGE_EVENTS_MAX = 10_000
READ_BYTES = 1024 * 1024
"""Pages are read on until they have so much together: what is read at once is folded in one transaction, in which each
account that it moves is read and written once, and a page of the views' tables, too."""
READ_ON_SECONDS = 1
"""After that, what was read is not held back any longer for what follows it."""
PIECE_BYTES = 256 * 1024
ANSWER_SECONDS = 10
BODY_BYTES_MAX = 8 * 1024 * 1024
"""Twice what a command service puts in a page, once that is decompressed."""
CHUNK_BYTES = 64 * 1024
COMPRESSED_TEXTS_MAX = 2 * PAGE_EVENTS_MAX + 1
"""One for each event, and what stands between them."""
DECOMPRESSION: Mapping[int, int] = {zstd.DecompressionParameter.window_log_max: 23}
"""8 MiB, as RFC 9659 has it: a few bytes could ask for 128."""
HEADER_BYTES_MAX = 8 * 1024
INTERIM_ANSWERS_MAX = 8
FRAMING_BYTES_MAX = 64 * 1024
"""What an answer's body may take on its way beyond its own size."""

HEADERS: Mapping[str, Callable[[str], object]] = {
    "Ledger-Position": re.compile(r"[0-9]{1,18}").fullmatch,
    "Ledger-Source": re.compile(r"[!-~]{1,200}").fullmatch,
    "Ledger-Chain": re.compile(r"[0-9a-f]{64}").fullmatch,
    "Ledger-Signature": re.compile(r"[0-9a-f]{128}").fullmatch,
    "Ledger-Key": re.compile(r"[0-9a-f]{64}").fullmatch,
}
PUBLISHED = "Ledger-Published"
"""A position, where the ledger has a broker."""


class FeedUnavailable(LedgerError):
    """The command service does not answer, or not as one. Its events wait there."""


class Page(Value, frozen=True):
    """Consecutive events; the head of the log when it was read; the ledger's name, its public key, and its signature
    under where the page ends. The broker has confirmed everything up to `published`; None when there is none."""

    batch: Batch
    head: Position
    source: str
    key: bytes
    signature: bytes
    published: Position | None = None


class _Connection(ResponseHandler):
    """aiohttp passes over interim answers (1xx), any number of them, and lets nobody else have a turn meanwhile; and
    what chunks of one byte cost is no matter of the body's size."""

    _interim = 0
    _body: StreamReader | None = None
    _received = 0

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._received += len(data)
        if self._body is None or self._body.is_eof() or self.transport is None:
            return
        if self._received - self._body.total_bytes > FRAMING_BYTES_MAX:
            self.transport.abort()

    async def read(self) -> tuple[RawResponseMessage, StreamReader]:
        message, body = await super().read()
        self._body, self._received = body, 0
        self._interim = self._interim + 1 if message.code < HTTPStatus.OK else 0
        if self._interim > INTERIM_ANSWERS_MAX:
            raise HttpProcessingError(message="too many interim answers")
        return message, body


class _Connector(aiohttp.TCPConnector):
    def __init__(self) -> None:
        super().__init__()
        # aiohttp has no other way to say it; tests/http/test_lying_feed.py finds out if it takes this one away.
        made: type[ResponseHandler] = _Connection
        self._factory = partial(made, loop=self._loop)


@asynccontextmanager
async def open_feed(ledger_url: str) -> AsyncIterator["Feed"]:
    """The feed of the command service at `ledger_url`; a user and password in it are sent along."""
    async with aiohttp.ClientSession(
        connector=_Connector(),
        auto_decompress=False,  # a few bytes could become gigabytes
        headers={"Accept-Encoding": CODING},
        cookie_jar=aiohttp.DummyCookieJar(),
        max_line_size=HEADER_BYTES_MAX,
        max_field_size=HEADER_BYTES_MAX,
    ) as session:
        yield Feed(session, ledger_url)


class Feed:
    def __init__(self, session: aiohttp.ClientSession, ledger_url: str) -> None:
        self._session = session
        self._url = urlsplit(ledger_url)
        self.name = f"{shown_url(ledger_url)}/events"
        """For people and logs: without what may be secret in the address."""

    async def read(self, after: Position, wait_seconds: float = 0, events_max: int = PAGE_EVENTS_MAX) -> Page:
        """What comes after position `after`; waits on the server for up to `wait_seconds` when there is nothing.

        Of an answer that stops short of the head, those after it are read on to, and all are one page: the ledger's
        word for where it ends stands for all before it. Raises `FeedUnavailable`.
        """
        page, size = await self._read_page(after, wait_seconds, events_max, wait_seconds + ANSWER_SECONDS)
        deadline = time.monotonic() + READ_ON_SECONDS
        while page.batch.end.position < page.head and 0 < len(page.batch.events) < events_max and size < READ_BYTES:
            try:
                seconds_left = deadline - time.monotonic()
                more, more_bytes = await self._read_page(page.batch.end.position, 0, events_max, seconds_left)
            except FeedUnavailable:
                break  # whoever asks for it first is told why
            if not _goes_on(page, more):
                break
            size += more_bytes
            page = replace(more, batch=Batch(page.batch.events + more.batch.events, more.batch.end))
        return page

    async def _read_page(
        self, after: Position, wait_seconds: float, events_max: int, seconds_max: float
    ) -> tuple[Page, int]:
        """One answer, and how many bytes it has."""
        query = {"after": str(after), "limit": str(events_max), "wait": f"{wait_seconds:g}"}
        headers, body = await self._get(query, seconds_max)
        try:
            events = await _decoded(body)
        except UnreadableEvent as error:
            raise FeedUnavailable(
                f"{self.name} can't be read after position {after}: {error}. If that lasts, it is of a later program: "
                "update this one."
            ) from error
        for position, event in enumerate(events, after + 1):
            if event.position != position:
                raise FeedUnavailable(f"{self.name} has {event.position} where {position} belongs.")
            if event.source != headers["Ledger-Source"]:
                raise FeedUnavailable(f"{self.name} has an event {position} of another ledger, {event.source!a}.")
        head = Position(int(headers["Ledger-Position"]))
        chain, signature, key = (bytes.fromhex(headers[f"Ledger-{name}"]) for name in ("Chain", "Signature", "Key"))
        end = ChainAt(events[-1].position if events else min(after, head), chain)
        published = Position(int(headers[PUBLISHED])) if PUBLISHED in headers else None
        # The header alone is not signed.
        page = Page(Batch(events, end), max(head, end.position), headers["Ledger-Source"], key, signature, published)
        return page, len(body)

    async def _get(self, query: Mapping[str, str], seconds_max: float) -> tuple[Mapping[str, str], bytes]:
        url = self._url._replace(path=self._url.path.rstrip("/") + "/events", fragment="").geturl()
        try:
            async with self._session.get(
                url, params=query, timeout=aiohttp.ClientTimeout(total=seconds_max), allow_redirects=False
            ) as response:
                self._check(response)
                body = bytearray()
                async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                    body += chunk
                    if len(body) > BODY_BYTES_MAX:
                        raise FeedUnavailable(f"{self.name} is no feed: its answer is over {BODY_BYTES_MAX} bytes.")
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise FeedUnavailable(f"{self.name}: {_reason(error, seconds_max)}.") from error
        wanted = {**HEADERS, PUBLISHED: HEADERS["Ledger-Position"]} if PUBLISHED in response.headers else HEADERS
        for name, is_right in wanted.items():
            if not is_right(response.headers.get(name, "")):
                raise FeedUnavailable(f"{self.name} is no feed: its answer has no {name} that can be right.")
        is_packed = response.headers.get("Content-Encoding") == CODING
        return response.headers, self._decompressed(bytes(body)) if is_packed else bytes(body)

    def _check(self, response: aiohttp.ClientResponse) -> None:
        if 300 <= response.status < 400:
            raise FeedUnavailable(
                f"{self.name} answered {response.status}: redirects are not followed. "
                "Set LEDGER_URL to the command service itself."
            )
        if response.status != HTTPStatus.OK:
            raise FeedUnavailable(f"{self.name} answered {response.status}.")
        if response.headers.get("Content-Encoding", "identity") not in ("identity", CODING):
            raise FeedUnavailable(f"{self.name} sends an answer in an encoding that nobody asked for.")

    def _decompressed(self, body: bytes) -> bytes:
        """Of texts that were compressed one by one, what they are together. Raises `FeedUnavailable`."""
        texts: list[bytes] = []
        rest, size = memoryview(body), 0
        try:
            while rest:
                # What it says of itself is looked at first: more than that is never made of it.
                said = zstd.get_frame_info(rest).decompressed_size
                size += BODY_BYTES_MAX + 1 if said is None else said
                if size > BODY_BYTES_MAX or len(texts) == COMPRESSED_TEXTS_MAX:
                    raise FeedUnavailable(f"{self.name} is no feed: its answer is too large when decompressed.")
                end = zstd.get_frame_size(rest)
                texts.append(zstd.decompress(rest[:end], options=DECOMPRESSION))
                rest = rest[end:]
        except zstd.ZstdError as error:
            raise FeedUnavailable(f"{self.name} is no feed: its answer can't be decompressed.") from error
        return b"".join(texts)


def _goes_on(page: Page, more: Page) -> bool:
    """Is it the same ledger's word, and for what follows? What is not must not spoil what was read before."""
    try:
        following = more.batch.following(page.batch.end)
    except (Unproven, Hole):
        return False
    return (
        bool(following)
        and (more.source, more.key) == (page.source, page.key)
        and is_signed(more.signature, more.key, more.source, more.batch.end)
    )


async def _decoded(body: bytes) -> list[RecordedEvent]:
    """Piece by piece, with others' turns in between: of a large page a tenth of a second. Raises `UnreadableEvent`."""
    events: list[RecordedEvent] = []
    begin = 1
    while (end := body.find(EVENT_SEPARATOR, begin + PIECE_BYTES)) != -1:
        events += decode_events(b"[%b]" % body[begin:end])
        begin = end + len(EVENT_SEPARATOR)
        await asyncio.sleep(0)
    return events + decode_events(body[:1] + body[begin:])


def _reason(error: Exception, seconds_max: float) -> str:
    """In our words: those of the error may repeat the address, or what came from there."""
    match error:
        case TimeoutError():
            return f"no answer within {seconds_max:g} s"
        case aiohttp.ClientConnectorError():
            return f"cannot connect: {error.strerror or 'no such host or port'}"
        case aiohttp.ClientConnectionError() | OSError():
            return "the connection broke"
        case _:
            return "the answer is no HTTP that can be read"
