"""The reserve in SQL, and what a run of events changes there."""

from collections.abc import Sequence
from functools import reduce

from projection_service.view_store import Change, Read, ReadRows, Write, one_row
from projection_service.views.reserve.fold import ReserveView, project_reserve
from shared.events import Position, RecordedEvent

READ_RESERVE = Read.in_both("SELECT position, amount, last_updated FROM checkpoint, reserve")
PUT_RESERVE = Write(
    "amount numeric, last_updated text",
    "UPDATE reserve SET amount = changed.amount, last_updated = changed.last_updated FROM changed",
)


async def read_reserve(read: ReadRows) -> tuple[ReserveView, Position]:
    """The view and the position at which it holds, read at one moment."""
    position, amount, last_updated = one_row(await read(READ_RESERVE))
    return ReserveView(int(amount), last_updated), Position(position)


async def changes(read: ReadRows, events: Sequence[RecordedEvent]) -> list[Change]:
    before, _ = await read_reserve(read)
    reserve = reduce(project_reserve, events, before)
    return [Change(PUT_RESERVE, [(str(reserve.amount), reserve.last_updated)])]
