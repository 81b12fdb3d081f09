"""Events with the ledger's word for them, out of a message or out of a page of the feed. Pure."""

from shared.chain import ChainAt, extend
from shared.events import RecordedEvent, Value


class Unproven(ValueError):
    """Events that, after those which were folded, are not what the ledger has signed. `str()` says why."""


class Hole(ValueError):
    """Events from further on: what comes before them is missing."""


class Batch(Value, frozen=True):
    """Events up to `end`, and the ledger's word that its chain is this one there."""

    events: list[RecordedEvent]
    end: ChainAt

    def following(self, at: ChainAt) -> list[RecordedEvent]:
        """Those after `at`, which bring the chain to `end`; none when all of them are before it.

        Raises `Unproven` or `Hole`.
        """
        if self.events and self.events[-1].position != self.end.position:
            raise Unproven(
                f"it ends at position {self.events[-1].position}, and its signature is for {self.end.position}"
            )
        events = [event for event in self.events if event.position > at.position]
        if not events and self.end.position != at.position:
            return []
        if events and events[0].position > at.position + 1:
            raise Hole(f"position {events[0].position} where {at.position + 1} was to come")
        chain = extend(at.chain, [event.encoded for event in events])
        if (at.position + len(events), chain) != (self.end.position, self.end.chain):
            raise Unproven(f"its events after position {at.position} are not those that the ledger has signed")
        return events
