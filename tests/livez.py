"""Asks services all along whether they live, from a process of its own: nothing that its parent does delays it.

`python -m tests.livez URL …` asks each of them until its input ends. It prints a line when it has begun, and at its end
one of JSON for each.
"""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.client import HTTPConnection, HTTPException
from typing import NamedTuple
from urllib.parse import urlsplit

PAUSE_SECONDS = 0.02
ANSWER_SECONDS = 60


class Delay(NamedTuple):
    """Of the answers of one service: the worst, and how many there were and were not."""

    worst_ms: float
    answers: int
    failures: int


class Probe:
    """`delays` has one for each URL when the block that it belongs to has been left."""

    def __init__(self) -> None:
        self.delays: list[Delay] = []


@asynccontextmanager
async def probe(*urls: str) -> AsyncIterator[Probe]:
    """Ask them in turns, as long as the block lasts."""
    process = _start(urls)
    found = Probe()
    assert process.stdout is not None
    await asyncio.to_thread(process.stdout.readline)
    try:
        yield found
    finally:
        output, _ = await asyncio.to_thread(process.communicate, b"", ANSWER_SECONDS * 2)
        found.delays = [Delay(*json.loads(line)) for line in output.splitlines()]


def _start(urls: tuple[str, ...]) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "tests.livez", *urls]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def watch(url: str, stop: threading.Event, ready: threading.Barrier) -> Delay:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=ANSWER_SECONDS)
    worst, answers, failures = 0.0, 0, 0
    while not stop.wait(PAUSE_SECONDS if answers else 0):
        begin = time.perf_counter()
        try:
            connection.request("GET", "/livez")
            response = connection.getresponse()
            response.read()
            is_alive = response.status == 200
        except (OSError, HTTPException):
            connection.close()
            is_alive = False
        worst = max(worst, time.perf_counter() - begin)
        answers, failures = answers + is_alive, failures + (not is_alive)
        if answers + failures == 1:
            ready.wait()
    return Delay(worst * 1000, answers, failures)


def main() -> None:
    stop, ready = threading.Event(), threading.Barrier(len(sys.argv))
    found: dict[str, Delay] = {}

    def keep(url: str) -> None:
        found[url] = watch(url, stop, ready)

    threads = [threading.Thread(target=keep, args=(url,)) for url in sys.argv[1:]]
    for thread in threads:
        thread.start()
    ready.wait()
    print(flush=True)
    sys.stdin.buffer.read()
    stop.set()
    for thread in threads:
        thread.join()
    for url in sys.argv[1:]:
        print(json.dumps(found[url]))


if __name__ == "__main__":
    main()
