"""The `eventsourcing` library (https://pypi.org/project/eventsourcing/): deposits on SQLite in one process, no HTTP.

`python -m benchmarks.peer_eventsourcing SECONDS` prints deposits a second, with its cache of aggregates turned on.
"""

import sys
import tempfile
import time
from pathlib import Path
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

ACCOUNTS = 100


class Account(Aggregate):
    @event("Created")
    def __init__(self, name: str) -> None:
        self.name = name
        self.balance = 0

    @event("Deposited")
    def deposit(self, amount: int, description: str) -> None:  # noqa: ARG002
        self.balance += amount


class Bank(Application[UUID]):
    def create_account(self, name: str) -> UUID:
        account = Account(name)
        self.save(account)
        return account.id

    def deposit(self, account_id: UUID, amount: int, description: str) -> None:
        account: Account = self.repository.get(account_id)
        account.deposit(amount, description)
        self.save(account)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        bank = Bank(
            {
                "PERSISTENCE_MODULE": "eventsourcing.sqlite",
                "SQLITE_DBNAME": str(Path(folder) / "bank.sqlite3"),
                "AGGREGATE_CACHE_MAXSIZE": str(ACCOUNTS),
            }
        )
        account_ids = [bank.create_account("Alice") for _ in range(ACCOUNTS)]
        count = 0
        begin = time.perf_counter()
        while time.perf_counter() - begin < float(sys.argv[1]):
            bank.deposit(account_ids[count % ACCOUNTS], 100, "Found sunken treasure")
            count += 1
        print(count / (time.perf_counter() - begin))
        bank.close()


if __name__ == "__main__":
    main()
