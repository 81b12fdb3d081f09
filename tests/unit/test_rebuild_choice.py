"""Which views are built, and which take the place of those in use."""

from collections.abc import Sequence

import pytest

from projection_service.rebuild.choice import Choice, choose
from projection_service.view_store import OtherViews
from projection_service.view_store.kept import encode_numbers, last_number, numbers_in
from projection_service.views import VIEWS

NEEDY = {
    name: VIEWS[name]._replace(needs=needs)
    for name, needs in {"accounts": [], "reserve": [], "history": ["accounts"], "holds": []}.items()
}
"""Whatever they really need."""
NUMBERS = {name: last_number(name, "sqlite") for name in NEEDY}


def chosen(in_use: dict[str, int], *asked: str) -> Choice:
    return choose(encode_numbers(in_use), asked, NEEDY, "the file", "sqlite")


@pytest.mark.parametrize(
    ("missing", "asked", "built", "switched"),
    [
        ([], ["holds"], ["holds"], ["holds"]),
        ([], ["history"], ["accounts", "history"], ["history"]),
        (["history"], ["history"], ["accounts", "history"], ["history"]),
        (["accounts", "history"], ["history"], ["accounts", "history"], ["accounts", "history"]),
        ([], ["accounts"], ["accounts", "history"], ["accounts", "history"]),
        (["history"], ["accounts"], ["accounts"], ["accounts"]),
        ([], ["holds", "reserve"], ["reserve", "holds"], ["reserve", "holds"]),
    ],
)
def test_what_is_made_of_a_view_goes_with_it_and_what_it_is_made_of_stays(
    missing: Sequence[str], asked: Sequence[str], built: Sequence[str], switched: Sequence[str]
) -> None:
    in_use = {name: number for name, number in NUMBERS.items() if name not in missing}
    choice = chosen(in_use, *asked)
    assert [view.name for view in choice.built] == built
    assert choice.switched == switched
    assert choice.compared == [name for name in switched if name not in missing]
    assert numbers_in(choice.after) == in_use | {name: NUMBERS[name] for name in switched}
    assert set(choice.checked) == numbers_in(choice.after).keys()


def test_a_view_in_another_form_is_neither_compared_nor_built_on() -> None:
    choice = chosen(NUMBERS | {"accounts": NUMBERS["accounts"] - 1}, "history")
    assert choice.switched == ["accounts", "history"]
    assert choice.compared == ["history"]
    assert numbers_in(choice.after) == NUMBERS
    choice = chosen(NUMBERS | {"accounts": NUMBERS["accounts"] - 1}, "holds")
    assert choice.switched == ["holds"]
    assert choice.checked == ["reserve", "history", "holds"]


@pytest.mark.parametrize("in_use", [NUMBERS | {"later": 1}, NUMBERS | {"accounts": NUMBERS["accounts"] + 1}])
def test_views_of_a_later_program_are_not_built_over(in_use: dict[str, int]) -> None:
    with pytest.raises(OtherViews, match=r"the file has (later|accounts) of a later program"):
        chosen(in_use, "accounts")
