"""What is kept of each event, and how it becomes the same bytes again. Pure."""

from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import UNSET, Raw

from projection_service.views.accounts.fold import AccountView
from projection_service.views.reserve.fold import ReservesAfter
from shared.events import (
    AccountCreated,
    AccountId,
    Asset,
    CloudEvent,
    HoldId,
    HoldPlaced,
    Position,
    RecordedEvent,
    Status,
    encode_event,
    read_envelope,
)

KeptState = tuple[int | None, int | None, int | None, Status | None, str | None, str | None]
"""An account after an event: balance, held, overdraft limit, status, and when it was last updated. All are None where
there is no account; and each of the last four where it is what most have: 0, 0, open, the event's time. Then the
reserve of its asset, where the event has changed it."""
HistoryRow = tuple[
    int, str, int, int, str, str, str, str, str | None, int | None, str, str | None, int | None, bool | None, *KeptState
]
"""An event of one account: entry, account_id, version, position, type, time, event_id, command_id, traceparent; its
amount in cents, None when its data has none; its data, which is JSON as it was written. In the streams of two accounts,
the other one and its version, and whether the other one is the subject. Last, the account after
it. `entry` is its place among all: twice the position, and one more for the account that is not the subject."""
HoldRow = tuple[AccountId, HoldId, Position, Position | None, int]
"""A hold of an account: where it was placed, where it ended, None while it is open, and its `fork`."""
NO_ACCOUNT: KeptState = (None, None, None, None, None, None)


def project_history(
    recorded: RecordedEvent, states: Iterator[AccountView | None], reserve: int | None
) -> list[HistoryRow]:
    """One for each account in whose stream it is; `states` has them after it, and `reserve` is what it makes of that.

    Raises ValueError when it can't be read on.
    """
    envelope = read_envelope(recorded)
    of_both = (
        recorded.position,
        envelope.type,
        recorded.time,
        envelope.id,
        envelope.commandid,
        envelope.traceparent,
        getattr(recorded.event, "amount", None),
        str(envelope.data, "utf-8"),
    )
    entry = 2 * recorded.position
    first, *second = recorded.streams()
    state = _kept(next(states), recorded.time, None if reserve is None else str(reserve))
    if not second:
        return [(entry, *first, *of_both, None, None, None, *state)]
    of_second = _kept(next(states), recorded.time, None)
    return [
        (entry, *first, *of_both, *second[0], False, *state),
        (entry + 1, *second[0], *of_both, *first, True, *of_second),
    ]


def _kept(account: AccountView | None, time: str, reserve: str | None) -> KeptState:
    if account is None:
        return NO_ACCOUNT
    return (
        account.balance,
        account.held or None,
        account.overdraft_limit or None,
        None if account.status == "open" else account.status,
        None if account.last_updated == time else account.last_updated,
        reserve,
    )


def reserve_runs(after: ReservesAfter, first: Position) -> set[tuple[Asset, Position, Position]]:
    """Of each reserve that a run of events from position `first` on changes, where it does so last, and that `first`.
    Of a new one where that begins, too."""
    changed = {asset: position for asset, position, _, _ in after}
    begun = {(asset, position, position) for asset, position, _, time in after if time is None}
    return begun | {
        (asset, position, first) for asset, position in changed.items() if (asset, position, position) not in begun
    }


OPEN_FORK = 2**62
"""That of a hold that is open: no end is so far away that another position would be it."""


def fork(placed: Position, ended: Position) -> int:
    """Of the positions from where a hold was placed to where it ended, the one that the highest power of two divides.

    As in the relational interval tree (Kriegel, Pötke and Seidl, VLDB 2000), which finds those that were open then
    without a look at any other.
    """
    height = ((placed - 1) ^ ended).bit_length() - 1
    return ended >> height << height


def forks(at: Position, reached: Position) -> list[int]:
    """Those of all holds that were open at `at` and had ended at `reached`. Others at a fork up to `at` had ended at
    it, others at one after it were placed after it."""
    return [(at >> height | 1) << height for height in range(reached.bit_length())]


def hold_rows(events: Iterable[RecordedEvent], placed: dict[tuple[AccountId, HoldId], Position]) -> list[HoldRow]:
    """What `events` of holds make of them; `placed` has where those were placed that were open before."""
    rows: dict[Position, HoldRow] = {}
    for recorded in events:
        key = recorded.account_id, recorded.event.hold_id  # type: ignore[union-attr]
        if type(recorded.event) is HoldPlaced:
            placed[key] = recorded.position
            rows[recorded.position] = (*key, recorded.position, None, OPEN_FORK)
        elif begin := placed.pop(key, None):
            rows[begin] = (*key, begin, recorded.position, fork(begin, recorded.position))
    return list(rows.values())


def created(events: Iterable[RecordedEvent]) -> Iterator[tuple[AccountId, str, Asset, Position]]:
    """The accounts that `events` create: name, asset, and the event's position."""
    for recorded in events:
        event = recorded.event
        if type(event) is AccountCreated:
            yield recorded.account_id, event.name, event.asset, recorded.position


def encode_row(row: HistoryRow, source: str) -> bytes:
    """The event of the ledger `source` as it lies in the log, byte for byte."""
    _, account_id, version, position, type_, time, event_id, command_id, traceparent, _, data, *other = row[:14]
    subject: tuple[Any, Any] = account_id, version
    counterpart: tuple[Any, Any] = UNSET, UNSET
    match other:
        case other_id, other_version, True | 1:
            subject, counterpart = (other_id, other_version), subject
        case str() as other_id, other_version, _:
            counterpart = other_id, other_version
    event = CloudEvent(
        id=event_id,
        source=source,
        type=type_,
        subject=subject[0],
        time=time,
        sequence=f"{position:020d}",
        accountversion=subject[1],
        counterpart=counterpart[0],
        counterpartversion=counterpart[1],
        commandid=command_id,
        traceparent=UNSET if traceparent is None else traceparent,
        data=Raw(data.encode()),
    )
    return encode_event(event)
