"""What a client calls a time: moments, days, months and years, to the last one that there is."""

import pytest

from projection_service.views.history.periods import BEGINNING, END, begin_and_end, read_period
from shared.errors import InvalidRequest


@pytest.mark.parametrize(
    ("text", "begin", "end"),
    [
        ("2026", "2026-01-01", "2027-01-01"),
        ("2026-10", "2026-10-01", "2026-11-01"),
        ("2026-12", "2026-12-01", "2027-01-01"),
        ("2026-10-05", "2026-10-05", "2026-10-06"),
        ("2026-12-31", "2026-12-31", "2027-01-01"),
        ("2024-02", "2024-02-01", "2024-03-01"),
        ("2024-02-28", "2024-02-28", "2024-02-29"),
        ("2024-02-29", "2024-02-29", "2024-03-01"),
        ("2025-02-28", "2025-02-28", "2025-03-01"),
        ("2000-02-29", "2000-02-29", "2000-03-01"),
        ("0001", "0001-01-01", "0002-01-01"),
        ("0001-01-01", "0001-01-01", "0001-01-02"),
        ("9999", "9999-01-01", None),
        ("9999-11", "9999-11-01", "9999-12-01"),
        ("9999-12", "9999-12-01", None),
        ("9999-12-30", "9999-12-30", "9999-12-31"),
        ("9999-12-31", "9999-12-31", None),
    ],
)
def test_a_day_a_month_and_a_year_begin_and_end(text: str, begin: str, end: str | None) -> None:
    midnight = "T00:00:00.000000Z"
    assert begin_and_end(text) == (begin + midnight, end + midnight if end else END)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-10-05T12:00:00Z", "2026-10-05T12:00:00.000000Z"),
        ("2026-10-05T00:30:00.25+01:00", "2026-10-04T23:30:00.250000Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"),
    ],
)
def test_a_moment_is_its_own_beginning_and_end(text: str, moment: str) -> None:
    assert begin_and_end(text) == (moment, moment)
    assert BEGINNING < moment < END


NOT_TIMES = (
    *(
        "",
        "0000",
        "0000-01",
        "0000-01-01",
        "2025-02-29",
        "1900-02-29",
        "2026-00",
        "2026-13",
        "2026-04-31",
        "2026-10-00",
    ),
    *(
        "2026-1",
        "26",
        "20266",
        "2026-10-5",
        "2026-W01",
        "2026-001",
        "20261005",
        "2026 ",
        "-2026",
        "2026\n",
        "now",
        "\0",
    ),
    *("2026-10-05T12:00:00", "2026-10-05T25:00:00Z", "0001-01-01T00:00:00+00:01", "\uff12\uff10\uff12\uff16"),
)


@pytest.mark.parametrize("text", NOT_TIMES)
def test_anything_else_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        begin_and_end(text)


def test_a_range_is_from_the_beginning_of_the_one_to_the_end_of_the_other() -> None:
    assert read_period("2026-10", "2026-10") == begin_and_end("2026-10")
    assert read_period("2026-10-05", None) == ("2026-10-05T00:00:00.000000Z", END)
    assert read_period(None, "2026") == (BEGINNING, "2027-01-01T00:00:00.000000Z")
    assert read_period(None, None) == (BEGINNING, END)
    moment = "2026-10-05T12:00:00.000000Z"
    assert read_period(moment, moment) == (moment, moment)
    for from_, to in (("2026-10", "2026-09"), ("2027", "2026-12-31"), (moment, "2026-10-05T11:59:59.999999Z")):
        with pytest.raises(InvalidRequest, match="to: must not be before `from`"):
            read_period(from_, to)
