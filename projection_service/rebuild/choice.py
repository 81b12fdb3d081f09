"""Which views a rebuild builds, and which of them take the place of those in use."""

from collections.abc import Collection, Mapping, Sequence

from projection_service.view import View
from projection_service.view_store import OtherViews
from projection_service.view_store.kept import encode_numbers, last_number, numbers_in
from shared.events import Value


class Choice(Value, frozen=True):
    built: Sequence[View]
    """In the order in which they are folded: those that are switched, and those that they need."""
    switched: Sequence[str]
    """In the same order."""
    compared: Sequence[str]
    """Those of `switched` that are in use in the same form."""
    checked: Sequence[str]
    """All that are in this program's form once they are switched."""
    before: str
    """What `checkpoint.views` is, and has to be until the switch."""
    after: str
    """What it is then."""


def choose(in_use: str, asked: Collection[str], views: Mapping[str, View], what: str, dialect: str) -> Choice:
    """With those `asked` for are switched: what they need that is not in use in this program's form; and what is in use
    and needs them, since it was made of what they were. `in_use` is the `checkpoint.views` of `what`.

    Raises `OtherViews` when it was written by a later program.
    """
    numbers = {name: last_number(name, dialect) for name in views}
    kept = numbers_in(in_use)
    if later := sorted(name for name, number in kept.items() if number > numbers.get(name, 0)):
        raise OtherViews(f"{what} has {' and '.join(later)} of a later program than this one: update the program.")
    switched = set(asked)
    while True:
        built = _with_needs(switched, views)
        more = {name for name in built if kept.get(name) != numbers[name]}
        more |= {name for name in kept if not switched.isdisjoint(views[name].needs)}
        if more <= switched:
            break
        switched |= more
    order = [name for name in views if name in switched]
    after = kept | {name: numbers[name] for name in switched}
    return Choice(
        built=[view for view in views.values() if view.name in built],
        switched=order,
        compared=[name for name in order if kept.get(name) == numbers[name]],
        checked=[name for name in views if after.get(name) == numbers[name]],
        before=in_use,
        after=encode_numbers(after),
    )


def _with_needs(names: Collection[str], views: Mapping[str, View]) -> set[str]:
    found: set[str] = set()
    todo = list(names)
    while todo:
        if (name := todo.pop()) not in found:
            found.add(name)
            todo += views[name].needs
    return found
