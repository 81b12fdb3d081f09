"""What is kept of each event, and how it becomes the same bytes again. Pure."""

from msgspec import UNSET, Raw

from shared.events import CloudEvent, RecordedEvent, Value, encode_event, read_envelope


class HistoryRow(Value, frozen=True):
    """An event of one account. `amount` is in cents, None when its data has none; `data` is JSON, as it was written."""

    account_id: str
    version: int
    position: int
    type: str
    time: str
    event_id: str
    command_id: str
    traceparent: str | None
    amount: int | None
    data: str


def project_history(recorded: RecordedEvent) -> HistoryRow:
    """Raises ValueError when it can't be read on."""
    envelope = read_envelope(recorded)
    return HistoryRow(
        recorded.account_id,
        recorded.version,
        recorded.position,
        envelope.type,
        recorded.time,
        envelope.id,
        envelope.commandid,
        envelope.traceparent,
        getattr(recorded.event, "amount", None),
        str(envelope.data, "utf-8"),
    )


def encode_row(row: HistoryRow, source: str) -> bytes:
    """The event of the ledger `source` as it lies in the log, byte for byte."""
    event = CloudEvent(
        id=row.event_id,
        source=source,
        type=row.type,
        subject=row.account_id,
        time=row.time,
        sequence=f"{row.position:020d}",
        accountversion=row.version,
        commandid=row.command_id,
        traceparent=UNSET if row.traceparent is None else row.traceparent,
        data=Raw(row.data.encode()),
    )
    return encode_event(event).encode()
