"""Group commit: one task decides the commands of many requests and appends them in one transaction."""

import asyncio
import hashlib
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from operator import attrgetter

import msgspec
import structlog
import uuid_utils
from msgspec import UNSET, UnsetType
from msgspec.structs import replace
from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client import Counter as CounterMetric

from command_service.event_log import Answer, EventLog, KeptAnswer
from command_service.ledger.account import Hold, decide, evolve, hold_after
from command_service.ledger.atomic import rejected_together
from command_service.ledger.commands import Command, ExpireHold, PlaceHold
from command_service.ledger.outcomes import Counterpart, Outcome, decode_outcomes, outcome_of
from command_service.ledger.states import NO_STREAM, HoldKey, State, Stream, encode_account, hold_key_of, stream_of
from shared.errors import CorruptStore, IdempotencyKeyReused, LedgerError, NotReady, Overloaded
from shared.events import (
    AccountId,
    CloudEvent,
    Entry,
    Event,
    HoldId,
    Position,
    Value,
    Version,
    encode_event,
    entries,
    written,
)
from shared.platform.watermark import Watermark

COMMANDS_WAITING_MAX = 20_000
TRANSACTION_COMMANDS_MAX = 10_000
QUIET_TURNS = 3
"""One turn of the event loop writes answers, one reads the requests that follow, and one handles what takes a task."""
GATHER_SECONDS_MAX = 0.1
"""Nobody waits longer for others that come."""
FAILURE_PAUSE_SECONDS = 0.1
"""A store that is away is not asked, nor complained about, more often than this."""
PROBE_SECONDS = 1
"""After a failure, while nobody asks, so often is found out whether the store can write again."""

log = structlog.get_logger()


class WriteRequest(Value, frozen=True):
    """Commands that are recorded together or not at all.

    Those of an `atomic` one are also accepted together or not at all.
    `idempotency_key` with `fingerprint` makes a second request with the same key harmless.
    `traceparent` (W3C Trace Context) is passed on in the events.
    """

    commands: Sequence[Command | ExpireHold]
    idempotency_key: str | None = None
    fingerprint: bytes = b""
    traceparent: str | UnsetType = UNSET
    atomic: bool = False

    @property
    def size(self) -> int:
        """What it counts among the commands that wait: one without any is work, too."""
        return len(self.commands) or 1


NO_COUNTERPART = None, UNSET, UNSET
NO_ENTRY = None, 0, 0

Waiting = tuple[WriteRequest, "asyncio.Future[list[Outcome]]"]


def fingerprint(request: object) -> bytes:
    """Tells two requests with one key apart."""
    return hashlib.sha256(msgspec.json.encode(request, order="deterministic")).digest()


