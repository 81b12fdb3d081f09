"""Every path and its peer."""

import asyncio
import http.client
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import apsw
from rich.progress import Progress

from benchmarks.servers import (
    ACCOUNTS,
    BATCH,
    HAS_PROC,
    SERVER_CORE,
    Server,
    command_service,
    echo,
    pin,
    projection_service,
    rate_between,
    until,
    wrk,
)
from scripts.postgres import PostgresCluster
from scripts.rabbitmq import RabbitMQNode
from shared.messaging import declare_exchange, open_channel

POSTGRES_SIZE = """
    SELECT sum(pg_total_relation_size(format('%I.%I', schemaname, tablename)::regclass)) FROM pg_tables
    WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
"""

Measure = Callable[[float], float]
"""Runs for about so many seconds; the figure."""
Measures = tuple[Measure, Measure | None]
"""Ours, and the peer's where there is one."""


class Figure(NamedTuple):
    """`goal` is what ours should be at least: a multiple of the peer where there is one, otherwise as it stands.

    With `less`, it should be at most that. Without a goal, a figure is there to be known.
    """

    name: str
    unit: str
    goal: float | None = None
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

    def fill(self, server: Server, events: int, accounts: int = ACCOUNTS, amount: int = 100) -> None:
        """Record so many deposits of `amount` cents."""
        task = self.progress.add_task(f"  {events:,} events first", total=events)
        for first in range(0, events, 10_000):
            numbers = range(first, min(events, first + 10_000))
            server.post(
                "/commands",
                [{"type": "deposit", "account_id": f"account-{n % accounts}", "amount": amount} for n in numbers],
            )
            self.progress.advance(task, len(numbers))
        self.progress.remove_task(task)


def singles(server: Server, connections: int = 32, accounts: int = ACCOUNTS, load: str = "deposit.lua") -> Measure:
    return lambda seconds: wrk(server.url, load, connections, seconds, accounts)


def batches(server: Server, accounts: int = ACCOUNTS, load: str = "batch.lua") -> Measure:
    def measure(seconds: float) -> float:
        rate = wrk(server.url, load, 16, seconds, accounts) * BATCH
        # What its clients left behind counts among the commands that may wait, and is not the next figure's.
        until(lambda: server.metric("ledger_commands_waiting") == 0, "all commands to be recorded")
        return rate

    return measure


