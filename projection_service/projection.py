"""Folds a gapless run of events into the views, a transaction for each run."""

from collections.abc import Sequence

import msgspec
from prometheus_client import CollectorRegistry, Gauge

from projection_service.view import View
from projection_service.view_store import Change, Checkpoint, CheckpointMoved, ImpossibleEvents, ViewStore
from shared.chain import ChainAt, extend
from shared.events import Position, RecordedEvent
from shared.problems import CorruptStore
from shared.watermark import Watermark


class ForeignLedger(CorruptStore):
    """Events of another ledger than the one these views belong to."""

    slug, title = "foreign-ledger", "Another ledger's events"


class ForgedEvents(CorruptStore):
    """What was folded is not what the ledger recorded."""

    slug, title = "forged-events", "Events that the ledger never recorded"


class Projection:
    """The views' only writer in this process; replicas that share the views may have others.

    `watermark` follows the stored checkpoint.
    """

    def __init__(
        self, store: ViewStore, views: Sequence[View], checkpoint: Checkpoint, registry: CollectorRegistry
    ) -> None:
        self._store = store
        self.views = views
        self._checkpoint = checkpoint
        self.source = checkpoint.source
        """Names the ledger that the views belong to; None until it is known."""
        self.watermark = Watermark(checkpoint.position)
        self.last_event_time: str | None = None
        """Of the last event that was folded here; None before the first."""
        Gauge("projection_position", "The checkpoint.", registry=registry).set_function(lambda: self.position)
        Gauge(
            "projection_unverified_events",
            "Events folded from messages whose digest was not yet compared with the ledger's.",
            registry=registry,
        ).set_function(lambda: self.unverified_events)

    @property
    def position(self) -> Position:
        return self._checkpoint.position

    @property
    def checkpoint(self) -> Checkpoint:
        return self._checkpoint

    @property
    def unverified_events(self) -> int:
        return self._checkpoint.position - self._checkpoint.verified.position

    def check_ledger(self, source: str, head: Position, asked_at: Position) -> None:
        """Raises `ForeignLedger` when the ledger `source`, now at `head`, can't be the one behind these views.

        `asked_at` is where the views were before the ledger was asked: they may have moved on since its answer.
        """
        self._check_source(source)
        if head < asked_at:
            raise ForeignLedger(
                f"the views are at {asked_at}, but the log ends at {head}: an older copy has replaced it, or somebody "
                "else has published events. Set PROJECTION_NAME to a new name to build new views."
            )
        self.source = source

    def _check_source(self, source: str) -> None:
        if self.source not in (None, source):
            raise ForeignLedger(
                f"these views belong to the ledger {self.source!a}, the feed to {source!a}. Set LEDGER_URL to the "
                "right command service, or PROJECTION_NAME to a new name to build new views."
            )

    async def apply(self, events: list[RecordedEvent]) -> None:
        """Fold `events`, which are consecutive and leave no hole after the checkpoint: ValueError otherwise.

        Views and checkpoint are committed when this returns. When another replica has moved these views,
        it takes up where they are now instead: compare `position` with what was to be reached.
        Raises `ForgedEvents` at what no ledger could have recorded.
        """
        await self._fold(events, from_ledger=False)

    async def apply_page(self, events: list[RecordedEvent]) -> None:
        """As `apply`, with what the ledger itself has just given: it needs no comparison with the ledger."""
        await self._fold(events, from_ledger=True)

    def confirm(self, checkpoint: Checkpoint, ledger: ChainAt) -> None:
        """The ledger has the chain `ledger` where `checkpoint` is: raises `ForgedEvents` when that is another one."""
        if ledger.chain != checkpoint.chain:
            raise ForgedEvents(
                f"the views are wrong: what was folded from position {checkpoint.verified.position + 1} to "
                f"{checkpoint.position} is not what the ledger has there. Find out who else can publish to the "
                "exchange, and set PROJECTION_NAME to a new name to build new views."
            )
        # The checkpoint may have moved meanwhile. It is kept with the next one that is committed.
        if self._checkpoint.verified.position < ledger.position <= self.position:
            self._checkpoint = msgspec.structs.replace(self._checkpoint, verified=ledger)

    async def _fold(self, events: list[RecordedEvent], from_ledger: bool) -> None:
        checkpoint = self._checkpoint
        events = [event for event in events if event.position > checkpoint.position]
        if not events:
            return
        last = events[-1]
        if events[0].position != checkpoint.position + 1:
            raise ValueError(f"position {events[0].position} does not follow checkpoint {checkpoint.position}")
        self._check_source(last.source)
        chain = extend(checkpoint.chain, [event.encoded for event in events])
        is_verified = from_ledger and checkpoint.verified.position == checkpoint.position
        verified = ChainAt(last.position, chain) if is_verified else checkpoint.verified
        moved = Checkpoint(last.position, last.source, chain, verified)
        try:
            await self._write(checkpoint, moved, events)
        except CheckpointMoved:
            await self.reload()
        else:
            self.last_event_time = last.time
            self._move(moved)

    async def _write(self, checkpoint: Checkpoint, moved: Checkpoint, events: list[RecordedEvent]) -> None:
        """Raises `ForgedEvents`, and `CheckpointMoved` also when the views were read after another replica's commit."""
        try:
            changes: list[Change] = []
            for view in self.views:
                changes += await view.changes(self._store.read_for_fold, events)
            await self._store.commit(checkpoint.position, moved, changes)
        except ImpossibleEvents as reason:
            stored = await self._store.checkpoint()
            if stored.position != checkpoint.position:
                raise CheckpointMoved(f"the checkpoint is no longer at {checkpoint.position}.") from reason
            raise ForgedEvents(
                f"between {events[0].position} and {events[-1].position} is an event that no ledger records: {reason}. "
                "Nothing of it is in the views. Find out who else can publish to the exchange, and set "
                "PROJECTION_NAME to a new name to build new views."
            ) from reason

    async def reload(self) -> None:
        """Take up the stored checkpoint, after a failure that left in doubt where it is."""
        self._move(await self._store.checkpoint())

    async def refresh(self) -> Position:
        """Take up the stored checkpoint where another replica has moved it on; the position."""
        stored = await self._store.checkpoint()
        # It was read while `apply` may have gone further.
        if stored.position > self.position:
            self._move(stored)
        return self.position

    def _move(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self.source = checkpoint.source or self.source
        self.watermark.advance(checkpoint.position)
