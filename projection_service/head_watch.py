"""What is known of the log's head, and since when: how far the projection is behind, and when nobody can tell."""

import math
import time
from datetime import datetime

from prometheus_client import CollectorRegistry, Gauge

from projection_service.projection import Projection
from shared.events import Position

IN_SIGHT_SECONDS_MAX = 30
"""Longer than a long poll of the feed, and than several looks at it beside the queue."""
PUBLISHED_SECONDS_MAX = 5
"""For so long what was seen of the ledger, and of the broker's confirmations, is told on."""


class HeadWatch:
    """Nothing is said to be up to date on the strength of a head that was seen too long ago."""

    def __init__(self, projection: Projection, registry: CollectorRegistry) -> None:
        self._projection = projection
        self._head = projection.position
        self._promised = Position(0)
        self._published: Position | None = None
        self._published_at = -math.inf
        self._started = time.monotonic()
        self._seen: float | None = None
        self._level: float | None = None
        """When the views last had everything."""
        self._level_position = Position(0)
        """What that was."""
        for name, meaning, value in (
            ("projection_lag_events", "Events behind the head; NaN while the head is out of sight.", self.lag_events),
            (
                "projection_lag_seconds",
                "Age of the oldest event that is not in the views, at most. It grows while the head is out of sight.",
                self.lag_seconds,
            ),
            (
                "projection_head_age_seconds",
                "Since the head of the log was last seen, or since the start.",
                self.age_seconds,
            ),
        ):
            Gauge(name, meaning, registry=registry).set_function(value)

    def promised(self, position: Position) -> None:
        """The ledger has signed events up to `position`: until they are in the views, an earlier head is an old one."""
        self._promised = max(self._promised, position)
        self._head = max(self._head, position)

    @property
    def note(self) -> str:
        """For people who ask why it is out of sight; empty when there is nothing to say."""
        if self._projection.position >= self._promised:
            return ""
        return f"The ledger has signed events up to {self._promised}, which are not there. "

    def seen(self, head: Position) -> None:
        """The log ended at `head` just now, somebody says."""
        if self._projection.position >= self._promised:
            self._promised = Position(0)
        if head < self._promised:
            return
        self._head = head
        self._seen = time.monotonic()
        if self._projection.position >= head:
            self._level, self._level_position = self._seen, self._projection.position

    def is_at_least(self, head: Position) -> None:
        """The log is this far, somebody says, and what of it is missing is yet to be folded: it shortens no lag, and
        nothing is in sight for that."""
        self._head = max(self._head, head)

    def glimpsed(self, head: Position, published: Position | None) -> None:
        """The same of what is read beside what is to be folded, with up to where the broker has confirmed it; None
        when there is no broker."""
        self.is_at_least(head)
        self._published, self._published_at = published, time.monotonic()

    @property
    def published(self) -> Position | None:
        """The broker has confirmed everything up to here; None when nobody can tell, or there is no broker."""
        return self._published if time.monotonic() - self._published_at <= PUBLISHED_SECONDS_MAX else None

    def lose(self) -> None:
        """From now on nobody looks at it any more."""
        self._seen = None

    @property
    def have_gone_back(self) -> bool:
        """Do the views lack what they once had?"""
        return self._projection.position < self._level_position

    @property
    def is_in_sight(self) -> bool:
        return self._seen is not None and self.age_seconds() <= IN_SIGHT_SECONDS_MAX

    @property
    def head(self) -> Position | None:
        """Of the log; None while it is out of sight."""
        return max(self._head, self._projection.position) if self.is_in_sight else None

    @property
    def is_fresh(self) -> bool:
        """In sight, and seen within `PUBLISHED_SECONDS_MAX`: to be asked by who has just had it looked at."""
        seen = max(-math.inf if self._seen is None else self._seen, self._published_at)
        return self.is_in_sight and time.monotonic() - seen <= PUBLISHED_SECONDS_MAX

    def age_seconds(self) -> float:
        return time.monotonic() - (self._started if self._seen is None else self._seen)

    def lag_events(self) -> float:
        return max(0, self._head - self._projection.position) if self.is_in_sight else math.nan

    def lag_seconds(self) -> float:
        if self.is_in_sight and self._projection.position >= self._head:
            return 0
        return self.lag_seconds_max()

    def lag_seconds_max(self) -> float:
        """That of views that lack anything at all."""
        # What is missing came after the last event that is there, and after all was there.
        ages = [time.monotonic() - self._level] if self._level is not None else []
        if self._projection.last_event_time is not None and (age := _age_seconds(self._projection.last_event_time)):
            ages.append(age)
        return min(ages, default=time.monotonic() - self._started)


def _age_seconds(event_time: str) -> float | None:
    """None when it is no time, or one to come."""
    try:
        age = time.time() - datetime.fromisoformat(event_time).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    return max(0, age) or None
