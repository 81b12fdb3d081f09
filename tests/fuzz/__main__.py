"""`make fuzz SEED=… MINUTES=…`: requests, messages and pages of the feed, and what was wrong with any of them."""

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Annotated

import typer

from scripts.rabbitmq import RabbitMQNode
from tests.fuzz.feed import fuzz_feed
from tests.fuzz.messages import fuzz_messages
from tests.fuzz.run import IDLE_TIMES_MAX, LIVEZ_MS_MAX, fuzz

PROGRESS_SECONDS = 10
PARTS = {"requests": 0.7, "messages": 0.15, "pages of the feed": 0.15}
"""Of the time."""


def main(
    minutes: Annotated[float, typer.Option(help="How long it takes.", min=0.1)] = 5,
    seed: Annotated[
        int | None, typer.Option(help="The same seed makes the same requests; a random one when absent.")
    ] = None,
) -> None:
    """Send the services what nobody should send them. Exit status 1 when anything was wrong; the logs are kept then."""
    folder = Path(tempfile.mkdtemp(prefix="counting-house-fuzz-"))
    wrong = asyncio.run(run(folder, minutes * 60, Random().getrandbits(32) if seed is None else seed))
    print("\n".join(wrong) or "nothing was wrong")
    if wrong:
        print(f"The logs of the services are in {folder}", file=sys.stderr)
        raise SystemExit(1)


async def run(folder: Path, seconds: float, seed: int) -> list[str]:
    requests, messages, pages = (_folder(folder, part) for part in PARTS)
    report = await fuzz(requests, seed, for_seconds("requests", seconds))
    print(report)
    wrong = [] if report.is_good else ["requests: see above"]
    if not report.is_fast:
        wrong.append(f"/livez took over {LIVEZ_MS_MAX} ms, and over {IDLE_TIMES_MAX} times what an idle service took")
    node = RabbitMQNode(folder / "rabbitmq")
    try:
        await asyncio.to_thread(node.start)
        wrong += await fuzz_messages(messages, node.amqp_url, seed, for_seconds("messages", seconds))
    finally:
        node.close()
    return wrong + await fuzz_feed(pages, seed, for_seconds("pages of the feed", seconds))


def _folder(folder: Path, part: str) -> Path:
    inner = folder / part.replace(" ", "-")
    inner.mkdir()
    return inner


def for_seconds(part: str, seconds: float) -> Callable[[int], bool]:
    """Enough is when the part's share of `seconds` is over; says now and then how many there were."""
    begin = said = time.monotonic()

    def enough(number: int) -> bool:
        nonlocal said
        now = time.monotonic()
        if now - said > PROGRESS_SECONDS:
            said = now
            print(f"{number} {part}", file=sys.stderr)
        return now - begin > seconds * PARTS[part]

    return enough


if __name__ == "__main__":
    typer.run(main)