class LedgerWriter:
    """The only way into the event log.

    Nobody is answered before the commit is on disk. States are asked for inside the append transaction, which holds
    the lock on the head: a stale balance cannot exist.
    """

    def __init__(
        self,
        event_log: EventLog,
        head: Watermark,
        registry: CollectorRegistry,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        new_id: Callable[[], str] = lambda: str(uuid_utils.uuid7()),
    ) -> None:
        self._event_log = event_log
        self._head = head
        self._now = now
        self._new_id = new_id
        self._waiting: deque[Waiting] = deque()
        self._commands_waiting = 0
        self._wake = asyncio.Event()
        self._events = CounterMetric("ledger_events", "Events appended, by type.", ["type"], registry=registry)
        self._commits = Histogram("ledger_commit_seconds", "Time of one append transaction.", registry=registry)
        self._failure = ""
        """Why the last append failed; empty when it did not."""
        self._ended: LedgerError | None = None
        """Why nothing is appended any more."""
        self._failures = CounterMetric(
            "ledger_append_failures",
            "Append transactions that failed, each second's probe after it too.",
            registry=registry,
        )
        Gauge("ledger_appending", "Did the last append succeed? 1 or 0.", registry=registry).set_function(
            lambda: not self._failure
        )
        Gauge("ledger_commands_waiting", "Commands not yet decided.", registry=registry).set_function(
            lambda: self._commands_waiting
        )
        Gauge("ledger_head_position", "Position of the last event.", registry=registry).set_function(
            lambda: head.position
        )

    def write(self, request: WriteRequest) -> "asyncio.Future[list[Outcome]]":
        """Decide and record the request's commands; one outcome for each that leads to an event, in order.

        Raises `Overloaded` when nothing will be recorded. What is waited for raises `StoreUnavailable` when nothing was
        recorded, `IdempotencyKeyReused` when the key belongs to another request, `OutcomeUnknown` when the commit
        failed half-way.
        """
        if self._ended:
            raise self._ended
        size = request.size
        if self._commands_waiting and self._commands_waiting + size > COMMANDS_WAITING_MAX:
            raise Overloaded(f"{self._commands_waiting} commands are waiting. Try again later.")
        outcomes: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, outcomes))
        self._commands_waiting += size
        self._wake.set()
        return outcomes

    def check_ready(self) -> None:
        """Raises `NotReady` with the reason when the last append failed."""
        if reason := str(self._ended or self._failure):
            raise NotReady(f"no command can be recorded: {reason}")

    async def run(self) -> None:
        """Append what is waiting, for ever. A failure that is not the store's is a bug, and ends the service; so does
        a store that is corrupt."""
        while True:
            await self._wait()
            await self._gather()
            # Of nothing, after a failure: it writes as much as shows whether the store can.
            batch = self._take()
            try:
                with self._commits.time():
                    await self._append(batch)
            except CorruptStore as error:
                self._end(batch, error)
                raise
            except LedgerError as error:
                self._failures.inc()
                if batch or str(error) != self._failure:
                    log.warning("append failed", reason=str(error), requests=len(batch))
                self._failure = str(error)
                _fail(batch, error)
                await asyncio.sleep(FAILURE_PAUSE_SECONDS)
            except BaseException as error:
                self._end(batch, LedgerError(f"the command service stopped: {error!r}"))
                raise
            else:
                if self._failure:
                    log.info("appends succeed again")
                self._failure = ""

    def _end(self, batch: list[Waiting], error: LedgerError) -> None:
        self._ended = error
        _fail([*batch, *self._waiting], error)

    async def _wait(self) -> None:
        """For commands; after a failure no longer than `PROBE_SECONDS`."""
        if not self._failure:
            await self._wake.wait()
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(PROBE_SECONDS):
                await self._wake.wait()

    async def _gather(self) -> None:
        """Let in what the event loop has at hand: a transaction costs as much as some twenty commands in it."""
        quiet_turns, deadline = 0, time.monotonic() + GATHER_SECONDS_MAX
        while quiet_turns < QUIET_TURNS and self._commands_waiting < TRANSACTION_COMMANDS_MAX:
            if time.monotonic() > deadline:
                break
            before = self._commands_waiting
            await asyncio.sleep(0)
            quiet_turns = quiet_turns + 1 if self._commands_waiting == before else 0

    def _take(self) -> list[Waiting]:
        batch: list[Waiting] = []
        commands = 0
        while self._waiting:
            size = self._waiting[0][0].size
            if batch and commands + size > TRANSACTION_COMMANDS_MAX:
                break
            batch.append(self._waiting.popleft())
            commands += size
        self._commands_waiting -= commands
        if not self._waiting:
            self._wake.clear()
        return batch

    async def _append(self, batch: list[Waiting]) -> None:
        commands = [command for request, _ in batch for command in request.commands]
        account_ids = set(filter(None, map(attrgetter("account_id"), commands)))
        holds: set[HoldKey] = set()
        kinds: set[type[Command | ExpireHold]] = set(map(type, commands))
        if any(kind.to is not None for kind in kinds):
            account_ids.update(filter(None, map(attrgetter("to"), commands)))
        if any(kind.names_hold for kind in kinds):
            holds = {hold_key_of(command) for command in commands if command.hold_id is not None}
        keys = {request.idempotency_key for request, _ in batch if request.idempotency_key is not None}
        async with self._event_log.append(account_ids, keys, holds) as append:
            # Never before the last one: "as of" a time is then a position. The clock may have gone back.
            time = max(self._timestamp(), append.time)
            decided = _Decided(
                self._event_log.source, append.head.position, append.states, append.holds, time, self._new_id
            )
            kept = append.answers
            retried = {
                key
                for request, _ in batch
                if (key := request.idempotency_key) is not None
                and key in kept
                and kept[key].fingerprint == request.fingerprint
            }
            outcomes = await append.outcomes(retried) if retried else {}
            new_answers: dict[str, Answer] = {}
            results: list[list[Outcome] | LedgerError] = []
            for request, _ in batch:
                key = request.idempotency_key
                if key is None:
                    results.append(decided.add(request))
                elif key in kept:
                    results.append(_told_again(request, key, kept[key], outcomes.get(key)))
                elif key not in new_answers:
                    results.append(added := decided.add(request))
                    new_answers[key] = Answer(request.fingerprint, msgspec.json.encode(added))
                elif new_answers[key].fingerprint == request.fingerprint:
                    results.append(decode_outcomes(new_answers[key].outcomes))
                else:
                    results.append(_reused(key))
            # Without events too: an answer that was only read may be of a commit that is not safe yet, and whoever
            # hears it must not lose it. A commit after it waits for both.
            end = time if decided.events else append.time
            await append.commit(decided.events, end, decided.states(), new_answers, decided.holds)
        # The commit is on disk from here on: wake the relay and the feed, and answer.
        self._head.advance(Position(append.head.position + len(decided.events)))
        for event_type, number in Counter(decided.types).items():
            self._events.labels(event_type).inc(number)
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():  # the client went away
                continue
            if isinstance(result, LedgerError):
                future.set_exception(result)
            else:
                future.set_result(result)

    def _timestamp(self) -> str:
        return written(self._now())


