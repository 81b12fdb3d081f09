"""What becomes of the views that a file or schema has, when it is opened with those that are asked for."""

import json
import re

import pytest

from projection_service.view_store import OtherViews
from projection_service.view_store.kept import plan
from projection_service.views import VIEWS
from shared.errors import CorruptStore

NUMBERS = '{"accounts":2,"reserve":2}'


@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
@pytest.mark.parametrize("name", VIEWS)
def test_a_view_has_a_room_with_its_tables_and_what_takes_them_away(name: str, dialect: str) -> None:
    made = plan(0, "{}", [name], "the file", dialect)
    assert list(json.loads(made.views)) == [name]
    tables = [re.findall(r"^CREATE (?:TABLE|INDEX) (\w+)", script, re.MULTILINE) for script in made.scripts]
    assert all(table.startswith(name) for table in tables[0])
    gone = plan(0, made.views, [], "the file", dialect)
    assert gone.views == "{}"
    dropped = [re.findall(r"^DROP (?:TABLE|INDEX) IF EXISTS (\w+);$", script, re.MULTILINE) for script in gone.scripts]
    assert [sorted(one) for one in dropped] == [sorted(one) for one in tables]


@pytest.mark.parametrize("name", VIEWS)
def test_who_looks_at_a_views_tables_is_told_what_they_hold(name: str) -> None:
    (sqlite,), (postgres,) = (plan(0, "{}", [name], "", dialect).scripts for dialect in ("sqlite", "postgres"))
    # SQLite keeps what stands inside the statement.
    assert re.findall(r"CREATE TABLE (\w+) \(\n    -- ", sqlite) == re.findall(r"CREATE TABLE (\w+)", sqlite)
    assert re.findall(r"COMMENT ON TABLE (\w+)", postgres) == re.findall(r"CREATE TABLE (\w+)", postgres)


@pytest.mark.parametrize("asked", [["accounts", "reserve"], ["reserve", "accounts"]])
def test_views_that_are_there_stay_as_they_are(asked: list[str]) -> None:
    todo = plan(5, NUMBERS, asked, "the file", "sqlite")
    assert (todo.scripts, todo.views) == ([], NUMBERS)


@pytest.mark.parametrize(
    ("position", "views", "asked", "words"),
    [
        (5, NUMBERS, ["accounts", "history"], "the file was built without history,.* rebuild --views history.*NAME"),
        (5, '{"accounts":1}', ["accounts", "holds"], "without holds and accounts,.* rebuild --views holds,accounts"),
        (0, '{"accounts":1}', ["accounts"], "without accounts,.* before the first release.* rebuild --views accounts"),
        (0, '{"later":1}', ["accounts"], "a view later, which this program does not know"),
        (5, '{"accounts":1,"later":1}', ["accounts"], "a view later, which this program does not know"),
    ],
)
def test_views_that_cannot_be_kept_are_refused(position: int, views: str, asked: list[str], words: str) -> None:
    with pytest.raises(OtherViews, match=words):
        plan(position, views, asked, "the file", "sqlite")


def test_a_view_of_a_later_program_is_refused() -> None:
    with pytest.raises(CorruptStore, match="the view accounts in the file has version 7, newer than"):
        plan(5, '{"accounts":7}', ["accounts"], "the file", "sqlite")