def commands(bench: Bench) -> Iterator[Row]:
    def on_sqlite(connections: int, framework: str) -> Callable[[ExitStack], Measures]:
        def prepare(stack: ExitStack) -> Measures:
            ours = stack.enter_context(command_service(DATA_DIR=bench.data_dir()))
            peer = stack.enter_context(echo(framework))
            return singles(ours, connections), singles(peer, connections)

        return prepare

    def beside_eventsourcing(stack: ExitStack) -> Measures:
        ours = stack.enter_context(command_service(DATA_DIR=bench.data_dir()))
        return singles(ours), lambda seconds: peer_program("eventsourcing", seconds)

    def on_postgres(stack: ExitStack) -> Measures:
        url = bench.cluster.url(bench.cluster.create_database())
        ours = stack.enter_context(command_service(DATABASE_URL=url))
        return singles(ours, 128), pgbench(bench.cluster)

    def in_batches(stack: ExitStack) -> Sequence[Measures]:
        folder = bench.data_dir()
        ledger = stack.enter_context(command_service(DATA_DIR=folder))
        cpu_seconds, bodies = 0.0, 1

        def ours(seconds: float) -> float:
            nonlocal cpu_seconds, bodies
            before = spent(ledger)
            rate = batches(ledger)(seconds)
            cpu, commands, commits = (now - then for now, then in zip(spent(ledger), before, strict=True))
            cpu_seconds, bodies = cpu / commands * 1_000_000, round(commands / commits / BATCH)
            return rate

        def bytes_an_event(_: float) -> float:
            return sqlite_bytes(Path(folder) / "ledger.sqlite3") / ledger.metric("ledger_head_position")

        speed: Measures = ours, lambda seconds: peer_program("bare_limit", seconds, bodies)
        disk, cpu = (bytes_an_event, None), (lambda _: cpu_seconds, None)
        return [speed, disk, cpu] if HAS_PROC else [speed, disk]

    def in_batches_on_postgres(stack: ExitStack) -> Sequence[Measures]:
        database = bench.cluster.create_database()
        ledger = stack.enter_context(command_service(DATABASE_URL=bench.cluster.url(database)))

        def bytes_an_event(_: float) -> float:
            return postgres_bytes(bench.cluster, database) / ledger.metric("ledger_head_position")

        return [(batches(ledger), None), (bytes_an_event, None)]

    yield row(Figure("deposits, 32 connections / Starlette echo", "requests/s", 0.9), on_sqlite(32, "starlette"))
    yield row(Figure("deposits, 128 connections / Starlette echo", "requests/s", 0.6), on_sqlite(128, "starlette"))
    yield row(Figure("deposits, 32 connections / FastAPI echo", "requests/s", 1), on_sqlite(32, "fastapi"))
    yield row(
        Figure("deposits, 32 connections / eventsourcing library, no HTTP", "deposits/s", 1), beside_eventsourcing
    )
    yield row(Figure("deposits, PostgreSQL, 128 connections / pgbench, 32 clients", "requests/s", 1), on_postgres)
    speed = Figure("batches of 1000 / bare limit: decoded, encoded, inserted", "commands/s", 0.5)
    disk = Figure("batches of 1000, disk", "bytes an event", 60, less=True)
    cpu = Figure("batches of 1000, CPU for a million commands", "s")
    yield Row([speed, disk, cpu] if HAS_PROC else [speed, disk], in_batches)
    yield Row(
        [
            Figure("batches of 1000, PostgreSQL", "commands/s"),
            # A quarter of what an event took there when each was a row.
            Figure("batches of 1000, PostgreSQL, disk", "bytes an event", 143, less=True),
        ],
        in_batches_on_postgres,
    )


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
        ours = stack.enter_context(command_service(DATA_DIR=bench.data_dir(), AMQP_URL=amqp_url))
        peer = stack.enter_context(command_service(DATA_DIR=bench.data_dir()))

        def until_all(ledger: Server, reached: Callable[[Server], int]) -> Measure:
            def measure(seconds: float) -> float:
                first, begin = recorded(ledger), time.perf_counter()
                batches(ledger)(seconds)
                last = recorded(ledger)
                until(lambda: reached(ledger) >= last, "the broker to confirm it all")
                return (last - first) / (time.perf_counter() - begin)

            return measure

        return until_all(ours, confirmed), until_all(peer, recorded)

    def relay(stack: ExitStack) -> Measures:
        bind_a_queue(amqp_url)
        folder = bench.log(bench.sizes.backlog)

        def publish_again(_: float) -> float:
            copy = shutil.copytree(folder, bench.data_dir(), dirs_exist_ok=True)
            with command_service(accounts=0, DATA_DIR=copy, AMQP_URL=amqp_url) as ledger:
                head = ledger.metric("ledger_head_position")
                return rate_between(lambda: confirmed(ledger), head // 4, head)

        return publish_again, batches(stack.enter_context(command_service(DATA_DIR=bench.data_dir())))

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

        bare_ms = 0.0

        def bare_broker(seconds: float) -> float:
            nonlocal bare_ms
            bare_ms = peer_program("bare_broker", seconds, amqp_url)
            return bare_ms

        return [(under_half_the_load, bare_broker), (lambda _: percentile(99), lambda _: bare_ms)]

    until_confirmed = "batches of 1000, until RabbitMQ has confirmed them / without a broker"
    # 100,000 commands/s, where 116,340 was what a ledger without a broker took.
    yield row(Figure(until_confirmed, "commands/s", 0.86), published_batches)
    yield row(Figure("relay behind by a backlog, confirmed / batches of 1000", "events/s", 1), relay)
    yield row(Figure("queries of one account / Starlette echo", "requests/s", 0.6), queries)
    yield Row(
        [
            # 5 and 50 ms, where the broker alone took 1.8.
            Figure("acknowledged to visible, half the load, median / bare broker", "ms", 2.8, less=True),
            Figure("acknowledged to visible, half the load, 99th percentile / bare broker", "ms", 28, less=True),
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


def recorded(ledger: Server) -> int:
    return ledger.metric("ledger_head_position")


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


def spent(ledger: Server) -> tuple[float, int, int]:
    """So far: seconds of CPU, events, commits."""
    events, commits = ledger.metric("ledger_head_position"), ledger.metric("ledger_commit_seconds_count")
    return ledger.cpu_seconds() if HAS_PROC else 0, events, commits


def sqlite_bytes(path: Path) -> int:
    """Of a file that another process has open, with all that its write-ahead log holds."""
    with closing(apsw.Connection(str(path))) as connection:
        is_busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").get
    assert not is_busy
    return path.stat().st_size


def postgres_bytes(cluster: PostgresCluster, database: str) -> int:
    """Of all tables that are ours, with their indexes."""
    return int(cluster.sql(database, POSTGRES_SIZE))


def peer_program(name: str, *arguments: float | str) -> float:
    """What the program `benchmarks.peer_NAME` measures, on the servers' core."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.peer_{name}", *map(str, arguments)],
        preexec_fn=lambda: pin(SERVER_CORE),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(done.stdout)


def pgbench(cluster: PostgresCluster, script: str = "pgbench.sql", *options: str) -> Measure:
    database = cluster.create_database()
    cluster.sql(
        database,
        "CREATE TABLE accounts (id int PRIMARY KEY, balance bigint, version int);"
        "CREATE TABLE events (position bigserial PRIMARY KEY, account int, type text, data text);"
        "INSERT INTO accounts SELECT id, 0, 0 FROM generate_series(1, 1000) AS id",
    )
    path = Path(__file__).with_name(script)

    def measure(seconds: float) -> float:
        arguments = ["-n", "-c32", "-j2", f"-T{seconds:.0f}", *options, "-f", str(path), cluster.url(database)]
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
