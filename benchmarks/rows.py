"""Every path and its peer."""

import asyncio
import http.client
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from rich.progress import Progress

from benchmarks.servers import (
    ACCOUNTS,
    SERVER_CORE,
    Server,
    command_service,
    echo,
    opened,
    pin,
    projection_service,
    rate_between,
    until,
    wrk,
)
from projection_service.subscription import HEAD_CHECK_SECONDS
from scripts.postgres import PostgresCluster
from scripts.rabbitmq import RabbitMQNode
from shared.messaging import declare_exchange, open_channel

BATCH = 1000
BALANCES = "accounts,reserve"
"""Views whose size is that of the accounts, and not of the log."""

Measure = Callable[[float], float]
"""Runs for about so many seconds; the figure."""
Measures = tuple[Measure, Measure | None]
"""Ours, and the peer's where there is one."""


class Figure(NamedTuple):
    """`goal` is what ours should be at least: a multiple of the peer where there is one, otherwise as it stands.

    With `less`, it should be at most that.
    """

    name: str
    unit: str
    goal: float
    less: bool = False


class Row(NamedTuple):
    """What is measured together: in each round one figure after the other. `rounds` is for a row that needs less."""

    figures: Sequence[Figure]
    prepare: Callable[[ExitStack], Sequence[Measures]]
    rounds: int | None = None


def row(figure: Figure, prepare: Callable[[ExitStack], Measures], rounds: int | None = None) -> Row:
    return Row([figure], lambda stack: [prepare(stack)], rounds)


class Sizes(NamedTuple):
    """How much of it: `many` of what must not cost more for being many."""

    rounds: int
    growth_rounds: int
    seconds: float
    backlog: int
    many: int
    long_log: int


class Bench(NamedTuple):
    folder: Path
    cluster: PostgresCluster
    node: RabbitMQNode
    progress: Progress
    sizes: Sizes
    logs: dict[tuple[int, int], str]
    """Folders of the logs that were long to make, by events and accounts."""

    def data_dir(self) -> str:
        return tempfile.mkdtemp(dir=self.folder)

    def log(self, events: int, accounts: int = ACCOUNTS) -> str:
        """The folder of a log with so many deposits to so many accounts. It is made once.

        A long one is shared, and only grows; of a short one, which would not stay what it is, each caller gets a copy.
        """
        made = self.logs.get((events, accounts))
        if made is None:
            made = self.logs[events, accounts] = self.data_dir()
            with command_service(accounts, DATA_DIR=made) as server:
                self.fill(server, events, accounts)
        if max(events, accounts) >= self.sizes.many:
            return made
        return shutil.copytree(made, self.data_dir(), dirs_exist_ok=True)

    def fill(self, server: Server, events: int, accounts: int = ACCOUNTS) -> None:
        """Record so many deposits."""
        task = self.progress.add_task(f"  {events:,} events first", total=events)
        for first in range(0, events, 10_000):
            numbers = range(first, min(events, first + 10_000))
            server.post(
                "/commands",
                [{"type": "deposit", "account_id": f"account-{n % accounts}", "amount": 100} for n in numbers],
            )
            self.progress.advance(task, len(numbers))
        self.progress.remove_task(task)


def singles(server: Server, connections: int = 32, accounts: int = ACCOUNTS) -> Measure:
    return lambda seconds: wrk(server.url, "deposit.lua", connections, seconds, accounts)


def batches(server: Server, accounts: int = ACCOUNTS) -> Measure:
    def measure(seconds: float) -> float:
        # What the last round's clients left behind counts among the commands that may wait.
        until(lambda: server.metric("ledger_commands_waiting") == 0, "the last round's commands to be recorded")
        return wrk(server.url, "batch.lua", 16, seconds, accounts) * BATCH

    return measure


def commands(bench: Bench) -> Iterator[Row]:
    def on_sqlite(connections: int, framework: str) -> Callable[[ExitStack], Measures]:
        def prepare(stack: ExitStack) -> Measures:
            ours = stack.enter_context(command_service(DATA_DIR=bench.data_dir()))
            peer = stack.enter_context(echo(framework))
            return singles(ours, connections), singles(peer, connections)

        return prepare

    def beside_eventsourcing(stack: ExitStack) -> Measures:
        return singles(stack.enter_context(command_service(DATA_DIR=bench.data_dir()))), eventsourcing

    def on_postgres(stack: ExitStack) -> Measures:
        url = bench.cluster.url(bench.cluster.create_database())
        ours = stack.enter_context(command_service(DATABASE_URL=url))
        return singles(ours, 128), pgbench(bench.cluster)

    def in_batches(stack: ExitStack) -> Measures:
        return batches(stack.enter_context(command_service(DATA_DIR=bench.data_dir()))), None

    yield row(Figure("deposits, 32 connections / Starlette echo", "requests/s", 0.6), on_sqlite(32, "starlette"))
    yield row(Figure("deposits, 128 connections / Starlette echo", "requests/s", 0.6), on_sqlite(128, "starlette"))
    yield row(Figure("deposits, 32 connections / FastAPI echo", "requests/s", 1), on_sqlite(32, "fastapi"))
    yield row(
        Figure("deposits, 32 connections / eventsourcing library, no HTTP", "deposits/s", 1), beside_eventsourcing
    )
    yield row(Figure("deposits, PostgreSQL, 128 connections / pgbench, 32 clients", "requests/s", 1), on_postgres)
    yield row(Figure("batches of 1000", "commands/s", 100_000), in_batches)


