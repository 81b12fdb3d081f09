"""`python -m projection_service`."""

from projection_service.app import ProjectionSettings, run
from shared.platform.server import run_service


def main() -> None:
    run_service("projection-service", "Keep views of the ledger and answer queries.", ProjectionSettings, run)


if __name__ == "__main__":
    main()
