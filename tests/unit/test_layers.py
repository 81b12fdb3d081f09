"""The layering rule of DESIGN.md, over the real tree: imports point one way."""

import ast
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from projection_service.views import VIEWS

ROOT = Path(__file__).parents[2]
REACHABLE = {
    "shared": {"shared"},
    "command_service": {"command_service", "shared"},
    "projection_service": {"projection_service", "shared"},
}
"""What each package may import, of ours."""
CONTRACT = {f"shared.{module.stem}" for module in (ROOT / "shared").glob("*.py") if module.stem != "__init__"}
"""What programs outside may build on: none of it knows how the services are built."""
ROOMS = {
    **{f"{module.replace('.', '/')}.py": CONTRACT for module in CONTRACT},
    "projection_service/view_store/": {"projection_service.view_store", "shared"},
    "projection_service/view.py": {"projection_service.view_store", "shared"},
    **{
        f"projection_service/views/{view.name}/": {
            *(f"projection_service.views.{name}" for name in (view.name, *view.needs)),
            "projection_service.view",
            "projection_service.view_store",
            "shared",
        }
        for view in VIEWS.values()
    },
}
"""What those that must not know the rest of their service may import, of ours: a view knows what it needs."""
PURE = {
    "shared/events.py",
    "shared/chain.py",
    "shared/errors.py",
    "command_service/event_log/runs.py",
    "projection_service/batch.py",
    *(
        path.relative_to(ROOT).as_posix()
        for pattern in ("command_service/ledger/[!_]*.py", "projection_service/views/*/fold.py")
        for path in ROOT.glob(pattern)
    ),
}
PURE_MODULES = {path.removesuffix(".py").replace("/", ".") for path in PURE}
PURE_IMPORTS = {*PURE_MODULES, "msgspec", *sys.stdlib_module_names}


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
    reachable = REACHABLE[path.split("/")[0]]
    for room, names in ROOMS.items():
        if path.startswith(room):
            reachable = names
    return [
        name
        for name in imports(path, source)
        if (name.split(".")[0] in ours and not is_in(name, reachable))
        or (path in PURE and not is_in(name, PURE_IMPORTS))
    ]


def is_in(name: str, packages: Collection[str]) -> bool:
    return any(f"{name}.".startswith(f"{package}.") for package in packages)


def test_every_module_keeps_to_the_layering_rule() -> None:
    paths = {
        file.relative_to(ROOT).as_posix(): file for package in REACHABLE for file in (ROOT / package).rglob("*.py")
    }
    assert paths.keys() >= PURE
    assert len(PURE) > 3
    assert {path: found for path, file in paths.items() if (found := offences(path, file.read_text()))} == {}


@pytest.mark.parametrize(
    ("path", "source", "found"),
    [
        ("command_service/api.py", "import projection_service.views", ["projection_service.views"]),
        ("projection_service/api.py", "from command_service import relay", ["command_service.relay"]),
        ("projection_service/view_store/sqlite.py", "def f():\n    import command_service", ["command_service"]),
        ("shared/events.py", "from command_service.ledger.account import decide", ["command_service.ledger.account"]),
        ("shared/platform/api.py", "from projection_service import api", ["projection_service.api"]),
        ("shared/platform/api.py", "from tests.bank import Bank", ["tests.bank"]),
        ("command_service/ledger/account.py", "import structlog", ["structlog"]),
        ("command_service/ledger/account.py", "import shared.platform.problems", ["shared.platform.problems"]),
        ("command_service/ledger/account.py", "from shared import messaging, events", ["shared.messaging"]),
        ("shared/messaging.py", "from shared import errors, platform", ["shared.platform"]),
        ("command_service/ledger/account.py", "from ..event_log import Answer", ["command_service.event_log"]),
        ("projection_service/views/history/fold.py", "from . import tables", ["projection_service.views.history"]),
        ("projection_service/views/history/fold.py", "from typing import Any\nfrom msgspec import Struct", []),
        ("projection_service/views/history/fold.py", "from shared.events import Event", []),
        ("projection_service/views/history/tables.py", "from projection_service.views.history.fold import x", []),
        (
            "projection_service/views/history/tables.py",
            "from projection_service.views.holds import fold",
            ["projection_service.views.holds"],
        ),
        ("projection_service/views/history/tables.py", "from projection_service.views.accounts import tables", []),
        (
            "projection_service/views/accounts/fold.py",
            "from projection_service.views.history import fold",
            ["projection_service.views.history"],
        ),
        ("projection_service/views/history/queries.py", "import projection_service.api", ["projection_service.api"]),
        (
            "projection_service/view_store/sqlite.py",
            "from projection_service import views",
            ["projection_service.views"],
        ),
        ("projection_service/view.py", "from projection_service.views import VIEWS", ["projection_service.views"]),
        ("command_service/relay.py", "import aio_pika\nfrom shared.platform.sessions import keep_running", []),
    ],
)
def test_the_rule_finds_what_breaks_it_and_nothing_else(path: str, source: str, found: list[str]) -> None:
    assert offences(path, source) == found
