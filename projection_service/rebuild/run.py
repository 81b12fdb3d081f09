"""The steps of a rebuild, each of which can be cut off: build, compare, switch."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import count
from typing import NamedTuple, Protocol, TypeVar

from prometheus_client import CollectorRegistry

from projection_service.feed import Feed, FeedUnavailable
from projection_service.projection import ForeignLedger, OtherHistory, Projection, check_history, check_ledger
from projection_service.rebuild.checks import contradictions, differences
from projection_service.rebuild.choice import Choice, choose
from projection_service.view import View
from projection_service.view_store import Checkpoint, OtherViews, ViewStore
from projection_service.view_store.beside import Beside, QueriesInTheWay
from shared.chain import ChainAt, extend
from shared.errors import CorruptStore, LedgerError, StoreUnavailable
from shared.events import Position, RecordedEvent

PATIENCE_SECONDS = 60
"""So long a database or a feed that is away is waited for, and queries that keep the tables."""
RETRY_SECONDS = 0.5
AHEAD_PAGES_MAX = 5
"""What is read ahead of the views in use, before they are held, at most."""

T = TypeVar("T")


class Contradiction(LedgerError):
    """The new views do not add up. They are not put in the place of the old ones."""


class Report(Protocol):
    def say(self, sentence: str) -> None: ...

    def moved(self, position: Position, target: Position) -> None:
        """The new views are at `position`, and those in use at `target`."""


class Ahead(NamedTuple):
    """Proven events after the new views, and the chain at their end."""

    events: list[RecordedEvent]
    end: ChainAt


class Held(NamedTuple):
    """Where the views in use stand still, and since when."""

    checkpoint: Checkpoint
    since: float


async def rebuild(
    beside: Beside,
    feed: Feed,
    views: Mapping[str, View],
    asked: Collection[str],
    key: bytes | None,
    anew: bool,
    report: Report,
) -> None:
    """Build the views that are `asked` for, out of all `views`, and put them in use. `key` is the ledger's public one,
    if it was given; `anew` throws away what an interrupted rebuild has left.

    Raises `LedgerError`; then the views in use are as they were, and the new ones are gone on with next time.
    """
    in_use = await beside.in_use()
    choice = choose(in_use.views, asked, views, beside.what, beside.dialect)
    # Before anything is built or thrown away: is it still the ledger of the views in use?
    key = key or in_use.checkpoint.key
    page = await feed.read(in_use.checkpoint.position, events_max=0)
    check_ledger(page, in_use.checkpoint, key, in_use.checkpoint.position)
    check_history(page, _at(in_use.checkpoint))
    report.say(f"building {', '.join(choice.switched)} beside {beside.what}, in {beside.new_what}")
    if more := [name for name in choice.switched if name not in asked]:
        report.say(f"with what was asked for goes {', '.join(more)}: one is made with the other")
    if anew:
        await beside.remove_new()
    store = await _open(beside, feed, choice, key, report)
    try:
        await _Rebuild(beside, store, feed, choice, key, await store.checkpoint(), report).run()
    finally:
        await store.close()
    await beside.remove_new()


async def _open(beside: Beside, feed: Feed, choice: Choice, key: bytes | None, report: Report) -> ViewStore:
    """The new views; from the start, where those of an interrupted rebuild can't be gone on with."""
    names = [view.name for view in choice.built]
    try:
        store = await beside.open_new(names)
    except CorruptStore as error:
        report.say(f"what an interrupted rebuild has left is of no use: {error}")
    else:
        try:
            checkpoint = await store.checkpoint()
            page = await feed.read(checkpoint.position, events_max=0)
            check_ledger(page, checkpoint, key, checkpoint.position)
            check_history(page, _at(checkpoint))
            if checkpoint.position:
                report.say(f"going on from position {checkpoint.position}, where a rebuild was interrupted")
            return store
        except (ForeignLedger, OtherHistory) as error:
            await store.close()
            report.say(f"what an interrupted rebuild has left is of no use: {error}")
        except BaseException:
            await store.close()
            raise
    await beside.remove_new()
    return await beside.open_new(names)


