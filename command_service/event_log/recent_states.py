"""The states that the SQLite event log does not have in its table yet."""

from collections.abc import Iterable, Mapping
from operator import itemgetter
from pathlib import Path

import apsw
import msgspec

from command_service.event_log.rows import all_sound
from command_service.event_log.runs import Run
from command_service.ledger.states import NO_STATE, State, states_after
from shared.errors import CorruptStore
from shared.events import INT64_MAX, AccountId, Position, UnreadableEvent, decode_events, join_events
from shared.platform.sqlite import GOOD_COPY

SWEEP_EVENTS = 25_000
"""Each time that so many more events are in the log, the states that they moved begin to be written.

Four go with each event, which moves two at most: a sweep ends well before the next one begins. So memory holds up to
twice as many states, and a start after a crash reads up to twice as many events again, about 8 µs each; large appends
add their own size to both.
"""

READ_STATES = """
    SELECT account_id, version, state FROM json_each(?) CROSS JOIN states ON account_id = value
"""
# Short, and without names: apsw goes over the text of a statement for each of its rows, a nanosecond a character.
PUT_STATE = "REPLACE INTO states VALUES (?, ?, ?)"


class RecentStates:
    """The states that have changed since they were written to the table.

    Written at once, most of them would cost their command a page of the file: with many accounts, most of a commit
    (docs/performance.md). So they wait for a sweep, which writes them in the order of their ids, where neighbours
    share a page, a few with each append. What a crash takes from here is in the log.
    """

    def __init__(self, path: Path, states_position: Position) -> None:
        self.path = path
        self.head = states_position
        """Every event up to here is in these states or in the table."""
        self.states_position = states_position
        """Every event up to here is in the table."""
        self._changed: dict[AccountId, State] = {}
        """Since the sweep began."""
        self._swept: dict[AccountId, State] = {}
        """What the sweep writes, as it was when it began."""
        self._sweep: list[tuple[AccountId, State]] = []
        """What of it is yet to be written, the next one last."""
        self._sweep_head = states_position
        """Every event up to here is in the table when the sweep is done."""

    def read(self, connection: apsw.Connection, account_ids: Iterable[AccountId]) -> dict[AccountId, State]:
        """The states of those that have one."""
        asked = set(account_ids)
        states = {
            account_id: states[account_id]
            for states in (self._swept, self._changed)
            for account_id in asked & states.keys()
        }
        if others := sorted(asked.difference(states)):
            parameter = msgspec.json.encode(others).decode()
            rows = all_sound(self.path, (str, int, bytes), connection.execute(READ_STATES, (parameter,)))
            for account_id, version, state in rows:
                states[account_id] = State(version, state)
            if rows and not 0 < min(map(itemgetter(1), rows)) <= max(map(itemgetter(1), rows)) < INT64_MAX:
                raise CorruptStore(f"{self.path}: a state's version that no account can have. {GOOD_COPY}")
        return states

    def take_in(self, connection: apsw.Connection, runs: Iterable[Run]) -> None:
        """Fold the next runs of the log: after a crash, or a commit whose outcome nobody heard.

        Raises `CorruptStore` when they do not go on from the states.
        """
        for run in runs:
            try:
                events = decode_events(join_events(run.events))
            except UnreadableEvent as error:
                raise CorruptStore(f"{self.path}, up to position {run.position}: {error}. {GOOD_COPY}") from error
            account_ids = {account_id for event in events for account_id, _ in event.streams()}
            states = self.read(connection, account_ids)
            for position, event in enumerate(events, self.head + 1):
                if event.position != position:
                    raise CorruptStore(f"{self.path}: position {event.position} after {position - 1}. {GOOD_COPY}")
                # A sweep that came to no end has written states that are further on: what they would be after this
                # event may be what no account can have.
                behind: dict[AccountId, State] = {}
                for account_id, version in event.streams():
                    last = states.get(account_id, NO_STATE)
                    if version > last.version + 1:
                        raise CorruptStore(
                            f"{self.path}: position {position} is version {version} of {account_id!r}, after version "
                            f"{last.version}. {GOOD_COPY}"
                        )
                    if version > last.version:
                        behind[account_id] = last
                after = states_after(behind, event)
                states.update({account_id: after[account_id] for account_id in behind})
            self._changed.update(states)
            self.head = run.position

    def next_to_write(self, states_max: int) -> list[tuple[AccountId, State]]:
        """The next ones of a sweep, which begins when it is time."""
        if not self._sweep and self.head - self._sweep_head >= SWEEP_EVENTS:
            self._swept, self._changed, self._sweep_head = self._changed, {}, self.head
            self._sweep = sorted(self._swept.items(), key=itemgetter(0), reverse=True)
        return self._sweep[-states_max:] if states_max else []

    def position_after(self, written: int) -> Position:
        """What `states_position` will be when so many more of the sweep are in the table."""
        return self._sweep_head if written == len(self._sweep) else self.states_position

    def committed(self, head: Position, changed: Mapping[AccountId, State], written: int) -> None:
        """Events up to `head` led to the states `changed`, and so many more of the sweep are in the table."""
        self.head, self.states_position = head, self.position_after(written)
        del self._sweep[len(self._sweep) - written :]
        if not self._sweep:
            self._swept = {}
        self._changed.update(changed)

    def all(self) -> dict[AccountId, State]:
        """Those that may not be in the table."""
        return self._swept | self._changed


def put(connection: apsw.Connection, states: Iterable[tuple[AccountId, State]]) -> None:
    """Write them to the table."""
    connection.executemany(PUT_STATE, [(account_id, state.version, state.account) for account_id, state in states])
