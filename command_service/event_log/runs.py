"""The form of the log in both stores: runs of consecutive events, several to a row. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from shared.chain import ChainAt, extend
from shared.errors import CorruptStore
from shared.events import Position, Value

RUN_EVENTS_MAX = 128
"""Compressed together, so many have 22 bytes each; 32 have 29, and a single one 270 (docs/performance.md)."""
RUN_BYTES_MAX = 64 * 1024
"""Who wants one event of a run reads all of it."""


class Run(Value, frozen=True):
    """Encoded events, and the position and the chain of the last of them."""

    position: Position
    chain: bytes
    events: Sequence[bytes]


class Page(Value, frozen=True):
    """Encoded events as they follow each other in the log, and where it stands after them.

    `head` is the position of the last event in the log, when that was read: not before the page itself.
    """

    events: list[bytes]
    end: ChainAt
    head: Position


class PackedPage(Value, frozen=True):
    """As `Page`, with the events as a batch in the CloudEvents JSON batch format, compressed with zstd."""

    body: bytes
    end: ChainAt
    head: Position


def cut(head: ChainAt, events: Sequence[bytes]) -> list[Run]:
    """The runs of `events`, which follow `head`: full ones, and a last one with what is left."""
    runs: list[Run] = []
    chain = head.chain
    for begin, end in pairwise(_ends(events)):
        chain = extend(chain, events[begin:end])
        runs.append(Run(Position(head.position + end), chain, events[begin:end]))
    return runs


def _ends(events: Sequence[bytes]) -> Iterator[int]:
    """0, and how many events there are up to the end of each run."""
    yield 0
    begin, size = 0, 0
    for number, event in enumerate(events):
        size += len(event)
        if (size > RUN_BYTES_MAX and number > begin) or number - begin == RUN_EVENTS_MAX:
            yield number
            begin, size = number, len(event)
    if events:
        yield len(events)


def page(
    before: ChainAt, runs: Iterable[Run], after: Position, events_max: int, bytes_max: int
) -> tuple[list[bytes], ChainAt]:
    """Events from position `after` + 1 on, up to a page's limits, out of `runs`, which follow `before`.

    Of those that `bytes_max` cuts short it ends where a run does, if it can: only there the chain is at hand.
    Raises `CorruptStore`.
    """
    events: list[bytes] = []
    end = before
    for run in runs:
        known = max(0, after - end.position)
        fresh = _fitting(run.events[known : known + events_max], bytes_max, at_least=0 if events else 1)
        taken = known + len(fresh)
        if taken < len(run.events):
            if not events or len(fresh) == events_max:
                try:
                    end = within(end, run, taken)
                except CorruptStore:
                    if events:
                        break  # whoever asks for it first is told
                    raise
                events += fresh
            break
        events += fresh
        events_max, bytes_max = events_max - len(fresh), bytes_max - sum(map(len, fresh))
        end = ChainAt(run.position, run.chain)
    return events, end


def within(before: ChainAt, run: Run, events: int) -> ChainAt:
    """After so many events of `run`, which follows `before`.

    Raises `CorruptStore` unless all of them lead to its chain: nothing is signed that was changed in the store.
    """
    chain = extend(before.chain, run.events[:events])
    if extend(chain, run.events[events:]) != run.chain:
        raise CorruptStore(
            f"the events up to position {run.position} are not those that the log's chain stands for. "
            "Put a good copy of the log in its place."
        )
    return ChainAt(Position(before.position + events), chain)


def _fitting(events: Sequence[bytes], bytes_max: int, at_least: int) -> Sequence[bytes]:
    for number, event in enumerate(events):
        bytes_max -= len(event)
        if bytes_max < 0 and number >= at_least:
            return events[:number]
    return events
