"""`make abuse` names limits that there are."""

import pytest

from tests.abuse.abuses import ABUSES, LIMITS


@pytest.mark.parametrize("name", sorted({name for abuse in ABUSES for name in abuse.limits.split(", ")}))
def test_a_limit_in_the_table_is_one_of_the_code(name: str) -> None:
    assert isinstance(LIMITS[name], int | float) if name.isupper() else name not in LIMITS
