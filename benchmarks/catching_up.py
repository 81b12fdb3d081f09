"""What follows a ledger: its feed, and projections that have all of it before them."""

import http.client
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from benchmarks.rows import (
    Bench,
    Figure,
    Measure,
    Measures,
    Row,
    confirmed,
    follows_its_queue,
    peer_program,
    postgres_bytes,
    row,
    visible,
)
from benchmarks.servers import (
    ACCOUNTS,
    HAS_PROC,
    LOAD_CORE,
    WAIT_SECONDS,
    Server,
    command_service,
    opened,
    pinned,
    projection_service,
    rate_between,
    until,
)
from command_service.http.feed import PAGE_BYTES_MAX
from command_service.relay import MESSAGE_BYTES_MAX
from projection_service.subscription import HEAD_CHECK_SECONDS, TRANSACTION_EVENTS_MAX

BALANCES = "accounts,reserve"
"""Views whose size is that of the accounts, and not of the log."""
ALL = "all"
FEED_PAGE = "limit=10000"


def catching_up(bench: Bench) -> Iterator[Row]:
    amqp_url, backlog = bench.node.amqp_url, bench.sizes.backlog

    def in_a_file() -> dict[str, str]:
        return {"DATA_DIR": bench.data_dir()}

    def in_a_database() -> dict[str, str]:
        return {"DATABASE_URL": bench.cluster.url(bench.cluster.create_database())}

    cpu_seconds = 0.0
    """Of the projection that caught up last, for a million events."""

    def from_the_feed(
        ledger: Server, views: str = BALANCES, new_store: Callable[[], dict[str, str]] = in_a_file
    ) -> Measure:
        def catch_up(_: float) -> float:
            nonlocal cpu_seconds
            with projection_service(LEDGER_URL=ledger.url, PROJECTION_VIEWS=views, **new_store()) as projection:
                first, before = visible(projection), projection.cpu_seconds() if HAS_PROC else 0
                rate = rate_between(lambda: visible(projection), backlog // 4, backlog)
                if HAS_PROC:
                    cpu_seconds = (projection.cpu_seconds() - before) / (backlog - first) * 1_000_000
                return rate

        return catch_up

    def with_its_file(ledger: Server, views: str) -> tuple[Measure, Measure]:
        """The speed, and then the size."""
        folder = ""

        def in_this_file() -> dict[str, str]:
            nonlocal folder
            folder = bench.data_dir()
            return {"DATA_DIR": folder}

        def bytes_an_event(_: float) -> float:
            return sum(file.stat().st_size for file in Path(folder).iterdir()) / backlog

        return from_the_feed(ledger, views, in_this_file), bytes_an_event

    def bare_limit(ledger: Server, events: int, body_bytes: int, transaction_events: int) -> Measure:
        return lambda seconds: peer_program(
            "bare_projection", seconds, ledger.url, events, body_bytes, transaction_events
        )

    def sqlite(stack: ExitStack) -> Sequence[Measures]:
        ledger = stack.enter_context(opened(bench.log(backlog)))
        # A page is a transaction.
        speed: Measures = from_the_feed(ledger), bare_limit(ledger, backlog, PAGE_BYTES_MAX, 1)
        return [speed, (lambda _: cpu_seconds, None)] if HAS_PROC else [speed]

    def history(stack: ExitStack) -> Sequence[Measures]:
        ledger = stack.enter_context(opened(bench.log(backlog)))
        speed, size = with_its_file(ledger, f"{BALANCES},history")
        speed_without, size_without = with_its_file(ledger, BALANCES)
        of_all, _ = with_its_file(ledger, ALL)
        return [(speed, speed_without), (size, size_without), (of_all, speed_without)]

    def postgres(stack: ExitStack) -> Sequence[Measures]:
        ledger = stack.enter_context(command_service(ACCOUNTS, **in_a_database()))
        bench.fill(ledger, backlog)
        peer = stack.enter_context(opened(bench.log(backlog)))
        database = ""

        def in_this_database() -> dict[str, str]:
            nonlocal database
            database = bench.cluster.create_database()
            return {"DATABASE_URL": bench.cluster.url(database)}

        def bytes_an_event(_: float) -> float:
            return postgres_bytes(bench.cluster, database) / backlog

        return [
            (whole_feed(ledger), whole_feed(peer)),
            (from_the_feed(ledger), None),
            (from_the_feed(peer, new_store=in_a_database), None),
            (from_the_feed(peer, ALL, in_this_database), from_the_feed(peer, new_store=in_a_database)),
            (bytes_an_event, None),
        ]

    def queue(stack: ExitStack) -> Measures:
        ledger = stack.enter_context(command_service(DATA_DIR=bench.data_dir(), AMQP_URL=amqp_url))
        folder = bench.data_dir()

        def catch_up(_: float) -> float:
            with projection_service(
                DATA_DIR=folder, LEDGER_URL=ledger.url, AMQP_URL=amqp_url, PROJECTION_VIEWS=BALANCES
            ) as projection:
                until(lambda: follows_its_queue(projection), "the projection to follow its queue")
                begin, first = time.monotonic(), visible(projection)
                os.kill(projection.process_id, signal.SIGSTOP)
                bench.fill(ledger, backlog // 2)
                last = ledger.metric("ledger_head_position")
                until(lambda: confirmed(ledger) == last, "the queue to hold it all")
                os.kill(projection.process_id, signal.SIGCONT)
                rate = rate_between(lambda: visible(projection), first + (last - first) // 4, last)
                if time.monotonic() - begin > HEAD_CHECK_SECONDS:
                    raise TimeoutError("that took so long that the projection has looked into the feed")
                return rate

        return catch_up, bare_limit(ledger, backlog // 2, MESSAGE_BYTES_MAX, TRANSACTION_EVENTS_MAX)

    limit = "bare limit: read, upserted"
    speed = Figure(f"projection catching up from the feed / {limit}", "events/s", 0.5)
    cpu = Figure("projection catching up from the feed, CPU for a million events", "s")
    yield Row([speed, cpu] if HAS_PROC else [speed], sqlite)
    yield row(Figure(f"projection catching up from the queue / {limit}", "events/s", 0.5), queue)
    yield Row(
        [
            Figure("projection catching up with the history / without", "events/s", 0.45),
            Figure("views with the history / without, disk", "bytes an event"),
            Figure("projection catching up with every view / with accounts and reserve alone", "events/s", 0.35),
        ],
        history,
    )
    yield Row(
        [
            Figure("feed of a ledger on PostgreSQL / on SQLite", "events/s", 0.8),
            Figure("projection catching up from a ledger on PostgreSQL", "events/s"),
            Figure("projection catching up, views on PostgreSQL", "events/s"),
            Figure(
                "projection catching up with every view on PostgreSQL / with accounts and reserve alone",
                "events/s",
                0.35,
            ),
            Figure("every view on PostgreSQL, disk", "bytes an event"),
        ],
        postgres,
    )


def whole_feed(ledger: Server) -> Measure:
    """Events a second for a reader that does nothing with them, from the first to the last, over and over."""

    def measure(seconds: float) -> float:
        connection = http.client.HTTPConnection(ledger.url.removeprefix("http://"), timeout=WAIT_SECONDS)
        count, begin = 0, time.perf_counter()
        with pinned(LOAD_CORE), closing(connection):
            while time.perf_counter() - begin < seconds:
                position, head = 0, 1
                while position < head:
                    connection.request("GET", f"/events?after={position}&{FEED_PAGE}")
                    answer = connection.getresponse()
                    head = int(answer.headers["Ledger-Position"])
                    position += answer.read().count(b'"specversion":')
                count += head
        return count / (time.perf_counter() - begin)

    return measure
