"""What clients know: the commands they sent, what they were told, what they read, and when.

All times are in seconds of one monotonic clock: that of the process that all clients are in.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal[
    "create-account",
    "deposit",
    "withdraw",
    "transfer",
    "hold",
    "capture",
    "release",
    "set-overdraft-limit",
    "freeze",
    "unfreeze",
    "close",
]
Outcome = Literal["acknowledged", "unknown", "refused"]
Body = dict[str, Any]


@dataclass(slots=True)
class Attempt:
    """One request with a command, or with several: it is shared by those of a batch."""

    sent: float
    answered: float | None = None
    """None when no answer came."""
    outcome: Outcome = "unknown"
    """Refused: it was answered with "not done". Unknown: the client does not know what became of it."""


@dataclass(slots=True)
class Operation:
    """One command. `id` is its own: the name in a create-account, the limit where one is set, else the description. No
    hold is captured or released by two of them: there it is `capture-` or `release-` and the hold's id.

    A limit is its `amount`.
    """

    id: str
    kind: Kind
    account: str
    amount: int | None
    session: int
    """The client that sent it: each has a number."""
    to: str | None = None
    """Where a transfer or a capture goes."""
    attempts: list[Attempt] = field(default_factory=list)
    asset: str | None = None
    """That an account is asked for in; None when none is named."""
    answers: list[Body] = field(default_factory=list)
    """What it came to, as told to the client: by the first request, a retry, or a duplicate."""
    if_version: int | None = None
    metadata: Body | None = None
    atomic: str | None = None
    """The atomic request that it is of: all in it have this."""
    hold_id: str | None = None
    expires_at: str | None = None

    @property
    def outcome(self) -> Outcome:
        outcomes = {attempt.outcome for attempt in self.attempts}
        if "acknowledged" in outcomes:
            return "acknowledged"
        return "unknown" if "unknown" in outcomes else "refused"

    @property
    def sent(self) -> float | None:
        """When the first request was sent that may have recorded it; None when none may have.

        A retry's answer tells of what an earlier request has recorded, at any time since that one was sent.
        """
        return min((attempt.sent for attempt in self.attempts if attempt.outcome != "refused"), default=None)

    @property
    def answered(self) -> float | None:
        """When the client was first told that it is recorded; None when it was not, and it may still come."""
        times = [attempt.answered for attempt in self.attempts if attempt.outcome == "acknowledged"]
        return min((time for time in times if time is not None), default=None)


@dataclass(slots=True)
class Read:
    """An answer of a projection to a query."""

    session: int
    views: str
    """The name of the projection: replicas of one share its views."""
    account: str | None
    """None when the reserves were asked for."""
    min_position: int | None
    """The highest position that the session had seen, when it passed that on."""
    sent: float
    answered: float
    position: int
    body: Body | list[Body] | None
    """None when there was no such account."""


@dataclass(slots=True)
class View:
    """Everything that a projection holds, at one position: its answers, by account and for the reserves."""

    position: int
    accounts: dict[str, Body]
    reserves: list[Body]


@dataclass(frozen=True, slots=True)
class Pool:
    """Accounts among which money only moves, from position `since` on: `total` cents together."""

    accounts: Sequence[str]
    total: int
    since: int


@dataclass
class History:
    operations: list[Operation] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    pool: Pool | None = None
