"""Where each account's stream ends, and the way back through it from there, in the SQLite event store."""

import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from command_service.account import Account, evolve
from command_service.event_store import NewEvent
from shared.events import AccountId, Position, RecordedEvent, UnreadableEvent, Value, Version, decode_events
from shared.problems import CorruptStore

STRIDE = 32
"""Each event leads to the one before it in its stream; one in 32 also to the one 32 before it, one in 32² also to
the one 32² before it, and so on.
"""
SWEEP_EVENTS = 25_000
"""Each time that so many more events are in the log, the streams that they moved begin to be written.

Two go with each event: a sweep ends well before the next one begins. So memory holds about so many streams, and a start
after a crash reads up to twice as many events again, about 8 µs each; large appends add their own size to both.
"""
REPLAY_RUNS = 300
"""So many rows of the log are in memory at a time, when it is read again."""
READ_EVENTS_MAX = 256
"""Of one stream at a time: the way back finds them before it can know how large they are."""
ADVICE = "Put a good copy in its place."

READ_RUNS = "SELECT position, events FROM runs WHERE position > ? ORDER BY position LIMIT ?"
READ_RUN = "SELECT position, trails, events FROM runs WHERE position >= ? ORDER BY position LIMIT 1"
READ_STREAMS = """
    SELECT account_id, version, name, balance, position, marks
    FROM json_each(?) CROSS JOIN streams ON account_id = value
"""
READ_LAST = "SELECT version, position, marks FROM streams WHERE account_id = ?"
PUT_STREAM = """
    INSERT INTO streams (account_id, version, name, balance, position, marks) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (account_id) DO UPDATE
    SET version = excluded.version, name = excluded.name, balance = excluded.balance,
        position = excluded.position, marks = excluded.marks
"""


class Link(Value, frozen=True):
    """The place of an event in its stream and in the log.

    `marks` are the positions of the last event in its stream whose version is a multiple of `STRIDE`, of the last one
    whose version is a multiple of its square, and so on.
    """

    version: Version
    position: Position
    marks: str


class StreamEnd(Value, frozen=True):
    """What a stream's events have come to, and the last of them."""

    account: Account | None
    last: Link


NO_END = StreamEnd(None, Link(Version(0), Position(0), ""))


def lead_back(
    head: Position, events: Sequence[NewEvent], ends: Mapping[AccountId, StreamEnd]
) -> tuple[list[str], dict[AccountId, Link]]:
    """The trails of events that come after `head`, and the last one of each account.

    Raises `ValueError` when they do not go on from there, or from these ends.
    """
    trails: list[str] = []
    links: dict[AccountId, Link] = {}
    for position, event in enumerate(events, head + 1):
        account_id, version = event.account_id, event.version
        before = links.get(account_id) or ends.get(account_id, NO_END).last
        if version != before.version + 1 or event.position != position:
            raise ValueError(
                f"version {version} of {account_id!r} at {event.position} does not follow version {before.version} "
                f"at {position - 1}."
            )
        if version % STRIDE:
            trail, marks = str(before.position), before.marks
        else:
            trail, marks = _pass_mark(before, event.position)
        trails.append(trail)
        links[account_id] = Link(version, event.position, marks)
    return trails, links


def _pass_mark(before: Link, position: Position) -> tuple[str, str]:
    """The trail of an event whose version is a multiple of `STRIDE`, and the marks from there on."""
    levels = 1
    while (before.version + 1) % STRIDE ** (levels + 1) == 0:
        levels += 1
    marks = before.marks.split(",") if before.marks else []
    trail = [str(before.position), *marks[:levels]]
    return ",".join(trail), ",".join([str(position)] * levels + marks[levels:])


