"""`make bench`: each path against its peer in the same run, in turns, since machines are shared and noisy."""

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.servers import command_service, echo, get, post, projection_service, wrk
from scripts.postgres import PostgresCluster
from scripts.rabbitmq import RabbitMQNode
from shared.messaging import declare_exchange, open_channel

RESULTS = Path(__file__).parent / "results.json"
BATCH = 1000
BACKLOG_EVENTS = 200_000
Measure = Callable[[float], float]
"""Runs for about so many seconds; what was done in a second."""


class Row(NamedTuple):
    """`goal` is what `ours` should be: a multiple of the peer where there is one, otherwise a number a second."""

    name: str
    unit: str
    goal: float
    prepare: Callable[[ExitStack], tuple[Measure, Measure | None]]


def rows(folder: Path, cluster: PostgresCluster, node: RabbitMQNode) -> Iterator[Row]:
    def data_dir() -> str:
        return tempfile.mkdtemp(dir=folder)

    def load(url: str, script: str, connections: int, per_request: int = 1) -> Measure:
        return lambda seconds: wrk(url, script, connections, seconds) * per_request

    def single(connections: int, framework: str) -> Callable[[ExitStack], tuple[Measure, Measure]]:
        def prepare(stack: ExitStack) -> tuple[Measure, Measure]:
            ours = stack.enter_context(command_service(DATA_DIR=data_dir()))
            peer = stack.enter_context(echo(framework))
            return load(ours, "deposit.lua", connections), load(peer, "deposit.lua", connections)

        return prepare

    def single_on_postgres(stack: ExitStack) -> tuple[Measure, Measure]:
        ours = stack.enter_context(command_service(DATABASE_URL=cluster.url(cluster.create_database())))
        return load(ours, "deposit.lua", 128), pgbench(cluster)

    def batches(stack: ExitStack) -> tuple[Measure, None]:
        return load(stack.enter_context(command_service(DATA_DIR=data_dir())), "batch.lua", 4, BATCH), None

    def published_batches(stack: ExitStack) -> tuple[Measure, None]:
        asyncio.run(bind_a_queue(node.amqp_url))
        url = stack.enter_context(command_service(DATA_DIR=data_dir(), AMQP_URL=node.amqp_url))

        def measure(seconds: float) -> float:
            """Until the broker has confirmed all of it."""
            first, begin = metric(url, "ledger_head_position"), time.perf_counter()
            wrk(url, "batch.lua", 4, seconds)
            last = metric(url, "ledger_head_position")
            while metric(url, "ledger_relay_confirmed_position") < last:
                time.sleep(0.02)
            return (last - first) / (time.perf_counter() - begin)

        return measure, None

    def queries(stack: ExitStack) -> tuple[Measure, Measure]:
        commands = stack.enter_context(command_service(DATA_DIR=data_dir()))
        ours = stack.enter_context(projection_service(DATA_DIR=data_dir(), LEDGER_URL=commands))
        get(f"{ours}/reserve?min_position=1000&wait=30")
        peer = stack.enter_context(echo("starlette"))
        return load(ours, "query.lua", 32), load(peer, "query.lua", 32)

    def catching_up(stack: ExitStack) -> tuple[Measure, None]:
        commands = stack.enter_context(command_service(DATA_DIR=data_dir()))
        deposits = [{"type": "deposit", "account_id": f"account-{n % 1000}", "amount": 1} for n in range(10_000)]
        for _ in range(BACKLOG_EVENTS // 10_000):
            post(f"{commands}/commands", deposits)

        def measure(_: float) -> float:
            with projection_service(DATA_DIR=data_dir(), LEDGER_URL=commands) as url:
                return time_between(url, BACKLOG_EVENTS // 4, BACKLOG_EVENTS)

        return measure, None

    yield Row("deposits, SQLite, 32 connections / Starlette echo", "requests/s", 0.6, single(32, "starlette"))
    yield Row("deposits, SQLite, 128 connections / Starlette echo", "requests/s", 0.6, single(128, "starlette"))
    yield Row("deposits, SQLite, 32 connections / FastAPI echo", "requests/s", 1, single(32, "fastapi"))
    yield Row("deposits, PostgreSQL, 128 connections / pgbench, 32 clients", "requests/s", 1, single_on_postgres)
    yield Row("batches of 1000, SQLite", "commands/s", 100_000, batches)
    yield Row("batches of 1000, SQLite, published and confirmed", "commands/s", 100_000, published_batches)
    yield Row("queries of one account, SQLite / Starlette echo", "requests/s", 0.6, queries)
    yield Row("projection catching up from the feed, SQLite", "events/s", 100_000, catching_up)


async def bind_a_queue(amqp_url: str) -> None:
    """As a projection's, but nobody consumes it, and it forgets what is old."""
    async with open_channel(amqp_url, "bench", publisher_confirms=False) as channel:
        queue = await channel.declare_queue("bench", durable=True, arguments={"x-max-length": 10})
        await queue.bind(await declare_exchange(channel))


def metric(url: str, name: str) -> float:
    _, text = get(f"{url}/metrics")
    return next(float(line.split()[1]) for line in text.decode().splitlines() if line.startswith(f"{name} "))


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
        done = subprocess.run(
            [cluster.binaries / "pgbench", *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
        (line,) = (line for line in done.stdout.splitlines() if line.startswith("tps = "))
        return float(line.split()[2])

    return measure


def time_between(url: str, first: int, last: int) -> float:
    """Events a second between two positions of a projection: its start does not count."""
    reached = []
    for position in (first, last):
        while True:
            headers, _ = get(f"{url}/reserve")
            if int(headers["ledger-position"]) >= position:
                reached.append((time.perf_counter(), int(headers["ledger-position"])))
                break
            time.sleep(0.005)
    (begin, start), (end, stop) = reached
    return (stop - start) / (end - begin)


class Result(NamedTuple):
    name: str
    unit: str
    goal: float
    ours: list[float]
    peer: list[float]

    @property
    def ratios(self) -> list[float]:
        """Ours to the peer's of the same round, or to the goal where there is no peer."""
        return [one / other for one, other in zip(self.ours, self.peer or [self.goal] * len(self.ours), strict=True)]

    @property
    def is_reached(self) -> bool:
        return statistics.median(self.ratios) >= (self.goal if self.peer else 1)


@contextmanager
def servers() -> Iterator[tuple[Path, PostgresCluster, RabbitMQNode]]:
    with tempfile.TemporaryDirectory(prefix="counting-house-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        cluster, node = PostgresCluster(), RabbitMQNode(folder / "rabbitmq")
        stack.callback(cluster.close)
        stack.callback(node.close)
        cluster.start()
        node.start()
        yield folder, cluster, node


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Under two minutes: fewer and shorter rounds.")] = False,
    only: Annotated[str, typer.Option(help="Only the rows with this in their name.")] = "",
) -> None:
    """Measure every path, print ratios, and write benchmarks/results.json."""
    rounds, seconds = (2, 2.0) if quick else (5, 6.0)
    results = []
    with servers() as (folder, cluster, node), Progress(console=Console(stderr=True)) as progress:
        chosen = [row for row in rows(folder, cluster, node) if only in row.name]
        task = progress.add_task("", total=len(chosen) * rounds)
        for row in chosen:
            progress.update(task, description=row.name)
            result = Result(row.name, row.unit, row.goal, [], [])
            with ExitStack() as stack:
                ours, peer = row.prepare(stack)
                for _ in range(rounds):
                    result.ours.append(ours(seconds))
                    if peer is not None:
                        result.peer.append(peer(seconds))
                    progress.advance(task)
            results.append(result)
    print_table(results)
    if not only:
        RESULTS.write_text(json.dumps([result._asdict() for result in results], indent=1) + "\n")


def print_table(results: list[Result]) -> None:
    table = Table("work", "ours", "peer", "ratio (least to most)", "goal", "")
    for result in results:
        table.add_row(
            result.name,
            f"{statistics.median(result.ours):,.0f} {result.unit}",
            f"{statistics.median(result.peer):,.0f}" if result.peer else "",
            f"{statistics.median(result.ratios):.2f} ({min(result.ratios):.2f} to {max(result.ratios):.2f})",
            f"{result.goal:.1f} x" if result.peer else f"{result.goal:,.0f}",
            "reached" if result.is_reached else "missed",
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    typer.run(main)
