"""The bare limit of catching up: what bringing the same events into two tables on the same store takes, and no more.

`python -m benchmarks.peer_bare_projection SECONDS LEDGER_URL EVENTS BODY_BYTES TRANSACTION_EVENTS` prints events a
second. The ledger's last EVENTS are fetched first, and wait in memory in bodies of up to BODY_BYTES, as a page of the
feed or a message is one. Then, over and over, each body is read as any consumer reads it, and the accounts that it
changes are written, and the reserve: in one transaction for a body or, of smaller ones, for TRANSACTION_EVENTS.

Left out is all that a projection is trusted for: no chain and no signature is verified, no position, version or
checkpoint compared with what was before, no limit of a balance known, no account read, and no other kind of event
known. There is no HTTP, no broker, no second thread and no query.
"""

import http.client
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path

import apsw
import msgspec

from benchmarks.servers import WAIT_SECONDS
from command_service.http.feed import PAGE_EVENTS_MAX
from shared.events import AmountDeposited, AmountWithdrawn, RecordedEvent, decode_events, join_events
from shared.platform.sqlite import SqliteConnection

SIGNS = {AmountDeposited: 1, AmountWithdrawn: -1}
CREATE_TABLES = (
    "CREATE TABLE accounts (id TEXT PRIMARY KEY, balance INTEGER, version INTEGER, last_updated TEXT) WITHOUT ROWID",
    "CREATE TABLE reserve (amount INTEGER, position INTEGER, last_updated TEXT)",
    "INSERT INTO reserve VALUES (0, 0, NULL)",
)
PUT_ACCOUNT = """
    INSERT INTO accounts VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET
    balance = balance + excluded.balance, version = excluded.version, last_updated = excluded.last_updated
"""
MOVE_RESERVE = "UPDATE reserve SET amount = amount + ?, position = ?, last_updated = ?"


_split = msgspec.json.Decoder(list[msgspec.Raw]).decode


def main() -> None:
    seconds, url = float(sys.argv[1]), sys.argv[2]
    events, body_bytes, transaction_events = map(int, sys.argv[3:])
    bodies = cycle(list(joined(last_events(url, events), body_bytes)))
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteConnection(Path(folder) / "projection.sqlite3", synchronous="NORMAL")
        for statement in CREATE_TABLES:
            store.run(apsw.Connection.execute, statement)
        count = 0
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds:
            run = decode_events(next(bodies))
            while len(run) < transaction_events:
                run += decode_events(next(bodies))
            store.run(fold, run)
            count += len(run)
        print(count / (time.perf_counter() - begin))
        store.close()


def last_events(url: str, events_max: int) -> list[bytes]:
    """Of the ledger there, encoded."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=WAIT_SECONDS)

    def page(after: int, limit: int) -> tuple[int, list[bytes]]:
        connection.request("GET", f"/events?after={after}&limit={limit}")
        answer = connection.getresponse()
        return int(answer.headers["Ledger-Position"]), [bytes(event) for event in _split(answer.read())]

    head, _ = page(0, 0)
    first = max(0, head - events_max)
    events: list[bytes] = []
    while first + len(events) < head:
        events += page(first + len(events), PAGE_EVENTS_MAX)[1]
    return events


def joined(events: Sequence[bytes], body_bytes: int) -> Iterator[bytes]:
    body: list[bytes] = []
    size = 0
    for event in events:
        if body and size + len(event) > body_bytes:
            yield join_events(body)
            body, size = [], 0
        body.append(event)
        size += len(event)
    yield join_events(body)


def fold(connection: apsw.Connection, events: Sequence[RecordedEvent]) -> None:
    """In one transaction."""
    last: dict[str, RecordedEvent] = {}
    changes: dict[str, int] = {}
    for recorded in events:
        account_id, event = recorded.account_id, recorded.event
        last[account_id] = recorded
        if isinstance(event, AmountDeposited | AmountWithdrawn):
            changes[account_id] = changes.get(account_id, 0) + SIGNS[type(event)] * event.amount
    accounts = [(name, changes.get(name, 0), one.version, one.time) for name, one in last.items()]
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(PUT_ACCOUNT, accounts)
    connection.execute(MOVE_RESERVE, (sum(changes.values()), events[-1].position, events[-1].time))
    connection.execute("COMMIT")


if __name__ == "__main__":
    main()
