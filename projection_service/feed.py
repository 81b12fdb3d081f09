"""The command service's feed, as the projection reads it: the way to every event, whatever the broker did."""

import aiohttp

from shared.events import Position, RecordedEvent, UnreadableEvent, Value, decode_events
from shared.problems import CorruptStore, LedgerError

PAGE_EVENTS_MAX = 5_000
ANSWER_SECONDS = 10


class FeedUnavailable(LedgerError):
    """The command service does not answer. Its events wait there."""


class Page(Value, frozen=True):
    """Consecutive events; the head of the log when it was read; and the ledger's name."""

    events: list[RecordedEvent]
    head: Position
    source: str


class Feed:
    def __init__(self, session: aiohttp.ClientSession, ledger_url: str) -> None:
        self._session = session
        self._url = f"{ledger_url}/events"

    async def read(self, after: Position, wait_seconds: float = 0) -> Page:
        """The page after position `after`; waits on the server for up to `wait_seconds` when there is none.

        Raises `FeedUnavailable`, or `CorruptStore` when the feed leaves a hole or can't be read.
        """
        query = {"after": after, "limit": PAGE_EVENTS_MAX, "wait": wait_seconds}
        timeout = aiohttp.ClientTimeout(total=wait_seconds + ANSWER_SECONDS)
        try:
            async with self._session.get(self._url, params=query, timeout=timeout) as response:
                body = await response.read()
                if response.status != 200:
                    raise FeedUnavailable(f"{self._url} answered {response.status}: {body[:200]!r}")
                head, source = response.headers["Ledger-Position"], response.headers["Ledger-Source"]
        except (aiohttp.ClientError, TimeoutError) as error:
            raise FeedUnavailable(f"{self._url}: {str(error) or 'no answer in time'}") from error
        except KeyError as error:
            raise FeedUnavailable(f"{self._url} is no feed: its answer has no header {error}") from error
        try:
            events = decode_events(body)
        except UnreadableEvent as error:
            raise CorruptStore(f"the feed after position {after} can't be read: {error}") from error
        for position, event in enumerate(events, after + 1):
            if event.position != position:
                raise CorruptStore(f"the feed has {event.position} where {position} belongs.")
        return Page(events, Position(int(head)), source)
