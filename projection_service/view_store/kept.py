"""Which views the tables hold: each from the first event on, or not at all.

The checkpoint's row names them, so that a commit that moves it sees whether they are still the same.
"""

from collections.abc import Collection
from importlib.resources import files

import msgspec

from projection_service.view_store import OtherViews
from shared.events import Value
from shared.platform.migrations import migration_scripts, to_do

VIEWS_PACKAGE = "projection_service.views"
"""A view's numbered migrations, and its `drop.sql`, lie in the folder of its name."""

READ_KEPT = "SELECT position, views FROM checkpoint"
"""`views` is JSON: each view's name with the number of its last migration."""

ANEW = "Set PROJECTION_NAME to a new name to build new views"


class Plan(Value, frozen=True):
    """What makes the tables hold the views that are asked for, and what `checkpoint.views` is then."""

    scripts: list[str]
    views: str


def plan(position: int, views: str, asked: Collection[str], what: str, dialect: str) -> Plan:
    """From what `READ_KEPT` found in `what`, the file or schema. Views that are not asked for go: nobody would know how
    old they are.

    Raises `OtherViews` when one is asked for that was not there from the first event on, or there is one that this
    program does not know, and `CorruptStore` as `to_do` does.
    """
    kept = msgspec.json.decode(views, type=dict[str, int])
    if position > 0 and (missing := sorted(set(asked) - kept.keys())):
        raise OtherViews(
            f"{what} was built without {' and '.join(missing)}, and a view is kept from the first event on or not at "
            f"all. {ANEW}, or PROJECTION_VIEWS to {','.join(sorted(kept))}."
        )
    scripts = [_drop_script(name, what) for name in kept if name not in asked]
    numbers: dict[str, int] = {}
    for name in sorted(asked):
        migrations = migration_scripts(f"{VIEWS_PACKAGE}.{name}", dialect)
        scripts += to_do(migrations, kept.get(name, 0), f"the view {name} in {what}").values()
        numbers[name] = max(migrations)
    return Plan(scripts, msgspec.json.encode(numbers).decode())


def check(found: str, opened: str) -> None:
    """Raises `OtherViews` when the views that were `found` are no longer those that were `opened`."""
    if found != opened:
        raise OtherViews(
            f"these views were {_names(opened)} when this process started, and are {_names(found)} now: a process with "
            "another PROJECTION_VIEWS, or another version of this program, has opened them. Give all that share them "
            f"the same, and start this one again. {ANEW} with more."
        )


def _names(views: str) -> str:
    return ",".join(f"{name} {number}" for name, number in msgspec.json.decode(views, type=dict[str, int]).items())


def _drop_script(name: str, what: str) -> str:
    try:
        return (files(f"{VIEWS_PACKAGE}.{name}") / "drop.sql").read_text()
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise OtherViews(f"{what} has a view {name}, which this program does not know: update the program.") from error
