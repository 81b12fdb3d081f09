"""`make bench`: each path against its peer in the same run, in turns, since machines are shared and noisy."""

import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from matplotlib import pyplot
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.catching_up import catching_up
from benchmarks.growth import growth, memory
from benchmarks.history import history
from benchmarks.rows import Bench, Figure, Row, Sizes, commands, events
from benchmarks.servers import LOAD_CORE, pinned
from benchmarks.streaming import streaming
from benchmarks.transfers import transfers
from scripts.postgres import PostgresCluster
from scripts.rabbitmq import RabbitMQNode

RESULTS = Path(__file__).parent / "results.json"
PLOT = Path(__file__).parent.parent / "docs" / "performance.svg"
PARTS = (commands, transfers, events, catching_up, history, streaming, growth, memory)
FULL = Sizes(rounds=5, growth_rounds=5, seconds=5, backlog=200_000, many=1_000_000, long_log=10_000_000)
QUICK = Sizes(rounds=2, growth_rounds=1, seconds=1, backlog=50_000, many=50_000, long_log=100_000)


class Result(NamedTuple):
    figure: Figure
    ours: list[float]
    peer: list[float]

    @property
    def ratios(self) -> list[float]:
        """Ours to the peer's of the same round, or to the goal where there is no peer. None without a goal."""
        if self.figure.goal is None:
            return []
        others = self.peer or [self.figure.goal] * len(self.ours)
        return [one / other for one, other in zip(self.ours, others, strict=True)]

    @property
    def margins(self) -> list[float]:
        """The ratios as multiples of the goal, turned over where less is better: 1 reaches it."""
        goal = self.figure.goal if self.figure.goal is not None and self.peer else 1
        return [goal / ratio if self.figure.less else ratio / goal for ratio in self.ratios]

    @property
    def is_reached(self) -> bool:
        return statistics.median(self.margins) >= 1


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Some four minutes: fewer, shorter, smaller.")] = False,
    only: Annotated[str, typer.Option(help="Only the rows with this in their name; nothing is written.")] = "",
) -> None:
    """Measure every path, print ratios, and write benchmarks/results.json and docs/performance.svg."""
    with benches(QUICK if quick else FULL) as bench:
        chosen = [row for part in PARTS for row in part(bench) if any(only in figure.name for figure in row.figures)]
        task = bench.progress.add_task("", total=len(chosen))
        results = []
        for row in chosen:
            bench.progress.update(task, description=row.figures[0].name)
            results += measure(bench, row, lambda part: bench.progress.advance(task, part))
    print_table(results)
    if not only:
        RESULTS.write_text(json.dumps([as_dict(result) for result in results], indent=1) + "\n")
        plot(results)


def measure(bench: Bench, row: Row, advance: Callable[[float], None]) -> list[Result]:
    results = [Result(figure, [], []) for figure in row.figures]
    with ExitStack() as stack:
        measures = row.prepare(stack)
        rounds = row.rounds or bench.sizes.rounds
        for _ in range(rounds):
            for result, (ours, peer) in zip(results, measures, strict=True):
                result.ours.append(ours(bench.sizes.seconds))
                if peer is not None:
                    result.peer.append(peer(bench.sizes.seconds))
            advance(1 / rounds)
    return results


def as_dict(result: Result) -> dict[str, object]:
    return {**result.figure._asdict(), "ours": result.ours, "peer": result.peer}


@contextmanager
def benches(sizes: Sizes) -> Iterator[Bench]:
    """PostgreSQL takes what both cores have left; RabbitMQ has the core of the load."""
    with (
        tempfile.TemporaryDirectory(prefix="counting-house-bench-") as name,
        ExitStack() as stack,
        Progress(console=Console(stderr=True)) as progress,
    ):
        folder = Path(name)
        cluster, node = PostgresCluster(), RabbitMQNode(folder / "rabbitmq")
        stack.callback(cluster.close)
        stack.callback(node.close)
        cluster.start()
        with pinned(LOAD_CORE):
            node.start()
        yield Bench(folder, cluster, node, progress, sizes, {})


def print_table(results: list[Result]) -> None:
    table = Table("work", "ours", "peer", "ratio (least to most)", "goal", "")
    for result in results:
        ratios, goal = result.ratios, result.figure.goal
        table.add_row(
            result.figure.name,
            f"{number(statistics.median(result.ours))} {result.figure.unit}",
            number(statistics.median(result.peer)) if result.peer else "",
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else "",
            ""
            if goal is None
            else ("at most " if result.figure.less else "") + (f"{goal:g} x" if result.peer else f"{goal:,.0f}"),
            "" if goal is None else "reached" if result.is_reached else "missed",
        )
    Console(width=None if sys.stdout.isatty() else 180).print(table)


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def plot(results: list[Result]) -> None:
    """Ratios with their spread, and the goal of each row that has one; less is drawn the other way round."""
    results = [result for result in results if result.figure.goal is not None]
    pyplot.rcParams.update({"svg.hashsalt": "counting house", "svg.fonttype": "none", "font.family": "sans-serif"})
    figure, axes = pyplot.subplots(figsize=(11, 0.36 * len(results) + 1.2), layout="constrained")
    for place, result in enumerate(results):
        margins = result.margins
        middle = statistics.median(margins)
        axes.barh(place, middle - 1, left=1, color="#2a7f62" if result.is_reached else "#c0563b")
        axes.plot([min(margins), max(margins)], [place, place], color="black", linewidth=1)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda times, _: f"{times:g}")
    axes.set_xlabel("times the goal; the thin line at the end of a bar is the spread over the rounds")
    axes.set_yticks(range(len(results)), [result.figure.name for result in results])
    axes.invert_yaxis()
    figure.savefig(PLOT, metadata={"Date": None})


if __name__ == "__main__":
    typer.run(main)
