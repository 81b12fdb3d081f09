"""`python -m command_service`."""

from command_service.app import CommandSettings, run
from shared.platform.server import run_service


def main() -> None:
    run_service("command-service", "Record commands in the event log and publish it.", CommandSettings, run)


if __name__ == "__main__":
    main()
