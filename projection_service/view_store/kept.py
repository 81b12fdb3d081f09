"""Which views the tables hold: each from the first event on, or not at all.

The checkpoint's row names them, so that a commit that moves it sees whether they are still the same.
"""

import re
from collections.abc import Collection, Mapping
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
REBUILD = "python -m projection_service rebuild"
NO_VIEWS = "{}"


class Plan(Value, frozen=True):
    """What makes the tables hold the views that are asked for, and what `checkpoint.views` is then."""

    scripts: list[str]
    views: str


def plan(position: int, views: str, asked: Collection[str], what: str, dialect: str) -> Plan:
    """From what `READ_KEPT` found in `what`, the file or schema. Views that are not asked for go: nobody would know how
    old they are.

    Raises `OtherViews` when one is asked for that was not there from the first event on, or in an earlier form than any
    that is read, or there is one that this program does not know, and `CorruptStore` as `to_do` does.
    """
    kept = numbers_in(views)
    scripts = [_drop_script(name, what) for name in kept if name not in asked]
    missing = sorted(set(asked) - kept.keys()) if position > 0 else []
    migrations = {name: view_migrations(name, dialect) for name in sorted(asked)}
    earlier = [name for name, scripts in migrations.items() if 0 < kept.get(name, 0) < min(scripts)]
    if missing or earlier:
        names = missing + earlier
        raise OtherViews(
            f"{what} was built without {' and '.join(names)}, or before the first release of this program, and a view "
            f"is kept from the first event on or not at all. Build what is missing beside it, while it can be used: "
            f"{REBUILD} --views {','.join(names)}. {ANEW}, or PROJECTION_VIEWS to "
            f"{','.join(sorted(kept.keys() - earlier)) or 'others'}."
        )
    for name in migrations:
        scripts += to_do(migrations[name], kept.get(name, 0), f"the view {name} in {what}").values()
    numbers = {name: max(scripts) for name, scripts in migrations.items()}
    return Plan(scripts, encode_numbers(numbers))


def numbers_in(views: str) -> dict[str, int]:
    """By the names of the views that `checkpoint.views` has, the numbers of their last migrations."""
    return msgspec.json.decode(views, type=dict[str, int])


def encode_numbers(numbers: Mapping[str, int]) -> str:
    """The same text for the same views: commits compare it."""
    return msgspec.json.encode(dict(sorted(numbers.items()))).decode()


def view_migrations(name: str, dialect: str) -> dict[int, str]:
    return migration_scripts(f"{VIEWS_PACKAGE}.{name}", dialect)


def last_number(name: str, dialect: str) -> int:
    """Of this program's migrations of the view."""
    return max(view_migrations(name, dialect))


def check(found: str, opened: str) -> None:
    """Raises `OtherViews` when the views that were `found` are no longer those that were `opened`."""
    if found != opened:
        raise OtherViews(
            f"these views were {_names(opened)} when this process started, and are {_names(found)} now: a process with "
            "another PROJECTION_VIEWS, or another version of this program, has opened or rebuilt them. Give all that "
            f"share them the same, and start this one again. {ANEW} with more."
        )


def _names(views: str) -> str:
    return ",".join(f"{name} {number}" for name, number in numbers_in(views).items())


def parts(name: str) -> list[tuple[str, str]]:
    """What a view consists of, in the order in which it can be dropped: ("TABLE", "accounts"), or ("INDEX", …)."""
    script = (files(f"{VIEWS_PACKAGE}.{name}") / "drop.sql").read_text()
    return re.findall(r"^DROP (TABLE|INDEX) IF EXISTS (\w+);$", script, re.MULTILINE)


def _drop_script(name: str, what: str) -> str:
    try:
        return (files(f"{VIEWS_PACKAGE}.{name}") / "drop.sql").read_text()
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise OtherViews(f"{what} has a view {name}, which this program does not know: update the program.") from error
