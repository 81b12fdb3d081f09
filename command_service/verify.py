"""Does a log still say what was written to it? Whatever in it follows from something else is worked out again."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from command_service.account import command_of, decide
from command_service.atomic import rejected_together
from command_service.event_log import EventLog
from command_service.event_log.runs import Run
from command_service.states import NO_STATE, State, Stream, states_after, stream_of
from shared.chain import START, ChainAt, extend
from shared.errors import CorruptStore
from shared.events import (
    AccountId,
    Event,
    Position,
    RecordedEvent,
    Rejected,
    UnreadableEvent,
    decode_events,
    join_events,
    read_envelope,
)
from shared.witness import Signer


async def verify(event_log: EventLog, progress: Callable[[int, int], None] = lambda _reached, _head: None) -> ChainAt:
    """Where `event_log` ends, when all of it holds. It may be in use meanwhile.

    `progress` is told the position that was reached, and the last one. Raises `CorruptStore`, which names the first
    position that does not hold. Holds a state for each account in memory. How far the relay has published is not
    checked, since every position up to the head is a good one.
    """
    await event_log.check()
    Signer(event_log.source, event_log.key)
    await _check_answers(event_log)
    # In this order: what is added meanwhile is in the log in any case.
    settled = await event_log.states_position()
    states = await _read_states(event_log)
    end, time = await event_log.end()
    walk = _Walk(event_log.source, settled, states, end, time)
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
    walk.end()
    return walk.at


async def _check_answers(event_log: EventLog) -> None:
    last = ""
    while answers := await event_log.answers(last):
        for key, answer, digest in answers:
            if answer.digest(key) != digest:
                raise CorruptStore(f"the answer to the Idempotency-Key {key!a} is not the one that was written.")
        last = answers[-1][0]


async def _read_states(event_log: EventLog) -> dict[AccountId, State]:
    states: dict[AccountId, State] = {}
    last = AccountId("")
    while found := await event_log.states(last):
        states.update(found)
        last = found[-1][0]
    return states


class _Place(NamedTuple):
    """Of a command in its request."""

    request_id: str
    number: int


def _place(event: RecordedEvent) -> _Place | None:
    """None when the command was alone. Raises `UnreadableEvent`."""
    request_id, _, number = read_envelope(event).commandid.rpartition("/")
    return _Place(request_id, int(number)) if number.isdecimal() and len(number) < 10 else None


def _is_linked(event: RecordedEvent) -> bool:
    return isinstance(event.event, Rejected) and event.event.reason == "linked-command-rejected"


class _Walk:
    """Goes through the log once, from its beginning, and folds it as the writer did."""

    def __init__(
        self, source: str, settled: Position, stored: dict[AccountId, State], end: ChainAt, end_time: str
    ) -> None:
        self.at = START
        self._source = source
        self._end = end
        self._end_time = end_time
        """What the head says of the last event."""
        self._settled = settled
        """Every event up to here is in `stored`."""
        self._stored = stored
        self._met: set[AccountId] = set()
        self._states: dict[AccountId, State] = {}
        self._time = ""
        self.request: list[tuple[Position, RecordedEvent]] = []
        """The last events, while they may be of an atomic request that was rejected: only its end tells."""
        self._request_id = ""

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
            is_rejected = isinstance(event.event, Rejected)
            place = _place(event) if is_rejected or self.request else None
        except (UnreadableEvent, ValueError) as error:
            raise CorruptStore(f"position {position}: {error}.") from error
        if self.request and place == (self._request_id, len(self.request)):
            self.request.append((position, event))
            return
        self.end_request()
        if is_rejected and place is not None and place.number == 0:
            self.request, self._request_id = [(position, event)], place.request_id
        else:
            self._fold(position, event, self._decide(event))

    def end_request(self) -> None:
        request, self.request = self.request, []
        rejections: Sequence[Event] = ()
        if any(_is_linked(event) for _, event in request):
            rejections = rejected_together([command_of(event) for _, event in request], self._stream)
        for number, (position, event) in enumerate(request):
            self._fold(position, event, rejections[number] if rejections else self._decide(event))

    def _decide(self, event: RecordedEvent) -> Event:
        command = command_of(event)
        version, account = self._stream(event.account_id)
        return decide(account, version, command, self._stream(command.to)[1] if command.to else None)

    def _stream(self, account_id: AccountId) -> Stream:
        return stream_of(self._states.get(account_id, NO_STATE))

    def _fold(self, position: Position, event: RecordedEvent, decided: Event) -> None:
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

    def end(self) -> None:
        if self._end.position == 0:
            self._check_end()
        if unmet := self._stored.keys() - self._met:
            account_id = min(unmet)
            raise CorruptStore(
                f"position {self.at.position + 1}: the state of {account_id!a} has version "
                f"{self._stored[account_id].version}, and the log ends before it."
            )