class _Rebuild:
    def __init__(
        self,
        beside: Beside,
        store: ViewStore,
        feed: Feed,
        choice: Choice,
        key: bytes | None,
        checkpoint: Checkpoint,
        report: Report,
    ) -> None:
        self._beside = beside
        self._feed = feed
        self._choice = choice
        self._report = report
        self._projection = Projection(store, choice.built, checkpoint, CollectorRegistry(), key)

    async def run(self) -> None:
        await self._compare()
        await self._switch()

    async def _compare(self) -> None:
        """At one position, and beside the service, which goes on from there. Raises `Contradiction`."""
        async with AsyncExitStack() as resources:
            async with self._met():
                both = await resources.enter_async_context(self._beside.both())
                position = self._projection.position
            self._report.say(f"comparing at position {position}")
            if found := await contradictions(both, self._choice.checked):
                raise Contradiction(
                    f"at position {position} the new views do not add up, and are not put in use: {'; '.join(found)}. "
                    "Where a view in use is one of them, build it anew, too; else have the log verified."
                )
            compared = [view for view in self._choice.built if view.name in self._choice.compared]
            unlike = await differences(both, compared)
        for difference in unlike:
            self._report.say(
                f"the table {difference.table} in use had {difference.rows} rows that are not what the ledger says: "
                f"{'; '.join(difference.first)}"
            )
        if not unlike and self._choice.compared:
            self._report.say(f"those in use were right: {', '.join(self._choice.compared)}")

    async def _switch(self) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            held: Held | None = None
            try:
                async with self._met() as held:
                    await self._beside.switch(self._choice.switched, self._choice.after)
                break
            except QueriesInTheWay as error:
                if time.monotonic() > deadline:
                    raise
                self._report.say(f"waiting: {error}")
                await asyncio.sleep(RETRY_SECONDS)
            except StoreUnavailable:
                # Was it committed, when the connection broke?
                if held is None or (await self._rebuilds()) == held.checkpoint.rebuilds:
                    raise
                break
        self._report.say(
            f"in use from position {self._projection.position} on: {', '.join(self._choice.switched)}. The service has "
            f"folded nothing for {time.monotonic() - held.since:.2f} s"
        )

    async def _rebuilds(self) -> int:
        return (await self._patiently(self._beside.in_use)).checkpoint.rebuilds

    @asynccontextmanager
    async def _met(self) -> AsyncIterator[Held]:
        """Inside, the views in use stand still, and the new ones are at the same position."""
        for pages in count(1):
            await self._catch_up()
            # While it is read, the views in use move on: each time a page more, so that it comes to an end.
            ahead = await self._patiently(partial(self._read_ahead, min(pages, AHEAD_PAGES_MAX)))
            async with AsyncExitStack() as resources:
                in_use = await self._patiently(lambda: resources.enter_async_context(self._beside.hold()))
                since = time.monotonic()
                if in_use.views != self._choice.before:
                    raise OtherViews(
                        f"the views in {self._beside.what} have become others meanwhile: a service has opened them "
                        "with another PROJECTION_VIEWS. Begin again."
                    )
                if await self._reach(in_use.checkpoint, ahead):
                    yield Held(in_use.checkpoint, since)
                    return

    async def _catch_up(self) -> None:
        """With the views in use, as far as they are just now."""
        since = time.monotonic()
        while True:
            target = (await self._patiently(self._beside.in_use)).checkpoint.position
            self._report.moved(self._projection.position, target)
            if self._projection.position == target:
                return
            if self._projection.position < target:
                await self._patiently(partial(self._fold_page, target))
                since = time.monotonic()
            elif time.monotonic() - since > PATIENCE_SECONDS:
                raise StoreUnavailable(
                    f"the views in {self._beside.what} were put back to {target}, and the new ones are at "
                    f"{self._projection.position}. Start the service, which brings them up to date, or use --anew."
                )
            else:
                await asyncio.sleep(RETRY_SECONDS)

    async def _fold_page(self, up_to: Position) -> None:
        asked_at = self._projection.position
        page = await self._feed.read(asked_at)
        self._projection.check_ledger(page, asked_at)
        events = await self._projection.following(page, self._feed)
        if not events:
            raise FeedUnavailable(f"{self._feed.name} gives nothing after position {asked_at}.")
        await self._fold(Ahead(events, page.batch.end), up_to)

    async def _fold(self, ahead: Ahead, up_to: Position) -> None:
        """What of `ahead` follows the new views, and not beyond `up_to`."""
        at, events = self._projection.at, ahead.events
        if up_to >= ahead.end.position:
            return await self._projection.apply(events, ahead.end.chain)
        events = events[: max(0, up_to - at.position)]
        return await self._projection.apply(events, extend(at.chain, [event.encoded for event in events]))

    async def _read_ahead(self, pages_max: int) -> list[Ahead]:
        at, found = self._projection.at, list[Ahead]()
        while len(found) < pages_max:
            page = await self._feed.read(at.position)
            self._projection.check_ledger(page, at.position)
            events = page.batch.following(at)
            if not events:
                break
            at = page.batch.end
            found.append(Ahead(events, at))
        return found

    async def _reach(self, checkpoint: Checkpoint, pages: list[Ahead]) -> bool:
        """Fold `pages` up to the position of `checkpoint`; False when they do not get there, or are beyond.

        Raises `OtherHistory`.
        """
        for ahead in pages:
            if self._projection.position < checkpoint.position:
                await self._fold(ahead, checkpoint.position)
        if self._projection.position != checkpoint.position:
            return False
        if self._projection.at != _at(checkpoint):
            raise OtherHistory(
                f"the views in {self._beside.what} are at {checkpoint.position}, as the new ones are, and were not "
                "built from the same events. Find out what they were built from."
            )
        return True

    async def _patiently(self, step: Callable[[], Awaitable[T]]) -> T:
        """Again and again, while the database or the feed is away. After `PATIENCE_SECONDS` raises what it raised."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        said = ""
        while True:
            try:
                return await step()
            except (FeedUnavailable, StoreUnavailable) as error:
                if time.monotonic() > deadline:
                    raise
                if said != str(error):
                    self._report.say(f"waiting: {error}")
                said = str(error)
            await asyncio.sleep(RETRY_SECONDS)
            try:
                await self._projection.reload()  # a commit may have failed, and be there
            except StoreUnavailable:
                continue


def _at(checkpoint: Checkpoint) -> ChainAt:
    return ChainAt(checkpoint.position, checkpoint.chain)
