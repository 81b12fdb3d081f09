"""The command service's feed, as the projection reads it: the way to every event, whatever the broker did.

What answers there may be anybody, or broken: each answer is bounded in size and time, and none of its text is repeated.
"""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from urllib.parse import urlsplit

import aiohttp
import msgspec

from shared.chain import ChainAt
from shared.events import INT64_MAX, Position, RecordedEvent, UnreadableEvent, Value, decode_events
from shared.problems import CorruptStore, LedgerError
from shared.settings import shown_url

PAGE_EVENTS_MAX = 5_000
ANSWER_SECONDS = 10
BODY_BYTES_MAX = 4 * 1024 * 1024
"""Four times what a command service puts in a page."""
CHUNK_BYTES = 64 * 1024
HEADER_BYTES_MAX = 8 * 1024

_is_position = re.compile(r"[0-9]{1,19}").fullmatch
_is_source = re.compile(r"[!-~]{1,200}").fullmatch


class FeedUnavailable(LedgerError):
    """The command service does not answer, or not as one. Its events wait there."""


class Page(Value, frozen=True):
    """Consecutive events; the head of the log when it was read; and the ledger's name."""

    events: list[RecordedEvent]
    head: Position
    source: str


class Chain(Value, frozen=True):
    """The ledger's chain as far as one answer goes, the head of the log before, and the ledger's name."""

    at: ChainAt
    head: Position
    source: str


class _ChainBody(Value, frozen=True):
    position: int
    chain: str


class _Answer(Value, frozen=True):
    body: bytes
    head: Position
    source: str


_decode_chain = msgspec.json.Decoder(_ChainBody).decode


@asynccontextmanager
async def open_feed(ledger_url: str) -> AsyncIterator["Feed"]:
    """The feed of the command service at `ledger_url`; a user and password in it are sent along."""
    async with aiohttp.ClientSession(
        auto_decompress=False,  # a few bytes could become gigabytes
        headers={"Accept-Encoding": "identity"},
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

    async def read(self, after: Position, wait_seconds: float = 0) -> Page:
        """The page after position `after`; waits on the server for up to `wait_seconds` when there is none.

        Raises `FeedUnavailable`, or `CorruptStore` when the feed leaves a hole or can't be read.
        """
        query = {"after": str(after), "limit": str(PAGE_EVENTS_MAX), "wait": f"{wait_seconds:g}"}
        answer = await self._get("/events", query, wait_seconds + ANSWER_SECONDS)
        try:
            events = decode_events(answer.body)
        except UnreadableEvent as error:
            raise CorruptStore(f"the feed after position {after} can't be read: {error}.") from error
        for position, event in enumerate(events, after + 1):
            if event.position != position:
                raise CorruptStore(f"the feed has {event.position} where {position} belongs.")
            if event.source != answer.source:
                raise CorruptStore(f"the feed's event {position} is of another ledger, {event.source!a}.")
        return Page(events, answer.head, answer.source)

    async def chain(self, after: ChainAt, up_to: Position) -> Chain:
        """The chain of the ledger's events from `after` on, up to `up_to` or as far as one answer goes.

        Raises `FeedUnavailable`.
        """
        query = {"after": str(after.position), "chain": after.chain.hex(), "up_to": str(up_to)}
        answer = await self._get("/events/chain", query, ANSWER_SECONDS)
        try:
            body = _decode_chain(answer.body)
            at = ChainAt(Position(body.position), bytes.fromhex(body.chain))
        except (ValueError, RecursionError) as error:
            raise FeedUnavailable(f"{self.name}/chain is no feed: its answer can't be read.") from error
        if not after.position <= at.position <= up_to:
            raise FeedUnavailable(f"{self.name}/chain answered for position {at.position}, not {up_to}.")
        return Chain(at, answer.head, answer.source)

    async def _get(self, path: str, query: Mapping[str, str], seconds_max: float) -> _Answer:
        url = self._url._replace(path=self._url.path.rstrip("/") + path, fragment="").geturl()
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
        head, source = (response.headers.get(name, "") for name in ("Ledger-Position", "Ledger-Source"))
        if not (_is_position(head) and int(head) <= INT64_MAX and _is_source(source)):
            raise FeedUnavailable(f"{self.name} is no feed: its answer has no Ledger-Position or no Ledger-Source.")
        return _Answer(bytes(body), Position(int(head)), source)

    def _check(self, response: aiohttp.ClientResponse) -> None:
        if 300 <= response.status < 400:
            raise FeedUnavailable(
                f"{self.name} answered {response.status}: redirects are not followed. "
                "Set LEDGER_URL to the command service itself."
            )
        if response.status != HTTPStatus.OK:
            raise FeedUnavailable(f"{self.name} answered {response.status}.")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise FeedUnavailable(f"{self.name} sends a compressed answer, which nobody asked for.")


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
