"""`make faults SEED=… MINUTES=…`: a long run, with a line of progress and a report at its end."""

import asyncio
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tests.faults.run import Report, survive


def main(
    minutes: Annotated[float, typer.Option(help="How long faults are injected.", min=0.1)] = 15,
    seed: Annotated[int | None, typer.Option(help="Of the faults and the commands; a random one when absent.")] = None,
) -> None:
    """Load a bank of two command services and two projections, break it, and check what is left.

    Exit status 1 when a promise was broken; the services' logs are kept then.
    """
    folder = Path(tempfile.mkdtemp(prefix="counting-house-faults-"))
    report = asyncio.run(watch(folder, minutes * 60, Random().getrandbits(32) if seed is None else seed))
    print(report)
    if report.violations:
        print(f"The logs of the services are in {folder}", file=sys.stderr)
        raise SystemExit(1)


async def watch(folder: Path, seconds_max: float, seed: int) -> Report:
    columns = (
        TextColumn("seed {task.fields[seed]}"),
        BarColumn(),
        TextColumn("{task.fields[faults]} faults, {task.fields[acknowledged]} commands acknowledged"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        task = progress.add_task("", total=seconds_max, seed=seed, faults=0, acknowledged=0)

        def enough(seconds: float, faults: int, acknowledged: int) -> bool:
            progress.update(task, completed=seconds, faults=faults, acknowledged=acknowledged)
            return seconds >= seconds_max

        return await survive(folder, seed, enough)


if __name__ == "__main__":
    typer.run(main)