def events(bench: Bench) -> Iterator[Row]:
    amqp_url = bench.node.amqp_url

    def asked(server: Server) -> Measure:
        return lambda seconds: wrk(server.url, "query.lua", 32, seconds)

    def queries(stack: ExitStack) -> Measures:
        ledger = stack.enter_context(command_service(DATA_DIR=bench.data_dir()))
        ours = stack.enter_context(projection_service(DATA_DIR=bench.data_dir(), LEDGER_URL=ledger.url))
        ours.get(f"/reserve?min_position={ACCOUNTS}&wait=30")
        peer = stack.enter_context(echo("starlette"))
        return asked(ours), asked(peer)

    def published_batches(stack: ExitStack) -> Measures:
        bind_a_queue(amqp_url)
        ledger = stack.enter_context(command_service(DATA_DIR=bench.data_dir(), AMQP_URL=amqp_url))

        def until_confirmed(seconds: float) -> float:
            first, begin = ledger.metric("ledger_head_position"), time.perf_counter()
            batches(ledger)(seconds)
            last = ledger.metric("ledger_head_position")
            until(lambda: confirmed(ledger) >= last, "the broker to confirm it all")
            return (last - first) / (time.perf_counter() - begin)

        return until_confirmed, None

    def relay(stack: ExitStack) -> Measures:
        bind_a_queue(amqp_url)
        folder = bench.log(bench.sizes.backlog)

        def publish_again(_: float) -> float:
            copy = shutil.copytree(folder, bench.data_dir(), dirs_exist_ok=True)
            with command_service(accounts=0, DATA_DIR=copy, AMQP_URL=amqp_url) as ledger:
                head = ledger.metric("ledger_head_position")
                return rate_between(lambda: confirmed(ledger), head // 4, head)

        return publish_again, batches(stack.enter_context(command_service(DATA_DIR=bench.data_dir())))

    def from_the_feed(ledger: Server, views: str) -> Measure:
        def catch_up(_: float) -> float:
            with projection_service(
                DATA_DIR=bench.data_dir(), LEDGER_URL=ledger.url, PROJECTION_VIEWS=views
            ) as projection:
                return rate_between(lambda: visible(projection), bench.sizes.backlog // 4, bench.sizes.backlog)

        return catch_up

    def catching_up_from_the_feed(stack: ExitStack) -> Measures:
        return from_the_feed(stack.enter_context(opened(bench.log(bench.sizes.backlog))), BALANCES), None

    def catching_up_with_the_history(stack: ExitStack) -> Measures:
        ledger = stack.enter_context(opened(bench.log(bench.sizes.backlog)))
        return from_the_feed(ledger, f"{BALANCES},history"), from_the_feed(ledger, BALANCES)

    def catching_up_from_the_queue(stack: ExitStack) -> Measures:
        ledger = stack.enter_context(command_service(DATA_DIR=bench.data_dir(), AMQP_URL=amqp_url))
        folder = bench.data_dir()

        def catch_up(_: float) -> float:
            with projection_service(
                DATA_DIR=folder, LEDGER_URL=ledger.url, AMQP_URL=amqp_url, PROJECTION_VIEWS=BALANCES
            ) as projection:
                until(lambda: follows_its_queue(projection), "the projection to follow its queue")
                begin, first = time.monotonic(), visible(projection)
                os.kill(projection.process_id, signal.SIGSTOP)
                bench.fill(ledger, bench.sizes.backlog // 2)
                last = ledger.metric("ledger_head_position")
                until(lambda: confirmed(ledger) == last, "the queue to hold it all")
                os.kill(projection.process_id, signal.SIGCONT)
                rate = rate_between(lambda: visible(projection), first + (last - first) // 4, last)
                if time.monotonic() - begin > HEAD_CHECK_SECONDS:
                    raise TimeoutError("that took so long that the projection has looked into the feed")
                return rate

        return catch_up, None

    def lag(stack: ExitStack) -> Sequence[Measures]:
        ledger = stack.enter_context(command_service(DATA_DIR=bench.data_dir(), AMQP_URL=amqp_url))
        projection = stack.enter_context(
            projection_service(DATA_DIR=bench.data_dir(), LEDGER_URL=ledger.url, AMQP_URL=amqp_url)
        )
        until(lambda: follows_its_queue(projection), "the projection to follow its queue")
        connections = 128
        most = singles(ledger, connections)(1)
        # Each connection rests as long after an answer as it waited for it at the most.
        delay_ms = round(connections / most * 1000)
        samples: list[float] = []

        def percentile(percent: int) -> float:
            return statistics.quantiles(samples, n=100)[percent - 1] * 1000

        def under_half_the_load(seconds: float) -> float:
            with ThreadPoolExecutor(1) as pool:
                load = pool.submit(wrk, ledger.url, "deposit.lua", connections, seconds, ACCOUNTS, delay_ms)
                samples[:] = lags(ledger, projection, load.done)
                load.result()
            return percentile(50)

        return [(under_half_the_load, None), (lambda _: percentile(99), None)]

    yield row(Figure("batches of 1000, until RabbitMQ has confirmed them", "commands/s", 100_000), published_batches)
    yield row(Figure("relay behind by a backlog, confirmed / batches of 1000", "events/s", 1), relay)
    yield row(Figure("projection catching up from the feed", "events/s", 100_000), catching_up_from_the_feed)
    yield row(
        Figure("projection catching up with the history / without", "events/s", 0.45), catching_up_with_the_history
    )
    yield row(Figure("projection catching up from the queue", "events/s", 100_000), catching_up_from_the_queue)
    yield row(Figure("queries of one account / Starlette echo", "requests/s", 0.6), queries)
    yield Row(
        [
            Figure("acknowledged to visible, half the load, median", "ms", 5, less=True),
            Figure("acknowledged to visible, half the load, 99th percentile", "ms", 50, less=True),
        ],
        lag,
    )


def visible(projection: Server) -> int:
    return int(projection.get("/reserve")[0]["ledger-position"])


def follows_its_queue(projection: Server) -> bool:
    try:
        return b"ledger.projection" in projection.get("/readyz")[1]
    except urllib.error.HTTPError:
        return False


def confirmed(ledger: Server) -> int:
    return ledger.metric("ledger_relay_confirmed_position")


def lags(ledger: Server, projection: Server, is_over: Callable[[], bool]) -> Iterator[float]:
    """Seconds from the acknowledgement of a deposit to an answer of the projection that has it, one after the other."""
    to_ledger = http.client.HTTPConnection(ledger.url.removeprefix("http://"))
    to_projection = http.client.HTTPConnection(projection.url.removeprefix("http://"))
    while not is_over():
        to_ledger.request("POST", "/account/deposit/account-0", b'{"amount": 1}', {"Content-Type": "application/json"})
        answer = json.loads(to_ledger.getresponse().read())
        begin = time.perf_counter()
        to_projection.request("GET", f"/account/account-0?min_position={answer['position']}&wait=30")
        to_projection.getresponse().read()
        yield time.perf_counter() - begin


def eventsourcing(seconds: float) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.peer_eventsourcing", str(seconds)],
        preexec_fn=lambda: pin(SERVER_CORE),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(done.stdout)


def pgbench(cluster: PostgresCluster) -> Measure:
    database = cluster.create_database()
    cluster.sql(
        database,
        "CREATE TABLE accounts (id int PRIMARY KEY, balance bigint, version int);"
        "CREATE TABLE events (position bigserial PRIMARY KEY, account int, type text, data text);"
        "INSERT INTO accounts SELECT id, 0, 0 FROM generate_series(1, 1000) AS id",
    )
    script = Path(__file__).with_name("pgbench.sql")

    def measure(seconds: float) -> float:
        arguments = ["-n", "-c32", "-j2", f"-T{seconds:.0f}", "-f", str(script), cluster.url(database)]
        done = subprocess.run([cluster.binaries / "pgbench", *arguments], capture_output=True, text=True, check=True)
        (line,) = (line for line in done.stdout.splitlines() if line.startswith("tps = "))
        return float(line.split()[2])

    return measure


def bind_a_queue(amqp_url: str) -> None:
    """As a projection's, but nobody consumes it, and it forgets what is old."""

    async def bind() -> None:
        async with open_channel(amqp_url, "bench", publisher_confirms=False) as channel:
            queue = await channel.declare_queue("bench", durable=True, arguments={"x-max-length": 10})
            await queue.bind(await declare_exchange(channel))

    asyncio.run(bind())