class _Decided:
    """The consecutive events of one transaction, as they are decided."""

    def __init__(
        self,
        source: str,
        head: Position,
        states: Mapping[AccountId, State],
        holds: Mapping[HoldKey, Hold],
        time: str,
        new_id: Callable[[], str],
    ) -> None:
        self._source = source
        self._position = head
        self._time = time
        self._new_id = new_id
        self._streams = {account_id: stream_of(state) for account_id, state in states.items()}
        self._changed: dict[AccountId, Stream] = {}
        self._open_holds = holds
        self.holds: dict[HoldKey, Hold | None] = {}
        """Those that an event has changed; None for one that has ended."""
        self.events: list[bytes] = []
        self.types: list[str] = []

    def states(self) -> dict[AccountId, State]:
        """Of the accounts that an event went to."""
        return {
            account_id: State(version, encode_account(account))
            for account_id, (version, account) in self._changed.items()
        }

    def add(self, request: WriteRequest) -> list[Outcome]:
        request_id = request.idempotency_key or self._new_id()
        # A key may have a slash, and so look as if it were of a batch's command.
        is_numbered = len(request.commands) > 1 or "/" in request_id
        outcomes: list[Outcome] = []
        commands: Sequence[Command | ExpireHold] = request.commands
        rejections: Sequence[Event] = ()
        if request.atomic:
            commands = [self._with_hold_id(command) for command in commands]
            rejections = rejected_together(commands, self._time, self._stream, self._hold)
        # The one loop that every command goes through: no calls in it that can be done without, and no attributes.
        source, time, new_id, streams = self._source, self._time, self._new_id, self._streams
        changed, add_event, add_type = self._changed, self.events.append, self.types.append
        add_outcome, traceparent, position = outcomes.append, request.traceparent, self._position
        for number, command in enumerate(commands):
            account_id = AccountId(new_id()) if command.account_id is None else command.account_id
            last_version, account = streams.get(account_id, NO_STREAM)
            to = command.to
            hold = hold_key = None
            if command.names_hold:
                command = self._with_hold_id(command)
                hold_key = hold_key_of(command)
                hold = self._hold(hold_key)
            event = (
                rejections[number]
                if rejections
                else decide(account, last_version, command, time, streams.get(to, NO_STREAM)[1] if to else None, hold)
            )
            if event is None:
                continue
            moved = entries(account_id, event)
            _, change, change_of_held = moved[0] if moved else NO_ENTRY
            account = evolve(account, event, change, change_of_held)
            if hold_key is not None and (after := hold_after(hold, event)) is not hold:
                self.holds[hold_key] = after
            version: Version = last_version + 1  # type: ignore[assignment]
            position += 1  # type: ignore[assignment]
            event_type, event_id = event.type, new_id()
            streams[account_id] = changed[account_id] = version, account
            counterpart, named, numbered = self._move(event, moved[1]) if len(moved) > 1 else NO_COUNTERPART
            add_event(
                encode_event(
                    CloudEvent(
                        id=event_id,
                        source=source,
                        type=event_type,
                        subject=account_id,
                        time=time,
                        sequence=str(position).zfill(20),
                        accountversion=version,
                        counterpart=named,
                        counterpartversion=numbered,
                        commandid=f"{request_id}/{number}" if is_numbered else request_id,
                        traceparent=traceparent,
                        data=event,
                    )
                )
            )
            add_type(event_type)
            add_outcome(outcome_of(event, event_id, account_id, position, version, account, counterpart))
        self._position = position
        return outcomes

    def _stream(self, account_id: AccountId) -> Stream:
        return self._streams.get(account_id, NO_STREAM)

    def _hold(self, key: HoldKey) -> Hold | None:
        return self.holds[key] if key in self.holds else self._open_holds.get(key)

    def _with_hold_id(self, command: Command | ExpireHold) -> Command | ExpireHold:
        if isinstance(command, PlaceHold) and command.hold_id is None:
            return replace(command, hold_id=HoldId(self._new_id()))
        return command

    def _move(self, event: Event, entry: Entry) -> tuple[Counterpart, AccountId, Version]:
        """What `event` does to its other account."""
        account_id, change, change_of_held = entry
        last_version, account = self._streams[account_id]
        account = evolve(account, event, change, change_of_held)
        assert account is not None
        version: Version = last_version + 1  # type: ignore[assignment]
        self._streams[account_id] = self._changed[account_id] = version, account
        return Counterpart(account_id, account.balance, version), account_id, version


def _told_again(
    request: WriteRequest, key: str, kept: KeptAnswer, outcomes: bytes | None
) -> list[Outcome] | LedgerError:
    """What a request is answered whose key has an answer. One that is damaged is nobody else's matter."""
    if kept.is_of(key):
        if kept.fingerprint != request.fingerprint:
            return _reused(key)
        if outcomes is not None and Answer(kept.fingerprint, outcomes).digest(key) == kept.digest:
            return decode_outcomes(outcomes)
    error = CorruptStore(
        f"the answer that is kept for the Idempotency-Key {key!a} is not the one that was written, and nothing was "
        "recorded now. Put a good copy of the log in its place."
    )
    log.error("the answer that is kept for an Idempotency-Key is damaged: its client was told which")
    return error


def _reused(key: str) -> IdempotencyKeyReused:
    return IdempotencyKeyReused(f"{key!r} belongs to another request. Use a new key for a new one.")


def _fail(batch: list[Waiting], error: LedgerError) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
