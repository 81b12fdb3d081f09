"""The history in SQL, and what a run of events adds to it."""

from collections.abc import Iterator, Sequence

from projection_service.view_store import Change, ImpossibleEvents, Read, ReadRows, Write, one_row
from projection_service.views.history.fold import HistoryRow, encode_row, project_history
from shared.events import AccountId, Position, RecordedEvent, Version

# Limited before it is joined: an account may have millions.
READ_HISTORY = Read.in_both("""
    SELECT checkpoint.position, source, page.*
    FROM checkpoint LEFT JOIN (
        SELECT account_id, version, position, type, time, event_id, command_id, traceparent, amount, data,
            other_account_id, other_version, other_is_subject
        FROM history WHERE account_id = $1 AND version > $2 AND position <= $3
        ORDER BY version LIMIT $4
    ) AS page ON true
    ORDER BY page.version
""")
ADD_HISTORY = Write(
    "account_id text, version bigint, position bigint, type text, time text, event_id text, command_id text, "
    "traceparent text, amount bigint, data json, other_account_id text, other_version bigint, other_is_subject boolean",
    """
    INSERT INTO history (
        account_id, version, position, type, time, event_id, command_id, traceparent, amount, data,
        other_account_id, other_version, other_is_subject
    ) SELECT * FROM changed WHERE true
    """,
)


async def read_history(
    read: ReadRows, account_id: AccountId, after: Version, events_max: int, up_to: Position
) -> tuple[list[bytes], Position]:
    """The account's events after version `after` and up to position `up_to`, encoded, and the position at which that
    holds, read at one moment."""
    rows = await read(READ_HISTORY, account_id, after, up_to, events_max)
    position, source, first, *_ = one_row(rows)
    if first is None:
        return [], Position(position)
    return [encode_row(tuple(row[2:]), source) for row in rows], Position(position)


async def changes(read: ReadRows, events: Sequence[RecordedEvent]) -> list[Change]:
    return [Change(ADD_HISTORY, _rows(events))]


def _rows(events: Sequence[RecordedEvent]) -> Iterator[HistoryRow]:
    """One by one, as they are written: a page of events makes some megabytes of them."""
    try:
        for event in events:
            yield from project_history(event)
    except ValueError as error:
        raise ImpossibleEvents(f"it can't be kept: {error}") from error
