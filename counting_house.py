"""The command line of the stand-alone executable: both services behind one name."""

import sys
from importlib import import_module
from importlib.metadata import version

SERVICES = {"command-service": "command_service.__main__", "projection-service": "projection_service.__main__"}

USAGE = """Usage: counting-house SERVICE [--help]

  command-service     Record commands in the event log and publish it.
  projection-service  Keep views of the event log and answer queries; `projection-service rebuild` builds them anew.

SERVICE --help lists the environment variables that set it."""


def main() -> None:
    match sys.argv[1:]:
        case ["--version"]:
            print(version("counting-house"))
        case ["--help" | "-h"]:
            print(USAGE)
        case [service, *arguments] if service in SERVICES:
            sys.argv[1:] = arguments
            # Imported when asked for, so that neither service ever loads the other.
            import_module(SERVICES[service]).main()
        case _:
            print(USAGE, file=sys.stderr)
            raise SystemExit(2)
