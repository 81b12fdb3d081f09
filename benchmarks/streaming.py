"""What it takes to tell a thousand readers of each event as it comes."""

import json
import selectors
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from benchmarks.rows import Bench, Figure, Measures, Row
from benchmarks.servers import HAS_PROC, WAIT_SECONDS, Server, command_service, projection_service

READERS = 1000
EVENTS_A_SECOND = 1000
BATCHES_A_SECOND = 50
RECEIVE_BYTES = 256 * 1024
BEGINNING = b"\nid: "
"""Of each event, after the line before it."""


def streaming(bench: Bench) -> Iterator[Row]:
    def readers(stack: ExitStack) -> Sequence[Measures]:
        ledger = stack.enter_context(command_service(DATA_DIR=bench.data_dir()))
        projection = stack.enter_context(projection_service(DATA_DIR=bench.data_dir(), LEDGER_URL=ledger.url))
        seconds_behind = 0.0

        def told(seconds: float) -> float:
            nonlocal seconds_behind
            part, seconds_behind = stream_to(READERS, ledger, projection, max(seconds, 3))
            return part

        measures: list[Measures] = [(told, None), (lambda _: seconds_behind, None)]
        return [*measures, (lambda _: projection.peak_memory(), None)] if HAS_PROC else measures

    what = f"stream of {EVENTS_A_SECOND:,} events/s to {READERS:,} readers"
    figures = [Figure(f"{what}, events told / recorded", "", 1), Figure(f"{what}, until all have the last one", "s")]
    memory = Figure(f"{what}, peak memory", "MiB", 256, less=True)
    yield Row([*figures, memory] if HAS_PROC else figures, readers)


def stream_to(readers: int, ledger: Server, projection: Server, seconds: float) -> tuple[float, float]:
    """Which part of the events of so many seconds each of so many readers has got, at least; and how long after the
    last acknowledgement all had the last one. Raises `RuntimeError` when a reader got one twice."""
    before = ledger.metric("ledger_head_position")
    host, port = projection.url.removeprefix("http://").split(":")
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        counts: dict[int, int] = {}
        ends: dict[int, bytes] = {}
        for _ in range(readers):
            client = stack.enter_context(socket.create_connection((host, int(port))))
            client.sendall(f"GET /stream?after={before} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            client.setblocking(False)
            selector.register(client, selectors.EVENT_READ)
            counts[client.fileno()], ends[client.fileno()] = 0, b""
        loaded: list[float] = []
        load = threading.Thread(target=lambda: loaded.append(deposit(ledger, seconds)))
        load.start()
        number = round(seconds * EVENTS_A_SECOND)
        missing, deadline = readers, time.monotonic() + WAIT_SECONDS
        while missing and time.monotonic() < deadline:
            for key, _ in selector.select(timeout=1):
                said = key.fileobj.recv(RECEIVE_BYTES)  # type: ignore[union-attr]
                if not said:
                    raise RuntimeError("a reader was cut off")
                text = ends[key.fd] + said
                ends[key.fd] = text[-len(BEGINNING) + 1 :]
                had = counts[key.fd]
                counts[key.fd] += text.count(BEGINNING)
                missing -= had < number <= counts[key.fd]
        at_the_end = time.monotonic()
        load.join()
    if max(counts.values()) > number:
        raise RuntimeError("a reader got an event twice")
    return min(counts.values()) / number, at_the_end - loaded[0]


def deposit(ledger: Server, seconds: float) -> float:
    """At an even rate. When the last one was acknowledged."""
    command = {"type": "deposit", "account_id": "account-0", "amount": 1}
    body = json.dumps([command] * (EVENTS_A_SECOND // BATCHES_A_SECOND)).encode()
    begin = time.monotonic()
    for number in range(round(seconds * BATCHES_A_SECOND)):
        time.sleep(max(0, begin + number / BATCHES_A_SECOND - time.monotonic()))
        request = urllib.request.Request(f"{ledger.url}/commands", body, {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=WAIT_SECONDS).close()
    return time.monotonic()
