"""What is kept of each event, and how it becomes the same bytes again. Pure."""

from typing import Any

from msgspec import UNSET, Raw

from shared.events import CloudEvent, RecordedEvent, encode_event, read_envelope

HistoryRow = tuple[
    int, str, int, int, str, str, str, str, str | None, int | None, str, str | None, int | None, bool | None
]
"""An event of one account: entry, account_id, version, position, type, time, event_id, command_id, traceparent; its
amount in cents, None when its data has none; its data, which is JSON as it was written. In the streams of two accounts,
the other one and its version, and whether the other one is the subject. `entry` is its place among all: twice the
position, and one more for the account that is not the subject."""


def project_history(recorded: RecordedEvent) -> list[HistoryRow]:
    """One for each account in whose stream it is. Raises ValueError when it can't be read on."""
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
    if not second:
        return [(entry, *first, *of_both, None, None, None)]
    return [(entry, *first, *of_both, *second[0], False), (entry + 1, *second[0], *of_both, *first, True)]


def encode_row(row: HistoryRow, source: str) -> bytes:
    """The event of the ledger `source` as it lies in the log, byte for byte."""
    _, account_id, version, position, type_, time, event_id, command_id, traceparent, _, data, *other = row
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
