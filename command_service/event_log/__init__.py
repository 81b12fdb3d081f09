"""The event log, and what is kept in the same transaction with it."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from command_service.event_log.runs import PackedPage, Page, Run
from command_service.ledger.account import Hold
from command_service.ledger.states import HoldKey, State
from shared.chain import ChainAt
from shared.errors import LedgerError
from shared.events import AccountId, HoldId, Position, Value

PACKED_BYTES_MAX = 4 * 1024 * 1024
"""Of a page's events before they were compressed."""
LEASE_SECONDS = 5
CLERK_LEASE_SECONDS = 1
"""It only saves work that would come to nothing; and who takes over at once is never late."""
DueHold = tuple[str, AccountId, HoldId]
"""When it expires, and which one it is: in the order in which they are due."""
BEFORE_ALL: DueHold = "", AccountId(""), HoldId("")
NO_HOLDS: Mapping[HoldKey, Hold | None] = {}
DIGEST_BYTES = 32


class Answer(Value, frozen=True):
    """What came of a request with an Idempotency-Key: its fingerprint and its encoded outcomes."""

    fingerprint: bytes
    outcomes: bytes

    def digest(self, key: str) -> bytes:
        """Kept beside it, since nothing else in the store tells that no bit of it has changed."""
        of_outcomes = hashlib.sha256(self.outcomes).digest()
        return of_outcomes + _digest(key, self.fingerprint, of_outcomes)


class KeptAnswer(Value, frozen=True):
    """What tells whose answer is kept; the outcomes may be long, and are read only for who may hear them."""

    fingerprint: bytes
    digest: bytes

    def is_of(self, key: str) -> bool:
        """Are the key and the fingerprint those that were written?"""
        of_outcomes, of_all = self.digest[:DIGEST_BYTES], self.digest[DIGEST_BYTES:]
        return of_all == _digest(key, self.fingerprint, of_outcomes)


def _digest(key: str, fingerprint: bytes, of_outcomes: bytes) -> bytes:
    return hashlib.sha256(b"%s\n%s\n%s" % (key.encode(), fingerprint, of_outcomes)).digest()


class Lease(Value, frozen=True):
    """The right to publish, and from where on: everything up to `published` was confirmed by the broker."""

    token: int
    published: Position


class LeaseLost(LedgerError):
    """The lease ended, and another relay has taken over."""


class Append(Protocol):
    """An open append transaction. It holds the lock on the head: nobody else can append until it ends."""

    head: ChainAt
    time: str
    """Of the last event; empty in an empty log."""
    states: Mapping[AccountId, State]
    answers: Mapping[str, KeptAnswer]
    holds: Mapping[HoldKey, Hold]

    async def outcomes(self, keys: Collection[str]) -> Mapping[str, bytes]:
        """Of the answers that are kept of `keys`; those that can't be read are not there."""

    async def commit(
        self,
        events: Sequence[bytes],
        time: str,
        states: Mapping[AccountId, State],
        answers: Mapping[str, Answer],
        holds: Mapping[HoldKey, Hold | None] = NO_HOLDS,
    ) -> None:
        """Write all of it, on disk when this returns; what was read too, if another's commit was not there yet.

        The encoded `events` follow `head`, and may be none; `time` is that of the last of them. `states`, `answers` and
        `holds` are new ones: a state takes the place of its account's last one, and None that of a hold that has ended.
        Raises `StoreUnavailable` when nothing was written, `OutcomeUnknown` when that is not sure, and `ValueError`,
        with nothing written, when an answer's key is there already: a bug.
        """


class EventLog(Protocol):
    source: str
    """Names this ledger, and no other, in every event."""
    key: bytes
    """Its Ed25519 key: 32 secret bytes, then the 32 that are public."""

    def append(
        self, account_ids: Collection[AccountId], keys: Collection[str], holds: Collection[HoldKey] = ()
    ) -> AbstractAsyncContextManager[Append]:
        """Begin to append: takes the lock, then reads the states, answers and open holds asked for (those that exist).

        Leaving the context without `commit` writes nothing. Raises `StoreUnavailable`.
        """

    async def head(self) -> Position:
        """The position of the last event; 0 in an empty log."""

    async def read(self, after: Position, events_max: int, bytes_max: int) -> Page:
        """Events from position `after` + 1 on, without a hole, up to a page's limits.

        At least one where there is one and `events_max` allows it, however large. Raises `CorruptStore`.
        """

    async def read_packed(self, after: Position, events_max: int, bytes_max: int) -> PackedPage | None:
        """The same, compressed as they lie in the log: `bytes_max` is what is sent, and decompressed it is
        `PACKED_BYTES_MAX`. None where they do not lie so, lie in too many pieces, or are at hand otherwise.

        Raises `CorruptStore`; but what is damaged within the compressed events, only their reader finds.
        """

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

    async def first_expiry(self) -> str | None:
        """When the first of the open holds expires; None when none ever does."""

    async def due_holds(self, after: DueHold, time: str, holds_max: int) -> Sequence[DueHold]:
        """The next of the open holds that have expired at `time`, the earliest first; none after the last."""

    async def lead_clerk(self, holder: str) -> bool:
        """For `CLERK_LEASE_SECONDS` from now on, is it `holder` who works off what is due? Not while another does."""

    async def end_clerk_lease(self, holder: str) -> None:
        """Let another do so at once."""

    async def check(self) -> None:
        """Of the store's own structure, what can be checked without knowing what is in it. Raises `CorruptStore`."""

    async def end(self) -> tuple[ChainAt, str]:
        """Where the log ends, as its head says, and the time of its last event; empty in an empty log."""

    async def runs(self, after: Position) -> Sequence[Run]:
        """The next runs after the one that ends at position `after`; none at the end of the log.

        Raises `CorruptStore`.
        """

    async def states_position(self) -> Position:
        """Every event up to here is in the states."""

    async def states(self, after: AccountId) -> Sequence[tuple[AccountId, State]]:
        """The next states in the order of their ids; none after the last."""

    async def holds(self, after: HoldKey | None) -> Sequence[tuple[HoldKey, Hold]]:
        """The next open holds in the order of their accounts and ids; none after the last."""

    async def answers(self, after: str) -> Sequence[tuple[str, Answer, bytes]]:
        """The next answers in the order of their keys, each with the digest that was stored beside it; none after the
        last. Raises `CorruptStore`."""

    async def close(self) -> None: ...
