"""Does a log still say what was written to it? Whatever in it follows from something else is worked out again."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from command_service.event_log import EventLog
from command_service.event_log.runs import Run
from command_service.ledger.account import Hold, decide, hold_after
from command_service.ledger.atomic import rejected_together
from command_service.ledger.commands import ExpireHold, command_of
from command_service.ledger.states import NO_STATE, HoldKey, State, Stream, hold_key_of, states_after, stream_of
from shared.chain import START, ChainAt, extend
from shared.errors import CorruptStore
from shared.events import (
    AccountId,
    Event,
    Position,
    RecordedEvent,
    Rejected,
    UnreadableEvent,
    Value,
    decode_events,
    join_events,
    read_envelope,
)
from shared.witness import Signer


async def verify(event_log: EventLog, progress: Callable[[int, int], None] = lambda _reached, _head: None) -> ChainAt:
    """Where `event_log` ends, when all of it holds. It may be in use meanwhile.

    `progress` is told the position that was reached, and the last one. Raises `CorruptStore`, which names the first
    position that does not hold. Has a state for each account, and all open holds, in memory. How far the relay has
    published is not checked, since every position up to the head is a good one.
    """
    await event_log.check()
    Signer(event_log.source, event_log.key)
    begin = await event_log.head()
    answered = await _check_answers(event_log, begin)
    # In this order: what is added meanwhile is in the log in any case.
    settled = await event_log.states_position()
    states = await _read_states(event_log)
    before = await event_log.head()
    stored = await _read_holds(event_log)
    end, time = await event_log.end()
    walk = _Walk(event_log.source, settled, states, _Holds(stored, before, end.position), end, time, begin)
    # What was added meanwhile may have been read up to the middle of a request.
    while walk.at.position < end.position or walk.request:
        runs = await event_log.runs(walk.at.position)
        if not runs:
            walk.end_request()
            if walk.at.position >= end.position:
                break
            raise CorruptStore(f"position {walk.at.position + 1} is not there, and the log ends at {end.position}.")
        for run in runs:
            walk.take(run)
        progress(walk.at.position, max(end.position, walk.at.position))
    last = walk.at.position
    if runs := await event_log.runs(last):
        last = runs[-1].position
    end, _ = await event_log.end()
    if end.position < last:  # a head that is read later is not behind what was there before
        raise CorruptStore(f"position {max(0, end.position) + 1} is there, and the log ends at {end.position}.")
    walk.end(answered)
    return walk.at


async def _check_answers(event_log: EventLog, up_to: Position) -> int:
    """How many there are of requests with events up to `up_to`, by keys that clients have given."""
    last, answered = "", 0
    while answers := await event_log.answers(last):
        for key, answer, digest in answers:
            if answer.digest(key) != digest:
                raise CorruptStore(f"the answer to the Idempotency-Key {key!a} is not the one that was written.")
            positions = _read_positions(answer.outcomes)
            answered += bool(positions) and positions[0].position <= up_to and not _is_given(key)
        last = answers[-1][0]
    return answered


class _Recorded(Value, frozen=True):
    """Of an outcome, where it is."""

    position: Position


_read_positions = msgspec.json.Decoder(list[_Recorded]).decode
# https://www.rfc-editor.org/rfc/rfc9562#name-uuid-version-7
_is_given = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}").fullmatch
"""Does it look like the id that a request without a key is given?"""


async def _read_states(event_log: EventLog) -> dict[AccountId, State]:
    states: dict[AccountId, State] = {}
    last = AccountId("")
    while found := await event_log.states(last):
        states.update(found)
        last = found[-1][0]
    return states


async def _read_holds(event_log: EventLog) -> dict[HoldKey, Hold]:
    holds: dict[HoldKey, Hold] = {}
    last = None
    while found := await event_log.holds(last):
        holds.update(found)
        last = found[-1][0]
    return holds


class _Holds:
    """The open holds after each event; and are those stored?

    What is `stored` was read while the log grew from `begin` to `end`: all that was open from the one to the other is
    in it, and nothing that was open at no time in between.
    """

    def __init__(self, stored: dict[HoldKey, Hold], begin: Position, end: Position) -> None:
        self._stored = stored
        self._begin = begin
        self._end = end
        self._open: dict[HoldKey, Hold] = {}
        self._explained: set[HoldKey] = set()
        """Those of `stored` that are as they were placed."""
        self._lasting: set[HoldKey] = set()
        """Those that were open at `begin` and are still."""
        self._unlike: set[HoldKey] = set()
        """What was found to be otherwise at `end`."""
        self._reach(Position(0))

    def get(self, key: HoldKey) -> Hold | None:
        return self._open.get(key)

    def take(self, position: Position, key: HoldKey | None, event: Event) -> None:
        """`event`, which is of the hold `key` or of none."""
        if key is not None:
            hold = hold_after(self._open.pop(key, None), event)
            if hold is None:
                self._lasting.discard(key)
            else:
                self._open[key] = hold
                self._explain(key, hold, position)
        self._reach(position)

    def _explain(self, key: HoldKey, hold: Hold, position: Position) -> None:
        if self._begin <= position <= self._end and self._stored.get(key) == hold:
            self._explained.add(key)

    def _reach(self, position: Position) -> None:
        if position == self._begin:
            self._lasting = set(self._open)
            for key, hold in self._open.items():
                self._explain(key, hold, position)
        if position == self._end:
            self._unlike = (self._lasting | self._stored.keys()) - self._explained

    def check(self) -> None:
        """When the log has been gone through. Raises `CorruptStore`."""
        if self._unlike:
            account_id, hold_id = min(self._unlike)
            raise CorruptStore(
                f"position {self._end}: the hold {hold_id!a} of {account_id!a} is not stored as it was placed, or not "
                "open any more."
            )


class _Place(NamedTuple):
    """Of a command in its request. Without a number, it was alone."""

    request_id: str
    number: int | None


def _place(event: RecordedEvent) -> _Place:
    """Raises `UnreadableEvent`."""
    command_id = read_envelope(event).commandid
    request_id, _, number = command_id.rpartition("/")
    return _Place(request_id, int(number)) if number.isdecimal() and len(number) < 10 else _Place(command_id, None)


def _is_linked(event: RecordedEvent) -> bool:
    return isinstance(event.event, Rejected) and event.event.reason == "linked-command-rejected"


class _Walk:
    """Goes through the log once, from its beginning, and folds it as the writer did."""

    def __init__(
        self,
        source: str,
        settled: Position,
        stored: dict[AccountId, State],
        holds: _Holds,
        end: ChainAt,
        end_time: str,
        begin: Position,
    ) -> None:
        self.at = START
        self._source = source
        self._end = end
        self._end_time = end_time
        """What the head says of the last event."""
        self._settled = settled
        """Every event up to here is in `stored`."""
        self._stored = stored
        self._holds = holds
        self._met: set[AccountId] = set()
        self._states: dict[AccountId, State] = {}
        self._time = ""
        self.request: list[tuple[Position, RecordedEvent]] = []
        """The last events, while they may be of an atomic request that was rejected: only its end tells."""
        self._request_id = ""
        """Of the last event."""
        self._begin = begin
        self._keyed = 0
        """How many requests up to `begin` had a key that no server has given."""

    def take(self, run: Run) -> None:
        try:
            self._take(run)
        except CorruptStore:
            self.end_request()  # which is before that, and may not hold either
            raise

    def _take(self, run: Run) -> None:
        first = self.at.position + 1
        if run.position != self.at.position + len(run.events):
            raise CorruptStore(f"position {first}: {len(run.events)} events from there on end at {run.position}.")
        for position, encoded in enumerate(run.events, first):
            self._take_event(Position(position), encoded)
        chain = extend(self.at.chain, run.events)
        if chain != run.chain:
            raise CorruptStore(
                f"position {first}: the chain is another one over the events from there to {run.position}."
            )
        self.at = ChainAt(run.position, run.chain)
        if first <= self._end.position <= run.position:
            self._check_end()

    def _check_end(self) -> None:
        self.end_request()
        if (self.at, self._time) != (self._end, self._end_time):
            raise CorruptStore(
                f"position {self._end.position}: the log ends there at {self._end_time!a}, as its head says, and its "
                f"event is of {self._time!a} or its chain another one."
            )

    def _take_event(self, position: Position, encoded: bytes) -> None:
        try:
            (event,) = decode_events(join_events([encoded]))
            place = _place(event)
        except (UnreadableEvent, ValueError) as error:
            raise CorruptStore(f"position {position}: {error}.") from error
        is_next = place.request_id == self._request_id
        self._keyed += not is_next and position <= self._begin and not _is_given(place.request_id)
        self._request_id = place.request_id
        if self.request and is_next and place.number == len(self.request):
            self.request.append((position, event))
            return
        self.end_request()
        if isinstance(event.event, Rejected) and place.number == 0:
            self.request = [(position, event)]
        else:
            self._fold(position, event, self._decide(event))

    def end_request(self) -> None:
        request, self.request = self.request, []
        rejections: Sequence[Event] = ()
        commands = [command_of(event) for _, event in request]
        if any(_is_linked(event) for _, event in request) and not any(isinstance(one, ExpireHold) for one in commands):
            rejections = rejected_together(commands, request[0][1].time, self._stream, self._holds.get)
        for number, (position, event) in enumerate(request):
            self._fold(position, event, rejections[number] if rejections else self._decide(event))

    def _decide(self, event: RecordedEvent) -> Event | None:
        command = command_of(event)
        version, account = self._stream(event.account_id)
        counterpart = self._stream(command.to)[1] if command.to else None
        hold = self._holds.get(hold_key_of(command)) if command.names_hold else None
        return decide(account, version, command, event.time, counterpart, hold)

    def _stream(self, account_id: AccountId) -> Stream:
        return stream_of(self._states.get(account_id, NO_STATE))

    def _fold(self, position: Position, event: RecordedEvent, decided: Event | None) -> None:
        if event.position != position or event.source != self._source:
            raise CorruptStore(f"position {position}: an event of {event.source!a} with position {event.position}.")
        if event.time < self._time:
            raise CorruptStore(f"position {position}: its time {event.time!a} is before {self._time!a}.")
        for account_id, version in event.streams():
            last = self._states.get(account_id, NO_STATE).version
            if version != last + 1:
                raise CorruptStore(f"position {position}: version {version} of {account_id!a} after version {last}.")
        if decided != event.event:
            raise CorruptStore(f"position {position}: not what was to be decided: {type(event.event).__name__}.")
        self._time = event.time
        after = states_after(self._states, event)
        self._states.update(after)
        hold_id = getattr(event.event, "hold_id", None)
        self._holds.take(position, None if hold_id is None else (event.account_id, hold_id), event.event)
        for account_id, state in after.items():
            self._compare(position, account_id, state)

    def _compare(self, position: Position, account_id: AccountId, state: State) -> None:
        stored = self._stored.get(account_id, NO_STATE)
        if stored.version == state.version:
            if stored != state:
                raise CorruptStore(f"position {position}: the state of {account_id!a} after it is another.")
            self._met.add(account_id)
        elif stored.version < state.version and position <= self._settled:
            raise CorruptStore(f"position {position}: the state of {account_id!a} does not have it.")

    def end(self, answered: int) -> None:
        """`answered` says of how many such requests there is an answer."""
        if self._end.position == 0:
            self._check_end()
        if unmet := self._stored.keys() - self._met:
            account_id = min(unmet)
            raise CorruptStore(
                f"position {self.at.position + 1}: the state of {account_id!a} has version "
                f"{self._stored[account_id].version}, and the log ends before it."
            )
        self._holds.check()
        if answered != self._keyed:
            raise CorruptStore(
                f"up to position {self._begin}, {self._keyed} requests had an Idempotency-Key of their own, and "
                f"{answered} of the answers to such are there: a retry of one that is gone would be recorded twice."
            )
