"""What a rebuild tells on its terminal, or in a log: sentences, and how far it is."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from shared.events import Position

LINE_SECONDS = 10
"""Where there is no terminal, so often a line says how far it is."""
SPEED_SECONDS = 5
"""Events a second are those of the last so many."""


class Display:
    """On the standard error: a bar on a terminal, lines elsewhere."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bar: TaskID | None = None
        self._line = time.monotonic()

    def say(self, sentence: str) -> None:
        self._progress.console.print(escape(sentence), soft_wrap=True)

    def moved(self, position: Position, target: Position) -> None:
        if self._bar is None:
            self._bar = self._progress.add_task("", completed=position, total=target, speed="")
            self._progress.start()
        speed = f"{self._progress.tasks[self._bar].speed or 0:,.0f} events/s"
        self._progress.update(self._bar, completed=position, total=target, speed=speed)
        if self._progress.disable and time.monotonic() >= self._line + LINE_SECONDS:
            self._line = time.monotonic()
            self.say(f"at position {position:,} of {target:,}, {speed}")


@contextmanager
def display() -> Iterator[Display]:
    console = Console(stderr=True, highlight=False)
    progress = Progress(
        BarColumn(),
        TextColumn("position {task.completed:,} of {task.total:,}"),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
        console=console,
        speed_estimate_period=SPEED_SECONDS,
        transient=True,
        disable=not console.is_terminal,
    )
    try:
        yield Display(progress)
    finally:
        progress.stop()
