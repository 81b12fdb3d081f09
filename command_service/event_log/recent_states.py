"""The states that the SQLite event log does not have in its table yet."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from command_service.event_log.rows import sound
from command_service.event_log.runs import Run
from command_service.ledger.states import NO_STATE, State, states_after
from shared.errors import CorruptStore
from shared.events import AccountId, Position, UnreadableEvent, decode_events, join_events
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
PUT_STATE = """
    INSERT INTO states (account_id, version, state) VALUES (?, ?, ?)
    ON CONFLICT (account_id) DO UPDATE SET version = excluded.version, state = excluded.state
"""


class RecentStates:
    """The states that have changed since they were written to the table.

    Written at once, most of them would cost their command a page of the file: with many accounts, most of a commit
    (docs/performance.md). So they wait for a sweep, which writes them in the order of their ids, where neighbours
    share a page, a few with each append. What a crash takes from here is in the log.
    """

    def __init__(self, path: Path, states_position: Position) -> None:
        self.path = path
        self.head = states_position
        """Every event up to here is in `states` or in the table."""
        self.states_position = states_position
        """Every event up to here is in the table."""
        self.states: dict[AccountId, State] = {}
        self._sweep: list[AccountId] = []
        self._swept = 0
        """So many of the sweep are written."""
        self._sweep_head = states_position
        """Every event up to here is in the table when the sweep is done."""

    def read(self, connection: sqlite3.Connection, account_ids: Iterable[AccountId]) -> dict[AccountId, State]:
        """The states of those that have one."""
        states: dict[AccountId, State] = {}
        others: list[AccountId] = []
        for account_id in account_ids:
            if state := self.states.get(account_id):
                states[account_id] = state
            else:
                others.append(account_id)
        if others:
            others.sort()
            parameter = msgspec.json.encode(others).decode()
            rows = connection.execute(READ_STATES, (parameter,))
            for account_id, version, state in sound(self.path, (str, int, bytes), rows):
                states[account_id] = State(version, state)
        return states

    def take_in(self, connection: sqlite3.Connection, runs: Iterable[Run]) -> None:
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
                after = states_after(states, event)
                for account_id, version in event.streams():
                    last = states.get(account_id, NO_STATE).version
                    if version > last + 1:
                        raise CorruptStore(
                            f"{self.path}: position {position} is version {version} of {account_id!r}, after version "
                            f"{last}. {GOOD_COPY}"
                        )
                    if version > last:  # else a sweep that came to no end has written it
                        states[account_id] = after[account_id]
            self.states.update(states)
            self.head = run.position

    def next_to_write(self, states_max: int) -> list[AccountId]:
        """The next ids of a sweep, which begins when it is time."""
        if self._swept == len(self._sweep) and self.head - self._sweep_head >= SWEEP_EVENTS:
            self._sweep, self._swept, self._sweep_head = sorted(self.states), 0, self.head
        return self._sweep[self._swept : self._swept + states_max]

    def position_after(self, account_ids: Sequence[AccountId]) -> Position:
        """What `states_position` will be when the states of `next_to_write` are there."""
        is_last = self._swept + len(account_ids) == len(self._sweep)
        return self._sweep_head if is_last else self.states_position

    def committed(self, head: Position, changed: Mapping[AccountId, State], account_ids: Sequence[AccountId]) -> None:
        """Events up to `head` led to the states `changed`, and those of `account_ids` are in the table."""
        self.head, self.states_position = head, self.position_after(account_ids)
        self._swept += len(account_ids)
        self.states.update(changed)
        for account_id in account_ids:
            del self.states[account_id]


def put(connection: sqlite3.Connection, states: Iterable[tuple[AccountId, State]]) -> None:
    """Write them to the table."""
    connection.executemany(PUT_STATE, [(account_id, state.version, state.account) for account_id, state in states])
