"""What a rebuild tells on its terminal, or in a log: sentences, and how far it is."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from shared.events import Position

LINE_SECONDS = 10
"""Where there is no terminal, so often a line says how far it is."""
SPEED_SECONDS = 5
"""Events a second are those of the last so many."""


class Display:
    """On the standard error: a bar on a terminal, lines elsewhere."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bar = progress.add_task("", total=None)
        self._line = self._start = time.monotonic()
        self._from: int | None = None

    def say(self, sentence: str) -> None:
        self._progress.console.print(escape(sentence), soft_wrap=True)

    def moved(self, position: Position, target: Position) -> None:
        """The new views are at `position`, and those in use at `target`."""
        if self._from is None:
            self._from, self._start = position, time.monotonic()
            self._progress.start()
        self._progress.update(self._bar, completed=position, total=target)
        now = time.monotonic()
        if self._progress.disable and now >= self._line + LINE_SECONDS:
            self._line = now
            speed = (position - self._from) / (now - self._start)
            self.say(f"at position {position} of {target}, {speed:,.0f} events/s")


@contextmanager
def display() -> Iterator[Display]:
    console = Console(stderr=True, highlight=False)
    progress = Progress(
        BarColumn(),
        TextColumn("position {task.completed:,} of {task.total:,}"),
        TextColumn("{task.speed:,.0f} events/s"),
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