class RecentStreams:
    """The ends that have moved since they were written to the table of streams.

    Written at once, most of them would cost their command a page of the file: with many accounts, most of a commit
    (docs/performance.md). So they wait for a sweep, which writes them in the order of their ids, where neighbours
    share a page, a few with each append. What a crash takes from here is in the log.
    """

    def __init__(self, path: Path, streams_position: Position) -> None:
        self._path = path
        self.head = streams_position
        """Every event up to here is in `ends` or in the table."""
        self.streams_position = streams_position
        """Every event up to here is in the table."""
        self.ends: dict[AccountId, StreamEnd] = {}
        self._sweep: list[AccountId] = []
        self._swept = 0
        """So many of the sweep are written."""
        self._sweep_head = streams_position
        """Every event up to here is in the table when the sweep is done."""

    def read(self, connection: sqlite3.Connection, account_ids: Iterable[AccountId]) -> dict[AccountId, StreamEnd]:
        """The ends of those that exist."""
        ends: dict[AccountId, StreamEnd] = {}
        others: list[AccountId] = []
        for account_id in account_ids:
            if end := self.ends.get(account_id):
                ends[account_id] = end
            else:
                others.append(account_id)
        if others:
            others.sort()
            parameter = msgspec.json.encode(others).decode()
            for account_id, version, name, balance, position, marks in connection.execute(READ_STREAMS, (parameter,)):
                account = None if name is None else Account(name, balance)
                ends[account_id] = StreamEnd(account, Link(version, position, marks))
        return ends

    def catch_up(self, connection: sqlite3.Connection, head: Position) -> None:
        """Take in what is in the log and not here: after a crash, or a commit whose outcome nobody heard.

        Raises `CorruptStore` when the log does not go on from the ends.
        """
        while self.head < head:
            runs = [run for _, run in connection.execute(READ_RUNS, (self.head, REPLAY_RUNS))]
            if not runs:
                raise CorruptStore(f"{self._path}: the log ends at {self.head}, not at {head}. {ADVICE}")
            try:
                events = decode_events(f"[{','.join(runs)}]".replace("\n", ",").encode())
            except UnreadableEvent as error:
                raise CorruptStore(f"{self._path}, after position {self.head}: {error}. {ADVICE}") from error
            self._take_in(connection, events)

    def _take_in(self, connection: sqlite3.Connection, events: Sequence[RecordedEvent]) -> None:
        self.ends.update(self.read(connection, {event.account_id for event in events}))
        for position, event in enumerate(events, self.head + 1):
            account_id, version = event.account_id, event.version
            end = self.ends.get(account_id, NO_END)
            if event.position != position or version > end.last.version + 1:
                raise CorruptStore(
                    f"{self._path}: position {event.position}, version {version} of {account_id!r}, comes after "
                    f"position {position - 1}, version {end.last.version}. {ADVICE}"
                )
            if version <= end.last.version:  # a sweep that came to no end has written it
                continue
            marks = end.last.marks if version % STRIDE else _pass_mark(end.last, event.position)[1]
            self.ends[account_id] = StreamEnd(evolve(end.account, event.event), Link(version, event.position, marks))
        self.head = events[-1].position

    def next_to_write(self, ends_max: int) -> list[AccountId]:
        """The next ids of a sweep, which begins when it is time."""
        if self._swept == len(self._sweep) and self.head - self._sweep_head >= SWEEP_EVENTS:
            self._sweep, self._swept, self._sweep_head = sorted(self.ends), 0, self.head
        return self._sweep[self._swept : self._swept + ends_max]

    def position_after(self, account_ids: Sequence[AccountId]) -> Position:
        """What `streams_position` will be when the ends of `next_to_write` are there."""
        is_last = self._swept + len(account_ids) == len(self._sweep)
        return self._sweep_head if is_last else self.streams_position

    def committed(self, head: Position, moved: Mapping[AccountId, StreamEnd], account_ids: Sequence[AccountId]) -> None:
        """Events up to `head` moved these ends, and those of `account_ids` are in the table."""
        self.head, self.streams_position = head, self.position_after(account_ids)
        self._swept += len(account_ids)
        self.ends.update(moved)
        for account_id in account_ids:
            del self.ends[account_id]


def put(connection: sqlite3.Connection, ends: Collection[tuple[AccountId, StreamEnd]]) -> None:
    """Write them to the table of streams."""
    connection.executemany(
        PUT_STREAM,
        [
            (
                account_id,
                end.last.version,
                end.account and end.account.name,
                end.account and end.account.balance,
                end.last.position,
                end.last.marks,
            )
            for account_id, end in ends
        ],
    )


def read_back(
    connection: sqlite3.Connection, account_id: AccountId, last: Link | None, after: Version, events_max: int
) -> list[bytes]:
    """Events of an account from version `after` + 1 on, `READ_EVENTS_MAX` at most; `last` where it is not the table's.

    Goes back from the last one, in great strides first: at most 31 of each size. Raises `CorruptStore` when that leads
    out of the log.
    """
    row: tuple[int, int, bytes] | None
    if last is not None:
        row = last.version, last.position, last.marks.encode()
    elif (row := connection.execute(READ_LAST, (account_id,)).fetchone()) is None:
        return []
    head, position, marks = row
    version = head
    wanted = min(head, after + min(events_max, READ_EVENTS_MAX))
    for level, mark in enumerate(marks.split(b",") if marks else [], 1):
        if (marked := head - head % STRIDE**level) >= wanted:
            version, position = marked, int(mark)
    found: list[bytes] = []
    run_end, trails, events = 0, [b""], [b""]
    while version > after:
        if not run_end - len(events) < position <= run_end:
            run_end, *texts = connection.execute(READ_RUN, (position,)).fetchone() or (0, b"", b"")
            trails, events = (text.split(b"\n") for text in texts)
            if not run_end - len(events) < position <= run_end:
                raise CorruptStore(f"version {version} of {account_id!r} is not at position {position}. {ADVICE}")
        place = position - run_end - 1
        if version <= wanted:
            found.append(events[place])
        trail = trails[place].split(b",")
        level = max((level for level in range(len(trail)) if version - STRIDE**level >= wanted), default=0)
        version, position = version - STRIDE**level, int(trail[level])
    return found[::-1]
