"""The layering rule of DESIGN.md, over the real tree: imports point one way."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REACHABLE = {
    "shared": {"shared"},
    "command_service": {"command_service", "shared"},
    "projection_service": {"projection_service", "shared"},
}
"""What each package may import, of ours."""
PURE = {"command_service/account.py", "projection_service/views.py"}
PURE_IMPORTS = {"shared.events", "msgspec", *sys.stdlib_module_names}


def imports(path: str, source: str) -> Iterator[str]:
    """The absolute names of all modules that `source` imports, wherever in the file."""
    package = path.removesuffix(".py").split("/")[:-1]
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = ".".join([*package[: len(package) - level + 1 if level else 0], *filter(None, [module])])
                # `from shared import events` imports the module shared.events.
                yield from (base if "." in base else f"{base}.{name.name}" for name in names)


def offences(path: str, source: str) -> list[str]:
    """The imports of `source`, the file at `path`, that the rule forbids."""
    ours = set(REACHABLE) | {"tests", "scripts", "counting_house"}
    unreachable = ours - REACHABLE[path.split("/")[0]]
    return [
        name
        for name in imports(path, source)
        if name.split(".")[0] in unreachable
        or (path in PURE and not any(f"{name}.".startswith(f"{allowed}.") for allowed in PURE_IMPORTS))
    ]


def test_every_module_keeps_to_the_layering_rule() -> None:
    paths = {
        file.relative_to(ROOT).as_posix(): file for package in REACHABLE for file in (ROOT / package).rglob("*.py")
    }
    assert paths.keys() >= PURE
    assert {path: found for path, file in paths.items() if (found := offences(path, file.read_text()))} == {}


@pytest.mark.parametrize(
    ("path", "source", "found"),
    [
        ("command_service/api.py", "import projection_service.views", ["projection_service.views"]),
        ("projection_service/api.py", "from command_service import relay", ["command_service.relay"]),
        ("projection_service/view_store/sqlite.py", "def f():\n    import command_service", ["command_service"]),
        ("shared/events.py", "from command_service.account import decide", ["command_service.account"]),
        ("shared/api.py", "from projection_service import api", ["projection_service.api"]),
        ("shared/api.py", "from tests.bank import Bank", ["tests.bank"]),
        ("command_service/account.py", "import structlog", ["structlog"]),
        ("command_service/account.py", "from shared.problems import LedgerError", ["shared.problems"]),
        ("command_service/account.py", "from shared import problems, events", ["shared.problems"]),
        ("command_service/account.py", "from .event_log import Answer", ["command_service.event_log"]),
        ("projection_service/views.py", "from . import view_store", ["projection_service.view_store"]),
        ("projection_service/views.py", "from typing import Any\nfrom msgspec import Struct", []),
        ("projection_service/views.py", "from shared.events import Event", []),
        ("command_service/relay.py", "import aio_pika\nfrom shared.sessions import keep_running", []),
    ],
)
def test_the_rule_finds_what_breaks_it_and_nothing_else(path: str, source: str, found: list[str]) -> None:
    assert offences(path, source) == found
