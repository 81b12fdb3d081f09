"""What a rebuild tells on its terminal, or in a log: sentences, and how far it is."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from shared.events import Position

LINE_SECONDS = 10
"""Where there is no terminal, so often a line says how far it is."""
SPEED_SECONDS = 5
"""Events a second are those of the last so many."""


class Display:
    """On the standard error: a bar on a terminal, lines elsewhere."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bar = progress.add_task("", rest="")
        self._line = time.monotonic()
        self._seen: deque[tuple[float, int]] = deque()

    def say(self, sentence: str) -> None:
        self._progress.console.print(escape(sentence), soft_wrap=True)

    def moved(self, position: Position, target: Position) -> None:
        """The bar's own speed begins again whenever the target moves, which it does all the time."""
        now = time.monotonic()
        self._seen.append((now, position))
        while self._seen[0][0] < now - SPEED_SECONDS and len(self._seen) > 2:
            self._seen.popleft()
        then, before = self._seen[0]
        speed = (position - before) / (now - then) if now > then else 0
        rest = f"{speed:,.0f} events/s"
        if speed >= 1:
            rest += f", {timedelta(seconds=round((target - position) / speed))} to go"
        self._progress.update(self._bar, completed=position, total=target, rest=rest)
        self._progress.start()
        if self._progress.disable and now >= self._line + LINE_SECONDS:
            self._line = now
            self.say(f"at position {position:,} of {target:,}, {rest}")


@contextmanager
def display() -> Iterator[Display]:
    console = Console(stderr=True, highlight=False)
    progress = Progress(
        BarColumn(),
        TextColumn("position {task.completed:,} of {task.total:,}"),
        TextColumn("{task.fields[rest]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    try:
        yield Display(progress)
    finally:
        progress.stop()
