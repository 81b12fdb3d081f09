"""Folds a gapless run of events into the views, a transaction for each run."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from prometheus_client import CollectorRegistry, Gauge

from projection_service.batch import Hole, Unproven
from projection_service.feed import Feed, FeedUnavailable, Page
from projection_service.view import Run, View
from projection_service.view_store import Change, Checkpoint, CheckpointMoved, ImpossibleEvents, ViewStore
from shared.chain import ChainAt
from shared.errors import CorruptStore, LedgerError, StoreUnavailable
from shared.events import Position, RecordedEvent
from shared.platform.watermark import Watermark
from shared.witness import is_signed

STORE_SECONDS = 2
"""Who asks whether this service is ready does not wait longer for its views."""


class ForeignLedger(CorruptStore):
    """Events of another ledger than the one these views belong to."""

    slug, title = "foreign-ledger", "Another ledger's events"


class OtherHistory(CorruptStore):
    """The ledger has another past than the one that was folded."""

    slug, title = "other-history", "The ledger has another history"


class BrokenLedger(CorruptStore):
    """The ledger has recorded what it never should have."""

    slug, title = "broken-ledger", "Events that no ledger should record"


def check_ledger(page: Page, views: Checkpoint, key: bytes | None, asked_at: Position) -> None:
    """Is `page` by the ledger behind `views`, which were at `asked_at` before it was asked, and which has `key`?

    Raises `ForeignLedger`, or `FeedUnavailable` when nobody can tell.
    """
    if key is not None and key != page.key:
        raise FeedUnavailable(
            f"the feed signs with the key {page.key.hex()}, and the ledger's is {key.hex()}. Set LEDGER_URL "
            "to the right command service, or LEDGER_KEY and PROJECTION_NAME anew to build new views."
        )
    if not is_signed(page.signature, page.key, page.source, page.batch.end):
        raise FeedUnavailable("the feed's signature is not the ledger's.")
    if views.source not in (None, page.source):
        raise ForeignLedger(
            f"these views belong to the ledger {views.source!a}, the feed to {page.source!a}. Set "
            "LEDGER_URL to the right command service, or PROJECTION_NAME to a new name to build new views."
        )
    if page.head < asked_at:
        raise ForeignLedger(
            f"the views are at {asked_at}, but the log ends at {page.head}: an older copy has replaced it, or it "
            "has lost commits. Set PROJECTION_NAME to a new name to build new views."
        )


def check_history(page: Page, at: ChainAt) -> None:
    """Raises `OtherHistory` when `page`, by the ledger, ends where views are `at`, and with another chain."""
    if page.batch.end.position == at.position and page.batch.end.chain != at.chain:
        raise OtherHistory(
            f"the views are at {at.position}, and what the ledger has up to there is not what they were built "
            "from: an older copy of it has gone on differently, or it has lost commits. Find out which events are "
            "gone, and set PROJECTION_NAME to a new name to build new views."
        )


class Projection:
    """The views' only writer in this process; replicas that share the views may have others.

    `watermark` follows the stored checkpoint. `key` is the ledger's public key; without one, the first that is seen.
    """

    def __init__(
        self,
        store: ViewStore,
        views: Sequence[View],
        checkpoint: Checkpoint,
        registry: CollectorRegistry,
        key: bytes | None = None,
        folded: Callable[[Sequence[RecordedEvent]], None] = lambda _: None,
    ) -> None:
        """`folded` is told of events once they are in the views, before anybody else.

        Raises `ForeignLedger` when these views were built under another key.
        """
        self._folded = folded
        self._given_key = key
        self._check_key(checkpoint)
        self._store = store
        self.views = views
        self._checkpoint = checkpoint
        self._folding = asyncio.Lock()
        self._last_source: str | None = None
        self._last_key: bytes | None = None
        self.watermark = Watermark(checkpoint.position)
        self.last_event_time: str | None = None
        """Of the last event that was folded here; None before the first."""
        self.trouble: str | None = None
        """Why the views could not be asked where they are, when they last were."""
        Gauge("projection_position", "The checkpoint.", registry=registry).set_function(lambda: self.position)

    @property
    def position(self) -> Position:
        return self._checkpoint.position

    @property
    def at(self) -> ChainAt:
        """The checkpoint, and the chain of what was folded."""
        return ChainAt(self._checkpoint.position, self._checkpoint.chain)

    @property
    def source(self) -> str | None:
        """Names the ledger that the views belong to. Before the first event, what the feed said last, or None."""
        return self._checkpoint.source or self._last_source

    @property
    def key(self) -> bytes | None:
        """The one that the ledger signs with. Before the first event, what the feed said last, or None."""
        return self._kept_key or self._last_key

    @property
    def _kept_key(self) -> bytes | None:
        return self._given_key or self._checkpoint.key

    def check_ledger(self, page: Page, asked_at: Position) -> None:
        """As the function does for these views, which may have moved on since `asked_at`."""
        check_ledger(page, self._checkpoint, self._kept_key, asked_at)
        self._last_source, self._last_key = page.source, page.key

    async def following(self, page: Page, feed: Feed) -> list[RecordedEvent]:
        """What `page`, by the ledger, has after the checkpoint. Raises `OtherHistory`, or `FeedUnavailable`."""
        try:
            return page.batch.following(self.at)
        except (Unproven, Hole) as error:
            # Another history, or a page that somebody has changed on its way? The ledger's word for where we are tells.
            asked_at = self.position
            here = await feed.read(asked_at, events_max=0)
            self.check_ledger(here, asked_at)
            check_history(here, self.at)
            raise FeedUnavailable(f"{feed.name}: {error}.") from error

    def _check_key(self, checkpoint: Checkpoint) -> None:
        if self._given_key and checkpoint.key not in (None, self._given_key):
            raise ForeignLedger(
                f"these views belong to the ledger with the key {checkpoint.key.hex()}, and LEDGER_KEY is "
                f"{self._given_key.hex()}. Set the right one, or PROJECTION_NAME to a new name to build new views."
            )

    async def apply(self, events: list[RecordedEvent], chain: bytes) -> None:
        """Fold `events`, which follow the checkpoint and bring the chain to `chain`.

        Views and checkpoint are committed when this returns. When somebody else has moved these views, it takes up
        where they are now instead: compare `position` with what was to be reached.
        Raises `BrokenLedger`.
        """
        if not events:
            return
        checkpoint, last = self._checkpoint, events[-1]
        moved = Checkpoint(last.position, last.source, chain, self.key, checkpoint.rebuilds)
        # Messages and pages of the feed come at the same time, and a store takes one writer of a process.
        async with self._folding:
            try:
                await self._write(checkpoint, moved, events)
            except CheckpointMoved:
                await self.reload()
            else:
                self.last_event_time = last.time
                self._folded(events)
                self._move(moved)

    async def _write(self, checkpoint: Checkpoint, moved: Checkpoint, events: list[RecordedEvent]) -> None:
        """Raises `BrokenLedger` and `CheckpointMoved`."""
        run = Run(partial(self._store.read_for_fold, checkpoint), events, moved.chain)
        try:
            changes: list[Change] = []
            for view in self.views:
                await asyncio.sleep(0)  # to fold a large page into one of them takes long enough
                changes += await view.changes(run)
            await self._store.commit(checkpoint, moved, changes)
        except ImpossibleEvents as reason:
            raise BrokenLedger(
                f"between {events[0].position} and {events[-1].position} is an event that no ledger should record: "
                f"{reason}. Nothing of it is in the views. Have the log verified."
            ) from reason

    async def reload(self) -> None:
        """Take up the stored checkpoint, after a failure that left in doubt where it is."""
        self._move(await self._store.checkpoint())

    async def refresh(self) -> Position:
        """Take up the stored checkpoint where another replica has moved it on, or where there is another one: after a
        restore, or a fail-over that lost commits. The position. Raises `ForeignLedger` as at the start."""
        before = self._checkpoint
        try:
            stored = await self._store.checkpoint()
        except LedgerError as error:
            self.trouble = str(error)
            raise
        self.trouble = None
        # While it was read, `apply` may have gone further: then it is looked at again soon.
        if self._checkpoint is before:
            self._move(stored)
        return self.position

    async def check_store(self) -> None:
        """Raises `StoreUnavailable` when the views can't be asked where they are, or do not say it in time."""
        try:
            async with asyncio.timeout(STORE_SECONDS):
                await self.refresh()
        except TimeoutError:
            raise StoreUnavailable(f"the views have not answered within {STORE_SECONDS} s.") from None

    def _move(self, checkpoint: Checkpoint) -> None:
        self._check_key(checkpoint)
        self._checkpoint = checkpoint
        self.watermark.move(checkpoint.position)
