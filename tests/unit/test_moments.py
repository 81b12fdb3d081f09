"""The moments of a chart: at equal distances, from the beginning of a range to its end, and not beyond now."""

from datetime import UTC, datetime, timedelta

import pytest

from projection_service.views.history.charts import moments
from projection_service.views.history.periods import BEGINNING, END
from shared.errors import InvalidRequest
from shared.events import written
from tests.examples import at


def test_they_are_at_equal_distances_with_both_ends() -> None:
    assert moments((at(0), at(10)), None, None, 5) == [at(second) for second in (0, 2, 4, 6, 8, 10)]
    assert moments((at(0), at(1)), None, None, 3) == [
        at(0),
        at(0).replace(".000000", ".333333"),
        at(0).replace(".000000", ".666666"),
        at(1),
    ]
    assert moments((at(7), at(7)), at(1), at(9), 2) == [at(7)] * 3
    assert len(moments(("0001-01-01T00:00:00.000000Z", at(1)), None, None, 500)) == 501


@pytest.mark.parametrize(
    ("asked", "first", "last", "ends"),
    [
        ((BEGINNING, END), at(1), at(9), (at(1), at(9))),
        ((at(3), END), at(1), at(9), (at(3), at(9))),
        ((at(30), END), at(1), at(9), (at(30), at(30))),
        ((BEGINNING, at(3)), at(1), at(9), (at(1), at(3))),
        ((BEGINNING, at(0)), at(1), at(9), (at(0), at(0))),
        ((BEGINNING, at(3)), None, None, (at(3), at(3))),
        ((at(3), END), None, None, (at(3), at(3))),
    ],
)
def test_an_open_end_is_where_the_events_end(
    asked: tuple[str, str], first: str | None, last: str | None, ends: tuple[str, str]
) -> None:
    found = moments(asked, first, last, 4)
    assert (len(found), found[0], found[-1]) == (5, *ends)


def test_where_nothing_has_happened_there_are_none() -> None:
    assert moments((BEGINNING, END), None, None, 4) == []


def test_nothing_is_told_of_the_future() -> None:
    now = datetime.now(UTC)
    found = moments((at(0), written(now + timedelta(days=1))), at(0), at(9), 10)
    assert found[0] == at(0)
    assert written(now) <= found[-1] <= written(datetime.now(UTC))
    with pytest.raises(InvalidRequest, match="from: must not be in the future"):
        moments((written(now + timedelta(days=1)), END), at(0), at(9), 10)
