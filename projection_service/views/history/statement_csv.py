"""A statement as CSV (RFC 4180): all of its lines, as they are read, however many."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Collection

import structlog
from fastapi import Request
from fastapi.responses import StreamingResponse

from projection_service.view import position_header
from projection_service.view_store import ReadRows
from projection_service.views.history.lines import (
    COLUMNS,
    COUNTERPART,
    DESCRIPTION,
    HOLD_ID,
    PIECE_LINES_MAX,
    TYPE,
    Line,
    Order,
    Place,
    Reader,
)
from shared.errors import LedgerError
from shared.events import AccountId
from shared.platform.api import weights

MEDIA_TYPE = "text/csv"
VARY = "Accept"
TEXTS = (COUNTERPART, DESCRIPTION, HOLD_ID)
"""The columns with what clients have written; metadata are JSON, and begin with a brace."""
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What begins so, a spreadsheet takes for a formula: https://owasp.org/www-community/attacks/CSV_Injection

The last four are the first four in full width.
"""
LETTER, FULL_WIDTH = "A", "\uff00"

log = structlog.get_logger()


def is_preferred(accept: str) -> bool:
    """Does `accept` (RFC 9110, section 12.5.1) want CSV more than JSON?"""
    weighed = weights(accept)
    csv, json = (
        next((weighed[one] for one in (media_type, f"{media_type.partition('/')[0]}/*", "*/*") if one in weighed), 0)
        for media_type in (MEDIA_TYPE, "application/json")
    )
    return csv > json


class Statements:
    """All that are being sent: one piece is made at a time, for all of them in turns."""

    def __init__(self, read: ReadRows) -> None:
        self._read = read
        self._turn = asyncio.Lock()

    def response(
        self, request: Request, account_id: AccountId, place: Place, order: Order, types: Collection[str]
    ) -> StreamingResponse:
        headers = {
            "Vary": VARY,
            **position_header(place.range.position),
            "Content-Disposition": f'attachment; filename="statement-{account_id.replace(":", "_")}.csv"',
        }
        lines = self._lines(request, account_id, place, order, types)
        return StreamingResponse(lines, headers=headers, media_type=f"{MEDIA_TYPE}; charset=utf-8; header=present")

    async def _lines(
        self, request: Request, account_id: AccountId, place: Place, order: Order, types: Collection[str]
    ) -> AsyncIterator[bytes]:
        """When it can't go on, the connection is broken: half a statement must not look like a whole one."""
        yield _written([COLUMNS])
        reader = Reader(self._read, account_id, place, order)
        try:
            while not reader.is_at_the_end:
                async with self._turn:
                    text = _written(
                        _harmless([line for line in await reader.next(PIECE_LINES_MAX) if line[TYPE] in types])
                    )
                    await asyncio.sleep(0)
                if text:
                    yield text
        except LedgerError as error:
            log.warning("a statement is broken off", reason=str(error))
            request.scope["state"]["abort"]()


def _written(lines: Collection[Line]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(lines)
    return text.getvalue().encode()


def _harmless(lines: Collection[Line]) -> list[Line]:
    """What may begin a formula comes before the letters, or is in full width."""
    return [
        line
        if (line[COUNTERPART] or LETTER) >= LETTER
        and LETTER <= (line[DESCRIPTION] or LETTER) < FULL_WIDTH
        and (line[HOLD_ID] or LETTER) >= LETTER
        else tuple(_as_text(value) if column in TEXTS else value for column, value in enumerate(line))
        for line in lines
    ]


def _as_text(value: str | None) -> str | None:
    return f"'{value}" if value is not None and value.startswith(FORMULA) else value
