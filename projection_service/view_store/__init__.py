"""The views and the checkpoint, which move together or not at all."""

from collections.abc import Collection, Mapping
from typing import Protocol

from projection_service.views import AccountView, ReserveView
from shared.events import AccountId, Position, Value
from shared.problems import LedgerError


class Checkpoint(Value, frozen=True):
    """The views hold every event of the ledger `source` up to `position`, and none after it.

    `chain` is that of the folded events, `key` the public one that the ledger signed it with.
    """

    position: Position
    source: str | None
    reserve: ReserveView
    chain: bytes
    key: bytes | None


EARLIER_STATE = (
    "these views are of an earlier state of this program. Set PROJECTION_NAME to a new name to build new views, "
    "and remove these."
)


class CheckpointMoved(LedgerError):
    """Another process has moved these views on. Read the checkpoint again and go on from there."""


class ViewStore(Protocol):
    async def checkpoint(self) -> Checkpoint: ...

    async def accounts(self, ids: Collection[AccountId]) -> dict[AccountId, AccountView]:
        """Those of `ids` that exist."""

    async def commit(
        self, expected: Position, checkpoint: Checkpoint, accounts: Mapping[AccountId, AccountView]
    ) -> None:
        """Replace `accounts` and move the checkpoint, in one transaction that outlives this process.

        Raises `CheckpointMoved`, having written nothing, unless the stored checkpoint is at `expected`.
        """

    async def account(self, account_id: AccountId) -> tuple[AccountView | None, Position]:
        """The view and the position at which it holds, read at one moment."""

    async def close(self) -> None: ...
