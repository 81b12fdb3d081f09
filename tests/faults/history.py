"""What clients know: the commands they sent, what they were told, and what they read."""

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["create-account", "deposit", "withdraw"]


@dataclass(slots=True)
class Operation:
    """One command. `id` is its own: the name in a create-account, the description in the others."""

    id: str
    kind: Kind
    account: str
    amount: int | None
    answers: list[dict[str, Any]] = field(default_factory=list)
    """What it came to, as told to the client: by the first request, a retry, or a duplicate."""
    refusals: int = 0
    """Requests that were answered with "not done"."""
    unknowns: int = 0
    """Requests of which the client does not know what became."""

    @property
    def outcome(self) -> Literal["acknowledged", "unknown", "refused"]:
        if self.answers:
            return "acknowledged"
        return "unknown" if self.unknowns else "refused"


@dataclass(slots=True)
class Read:
    """An answer of a projection to a query with `min_position`; without balance and version when it was a 404."""

    account: str
    min_position: int
    position: int
    balance: int | None = None
    version: int | None = None


@dataclass(slots=True)
class View:
    """Everything that a projection holds, at one position: balance and version by account, and the reserve."""

    position: int
    accounts: dict[str, tuple[int, int]]
    reserve: int


@dataclass
class History:
    operations: list[Operation] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
