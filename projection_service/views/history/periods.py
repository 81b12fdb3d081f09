"""What a client calls a time: a moment, or a day, a month or a year of UTC."""

import re
from datetime import date, timedelta
from typing import Annotated

from fastapi import Query

from shared.errors import InvalidRequest
from shared.events import TIME_CHARS_MAX, TIME_RULE, as_written

PERIOD_RULE = f"{TIME_RULE}; or a day, a month or a year of UTC, as in 2026-10-05, 2026-10 or 2026"
BEGINNING = ""
"""Is before every time of an event."""
END = "9999-12-31T24"
"""Is after every time of an event."""

From = Annotated[
    str | None,
    Query(alias="from", max_length=TIME_CHARS_MAX, description=f"Events of its beginning and later: {PERIOD_RULE}."),
]
To = Annotated[
    str | None, Query(max_length=TIME_CHARS_MAX, description="Events before its end. As `from`, or a moment itself.")
]

_is_period = re.compile(r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2}))?)?").fullmatch


def read_period(from_: str | None, to: str | None) -> tuple[str, str]:
    """The first moment of a range, and the first one after it. Raises `InvalidRequest`."""
    ends = []
    for field, text in ("from", from_), ("to", to):
        try:
            ends.append(begin_and_end(text) if text is not None else (BEGINNING, END))
        except ValueError:
            raise InvalidRequest([(field, f"must be {PERIOD_RULE}; in a query, + is written %2B")]) from None
    (begin, _), (last, end) = ends
    # The same moment twice is an empty range, and a month with the one before it a mistake.
    if end < begin or last < end == begin:
        raise InvalidRequest([("to", f"must not be before `from`, which begins at {begin}")])
    return begin, end


def begin_and_end(text: str) -> tuple[str, str]:
    """The first moment of what `text` names, and the first one after it; both are a moment itself, if it names one.

    As events have their times, but for `END`. Raises ValueError.
    """
    if not (period := _is_period(text)):
        moment = as_written(text)
        return moment, moment
    year, month, day = period.groups()
    begin = date(int(year), int(month or "1"), int(day or "1"))
    try:
        return _midnight(begin), _midnight(_after(begin, month, day))
    except (ValueError, OverflowError):
        return _midnight(begin), END  # in the year 10000


def _after(begin: date, month: str | None, day: str | None) -> date:
    if day is not None:
        return begin + timedelta(days=1)
    if month is not None and begin.month < 12:
        return begin.replace(month=begin.month + 1)
    return begin.replace(year=begin.year + 1, month=1)


def _midnight(day: date) -> str:
    return f"{day.isoformat()}T00:00:00.000000Z"
