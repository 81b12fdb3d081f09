"""The ledger's chain: one digest that stands for every event up to a position, and for their order.

`chain(n) = SHA-256(chain(n - 1) + bytes of event n)`, from 32 zero bytes on; an event's bytes are its JSON as it lies
in the log, in messages and in the feed. Who has folded the same events has the same chain, and nobody else.
"""

import hashlib
from collections.abc import Iterable

from msgspec import Raw

from shared.events import Position, Value

CHAIN_START = bytes(32)


class ChainAt(Value, frozen=True):
    """The chain after the event at `position`."""

    position: Position
    chain: bytes


START = ChainAt(Position(0), CHAIN_START)


def extend(chain: bytes, events: Iterable[bytes | Raw]) -> bytes:
    """The chain after `events`, encoded, which follow those that `chain` stands for."""
    sha256 = hashlib.sha256
    for event in events:
        chain = sha256(chain + event).digest()
    return chain
