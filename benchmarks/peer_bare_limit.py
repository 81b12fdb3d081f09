"""The bare limit of batches: what keeping the same events on the same store takes, and nothing else.

`python -m benchmarks.peer_bare_limit SECONDS BODIES` prints commands a second. The bodies of requests are decoded, an
event is encoded for each command and inserted as a row of its own, and so many bodies are a transaction. Nothing is
decided, no account is kept, nobody is answered, and there is no HTTP.
"""

import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path

import apsw
import msgspec
import uuid_utils

from benchmarks.servers import ACCOUNTS, BATCH
from command_service.http.commands import Batch
from command_service.ledger.commands import Deposit
from shared.events import AmountDeposited, CloudEvent, encode_event
from shared.platform.sqlite import SqliteConnection

SOURCE = f"/ledgers/{uuid_utils.uuid7()}"
DIFFERENT_BODIES = 16

_decode = msgspec.json.Decoder(Batch).decode


def main() -> None:
    seconds, bodies_a_transaction = float(sys.argv[1]), int(sys.argv[2])
    bodies = cycle([body() for _ in range(DIFFERENT_BODIES)])
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteConnection(Path(folder) / "events.sqlite3")
        store.run(apsw.Connection.execute, "CREATE TABLE events (position INTEGER PRIMARY KEY, event BLOB) STRICT")
        count = 0
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds:
            count += store.run(record, count, list(islice(bodies, bodies_a_transaction)))
        print(count / (time.perf_counter() - begin))
        store.close()


def body() -> bytes:
    """As `load/batch.lua` makes it."""
    return json.dumps(
        [
            {
                "type": "deposit",
                "account_id": f"account-{random.randrange(ACCOUNTS)}",
                "amount": 100,
                "description": "Found sunken treasure",
            }
            for _ in range(BATCH)
        ]
    ).encode()


def record(connection: apsw.Connection, head: int, bodies: Sequence[bytes]) -> int:
    """In one transaction, after position `head`; how many commands that were."""
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    rows: list[tuple[int, bytes]] = []
    for body in bodies:
        request_id = str(uuid_utils.uuid7())
        for number, command in enumerate(_decode(body)):
            assert isinstance(command, Deposit)
            position = head + len(rows) + 1
            event = CloudEvent(
                id=str(uuid_utils.uuid7()),
                source=SOURCE,
                type=AmountDeposited.type,
                subject=command.account_id,
                time=now,
                sequence=str(position).zfill(20),
                accountversion=1,
                commandid=f"{request_id}/{number}",
                data=AmountDeposited(command.amount, command.description),
            )
            rows.append((position, encode_event(event)))
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany("INSERT INTO events (position, event) VALUES (?, ?)", rows)
    connection.execute("COMMIT")
    return len(rows)


if __name__ == "__main__":
    main()
