"""The event log, and what is kept in the same transaction with it."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from command_service.account import Account
from shared.events import AccountId, Position, Value, Version
from shared.problems import LedgerError

LEASE_SECONDS = 5


class Stream(Value, frozen=True):
    """Where one account's stream stands: its last version, and the account if it has been created."""

    version: Version
    account: Account | None


class NewEvent(Value, frozen=True):
    """An event for the log. `event` is the encoded CloudEvent."""

    position: Position
    account_id: AccountId
    version: Version
    event: str


class Answer(Value, frozen=True):
    """What came of a request with an Idempotency-Key: its fingerprint and its encoded outcomes."""

    fingerprint: bytes
    outcomes: str


class Lease(Value, frozen=True):
    """The right to publish, and from where on: everything up to `published` was confirmed by the broker."""

    token: int
    published: Position


class LeaseLost(LedgerError):
    """The lease ended, and another relay has taken over."""


class Append(Protocol):
    """An open append transaction. It holds the lock on the head: nobody else can append until it ends."""

    head: Position
    streams: Mapping[AccountId, Stream]
    answers: Mapping[str, Answer]

    async def commit(
        self,
        events: Sequence[NewEvent],
        streams: Mapping[AccountId, Stream],
        answers: Mapping[str, Answer],
    ) -> None:
        """Write all of it, on disk when this returns; what was read too, if another's commit was not there yet.

        `events` go on from `head` without a hole, and may be none; `streams` are the new states of their accounts.
        Raises `StoreUnavailable` when nothing was written, `OutcomeUnknown` when that is not sure, and `ValueError`,
        with nothing written, when they do not go on from what is there: a bug.
        """


class EventStore(Protocol):
    source: str
    """Names this ledger, and no other, in every event."""

    def append(self, account_ids: Collection[AccountId], keys: Collection[str]) -> AbstractAsyncContextManager[Append]:
        """Begin to append: takes the lock, then reads the streams and answers asked for (those that exist).

        Leaving the context without `commit` writes nothing. Raises `StoreUnavailable`.
        """

    async def head(self) -> Position:
        """The position of the last event; 0 in an empty log."""

    async def read(self, after: Position, events_max: int, bytes_max: int) -> list[bytes]:
        """Encoded events from position `after` + 1 on, without a hole, up to a page's limits.

        At least one where there is one, however large.
        """

    async def read_stream(self, account_id: AccountId, after: Version, events_max: int, bytes_max: int) -> list[bytes]:
        """Encoded events of one account, from version `after` + 1 on, up to a page's limits as in `read`."""

    async def published(self) -> Position:
        """The relay's cursor: everything up to here was confirmed by the broker."""

    async def acquire_lease(self) -> Lease | None:
        """The right to publish, for `LEASE_SECONDS`; None while another relay has it."""

    async def save_published(self, lease: Lease, position: Position) -> None:
        """Move the relay's cursor, and prolong the lease from now on.

        Raises `LeaseLost`, having written nothing, when another relay has taken over.
        """

    async def end_lease(self, lease: Lease, position: Position) -> None:
        """Move the cursor a last time and let another relay lead at once. Changes nothing after a take-over."""

    async def close(self) -> None: ...
