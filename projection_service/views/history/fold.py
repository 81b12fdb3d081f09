"""What is kept of each event, and how it becomes the same bytes again. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import UNSET, Raw

from projection_service.views.accounts.fold import AccountView
from projection_service.views.reserve.fold import ReservesAfter
from shared.events import (
    USD,
    AccountCreated,
    AccountId,
    Asset,
    CloudEvent,
    HoldId,
    HoldPlaced,
    Position,
    RecordedEvent,
    Status,
    Version,
    encode_event,
    read_envelope,
)

KeptState = tuple[int | None, int | None, int | None, Status | None, str | None, str | None]
"""An account after an event: balance, held, overdraft limit, status, and when it was last updated. Each of the last
four is None where it is what most have: 0, 0, open, the event's time; and all are where there is no account. Then the
reserve of its asset, where the event has changed it."""
HistoryRow = tuple[
    int, str, int, int, str, str, str, str, str | None, int | None, str, str | None, int | None, *KeptState
]
"""An event of one account: entry, account_id, version, position, type, time, event_id, command_id, traceparent; its
amount in cents, None when its data has none; its data, which is JSON as it was written. In the streams of two accounts,
the other one and its version. Last, the account after it. `entry` is its place among all: twice the position, and one
more for the account that is not the subject."""
HoldRow = tuple[AccountId, HoldId, Position, Position | None, int]
"""A hold of an account: where it was placed, where it ended, None while it is open, and its `fork`."""
_InStream = tuple[AccountId, Version, AccountId | None, Version | None]
NO_ACCOUNT = AccountView(AccountId(""), "", USD, None, 0, 0, "open", Version(0), None)  # type: ignore[arg-type]
"""In place of one that is not there: all that is kept of it is NULL."""


def history_rows(
    events: Iterable[RecordedEvent], states: Iterator[AccountView | None], reserves: Mapping[Position, int]
) -> Iterator[HistoryRow]:
    """One for each account in whose stream an event is; `states` has them after it, and `reserves`, by the position,
    what it makes of that of their asset.

    Raises ValueError when one can't be read on.
    """
    for recorded in events:
        envelope, position, time = read_envelope(recorded), recorded.position, recorded.time
        amount, data = getattr(recorded.event, "amount", None), str(envelope.data, "utf-8")
        reserve = reserves.get(position)
        entry, after = 2 * position, None if reserve is None else str(reserve)
        if recorded.counterpart is None:
            streams: Sequence[_InStream] = ((recorded.account_id, recorded.version, None, None),)
        else:
            first, second = recorded.streams()
            streams = (*first, *second), (*second, *first)
        for account_id, version, other_id, other_version in streams:
            account = next(states) or NO_ACCOUNT
            status, last_updated = account.status, account.last_updated
            # Written out: a row that is put together of parts takes a fifth longer.
            yield (
                entry,
                account_id,
                version,
                position,
                envelope.type,
                time,
                envelope.id,
                envelope.commandid,
                envelope.traceparent,
                amount,
                data,
                other_id,
                other_version,
                account.balance,
                account.held or None,
                account.overdraft_limit or None,
                None if status == "open" else status,
                None if last_updated == time else last_updated,
                after,
            )
            entry, after = entry + 1, None


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


def encode_row(row: Sequence[Any], source: str) -> bytes:
    """The event of the ledger `source` as it lies in the log, byte for byte. `row` is a `HistoryRow`, or what the table
    makes of it."""
    entry, account_id, version, position, type_, time, event_id, command_id, traceparent, _, data, *other = row[:13]
    subject: tuple[Any, Any] = account_id, version
    counterpart: tuple[Any, Any] = tuple(other) if other[0] else (UNSET, UNSET)
    if entry % 2:
        subject, counterpart = counterpart, subject
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
        traceparent=traceparent or UNSET,
        data=Raw(data.encode()),
    )
    return encode_event(event)
