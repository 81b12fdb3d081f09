"""What is kept of each event, and how it becomes the same bytes again. Pure."""

from msgspec import UNSET, Raw

from shared.events import CloudEvent, RecordedEvent, encode_event, read_envelope

HistoryRow = tuple[str, int, int, str, str, str, str, str | None, int | None, str]
"""An event of one account: account_id, version, position, type, time, event_id, command_id, traceparent; its amount in
cents, None when its data has none; its data, which is JSON as it was written."""


def project_history(recorded: RecordedEvent) -> HistoryRow:
    """Raises ValueError when it can't be read on."""
    envelope = read_envelope(recorded)
    return (
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
    account_id, version, position, type_, time, event_id, command_id, traceparent, _, data = row
    event = CloudEvent(
        id=event_id,
        source=source,
        type=type_,
        subject=account_id,
        time=time,
        sequence=f"{position:020d}",
        accountversion=version,
        commandid=command_id,
        traceparent=UNSET if traceparent is None else traceparent,
        data=Raw(data.encode()),
    )
    return encode_event(event)
