"""Folds a gapless run of events into the views, a transaction for each run."""

from prometheus_client import CollectorRegistry, Gauge

from projection_service.view_store import Checkpoint, CheckpointMoved, ViewStore
from projection_service.views import project_account, project_reserve
from shared.events import Position, RecordedEvent
from shared.problems import CorruptStore
from shared.watermark import Watermark


class ForeignLedger(CorruptStore):
    """Events of another ledger than the one these views belong to."""

    slug, title = "foreign-ledger", "Another ledger's events"


class Projection:
    """The views' only writer in this process; replicas that share the views may have others.

    `watermark` follows the stored checkpoint.
    """

    def __init__(self, store: ViewStore, checkpoint: Checkpoint, registry: CollectorRegistry) -> None:
        self._store = store
        self._checkpoint = checkpoint
        self.source = checkpoint.source
        """Names the ledger that the views belong to; None until it is known."""
        self.watermark = Watermark(checkpoint.position)
        Gauge("projection_position", "The checkpoint.", registry=registry).set_function(
            lambda: self._checkpoint.position
        )

    @property
    def position(self) -> Position:
        return self._checkpoint.position

    def check_ledger(self, source: str, head: Position) -> None:
        """Raises `ForeignLedger` when the ledger `source`, now at `head`, can't be the one behind these views."""
        if self.source not in (None, source):
            raise ForeignLedger(
                f"these views belong to the ledger {self.source}, the feed to {source}. Set LEDGER_URL to the "
                "right command service, or PROJECTION_NAME to a new name to build new views."
            )
        if head < self.position:
            raise ForeignLedger(
                f"the views are at {self.position}, but the log ends at {head}: an older copy has replaced it. "
                "Set PROJECTION_NAME to a new name to build new views."
            )
        self.source = source

    async def apply(self, events: list[RecordedEvent]) -> None:
        """Fold `events`, which are consecutive and leave no hole after the checkpoint: ValueError otherwise.

        Views and checkpoint are committed when this returns. When another replica has moved these views,
        it takes up where they are now instead: compare `position` with what was to be reached.
        """
        checkpoint = self._checkpoint
        events = [event for event in events if event.position > checkpoint.position]
        if not events:
            return
        if events[0].position != checkpoint.position + 1:
            raise ValueError(f"position {events[0].position} does not follow checkpoint {checkpoint.position}")
        self.check_ledger(events[-1].source, events[-1].position)
        accounts = await self._store.accounts({event.account_id for event in events})
        reserve = checkpoint.reserve
        for event in events:
            account = project_account(accounts.get(event.account_id), event)
            if account is not None:
                accounts[event.account_id] = account
            reserve = project_reserve(reserve, event)
        moved = Checkpoint(events[-1].position, events[-1].source, reserve)
        try:
            await self._store.commit(checkpoint.position, moved, accounts)
        except CheckpointMoved:
            await self.reload()
        else:
            self._move(moved)

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
