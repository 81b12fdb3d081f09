"""What must not grow: the cost of a command with all that was before it, and the memory with all that waits."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from benchmarks.rows import (
    Bench,
    Figure,
    Measure,
    Measures,
    Row,
    batches,
    bind_a_queue,
    confirmed,
    row,
    singles,
    visible,
)
from benchmarks.servers import (
    ACCOUNTS,
    HAS_PROC,
    Server,
    command_service,
    opened,
    projection_service,
    until,
    wrk_99th_ms,
)
from command_service.event_log.recent_states import SWEEP_EVENTS

SLOW_CLIENTS = 1000
SLOW_READER = b"GET /events?limit=10000 HTTP/1.1\r\nHost: bank\r\n\r\n"
SLOW_WRITER = (
    b"POST /commands HTTP/1.1\r\nHost: bank\r\nContent-Type: application/json\r\nContent-Length: 16000000\r\n\r\n"
    + b" " * 1_000_000
)
"""A sixteenth of its batch, and no more."""


def growth(bench: Bench) -> Iterator[Row]:
    """Ours is with many, the peer is ourselves with few: in batches, where a command is not lost in its request."""
    sizes = bench.sizes
    many, long_log, rounds = f"{sizes.many:,}", f"{sizes.long_log:,}", sizes.growth_rounds

    def deposits(stack: ExitStack) -> Measures:
        ours, peer = (stack.enter_context(opened(bench.log(0, accounts))) for accounts in (sizes.many, 1))
        return singles(ours, accounts=sizes.many), singles(peer, accounts=1)

    def lists(stack: ExitStack) -> Measures:
        ledger = stack.enter_context(opened(bench.log(0, sizes.many)))
        views = {"DATA_DIR": bench.data_dir(), "PROJECTION_VIEWS": "accounts,directory"}
        ours = stack.enter_context(projection_service(LEDGER_URL=ledger.url, **views))
        head = ledger.metric("ledger_head_position")
        until(lambda: ours.metric("projection_position") >= head, "the projection to catch up")

        def asked(load: str) -> Measure:
            return lambda seconds: wrk_99th_ms(ours.url, load, seconds, sizes.many)

        return asked("list.lua"), asked("query.lua")

    def starts(*before: Callable[[str], None]) -> Callable[[ExitStack], Measures]:
        def started(events: int) -> Measure:
            folder = bench.log(events)

            def measure(_: float) -> float:
                for happen in before:
                    happen(folder)
                begin = time.perf_counter()
                with opened(folder) as server:
                    server.post("/account/deposit/account-0", {"amount": 1})
                    return time.perf_counter() - begin

            return measure

        return lambda _: (started(sizes.long_log), started(10_000))

    def a_kill(folder: str) -> None:
        with opened(folder) as server:
            bench.fill(server, 2 * SWEEP_EVENTS)
            os.kill(server.process_id, signal.SIGKILL)

    for work, goal, logs in (
        (f"{many} events on one account / 1", 0.8, [(sizes.many, 1), (1, 1)]),
        (f"{long_log} events in the log / 10,000", 0.8, [(sizes.long_log, ACCOUNTS), (10_000, ACCOUNTS)]),
        (f"{many} accounts / 1", 0.45, [(0, sizes.many), (0, 1)]),
    ):
        speed = Figure(f"batches: {work}", "commands/s", goal)
        peak = Figure(f"batches, peak memory: {work}", "MiB", 1.25, less=True)
        yield Row([speed, peak] if HAS_PROC else [speed], in_batches(bench, logs), rounds)
    yield row(Figure(f"deposits: {many} accounts / 1", "requests/s", 0.85), deposits, rounds)
    listed = f"filtered list of 20 / query of one account, 99th percentile: {many} accounts"
    yield row(Figure(listed, "ms", 5, less=True), lists, rounds)
    for what, before in (("start", []), ("start after a kill", [a_kill])):
        figure = Figure(f"{what}: {long_log} events in the log / 10,000", "s", 1.25, less=True)
        yield row(figure, starts(*before), rounds)


def in_batches(bench: Bench, logs: list[tuple[int, int]]) -> Callable[[ExitStack], Sequence[Measures]]:
    """Speed and peak memory of a command service with each of two logs, of so many events and accounts."""

    def prepare(stack: ExitStack) -> Sequence[Measures]:
        ours, peer = (stack.enter_context(opened(bench.log(*log))) for log in logs)
        (_, our_accounts), (_, peer_accounts) = logs
        speed = batches(ours, our_accounts), batches(peer, peer_accounts)
        peak = (lambda _: ours.peak_memory()), (lambda _: peer.peak_memory())
        return [speed, peak] if HAS_PROC else [speed]

    return prepare


def memory(bench: Bench) -> Iterator[Row]:
    """Peak memory of a service with a backlog before it: `many` events are about 370 bytes each."""
    if not HAS_PROC:
        return

    def peak_of_projection(stack: ExitStack) -> Measures:
        ledger = stack.enter_context(opened(bench.log(bench.sizes.many)))

        def catch_up(_: float) -> float:
            with projection_service(DATA_DIR=bench.data_dir(), LEDGER_URL=ledger.url) as projection:
                until(lambda: visible(projection) >= bench.sizes.many, "the projection to catch up")
                return projection.peak_memory()

        return catch_up, None

    def peak_of_relay(stack: ExitStack) -> Measures:
        def outage(_: float) -> float:
            bind_a_queue(bench.node.amqp_url)
            bench.node.stop()
            with command_service(DATA_DIR=bench.data_dir(), AMQP_URL=bench.node.amqp_url) as ledger:
                bench.fill(ledger, bench.sizes.many)
                bench.node.start()
                until(lambda: confirmed(ledger) > bench.sizes.many, "the relay to publish it all")
                return ledger.peak_memory()

        return outage, None

    def peak_with_slow_clients(stack: ExitStack) -> Measures:
        ledger = stack.enter_context(opened(bench.log(bench.sizes.backlog)))

        def meet_slow_clients(_: float) -> float:
            with ExitStack() as clients:
                for number in range(SLOW_CLIENTS):
                    clients.enter_context(slow_client(ledger, SLOW_READER if number % 2 else SLOW_WRITER))
                # The others are served as ever.
                singles(ledger)(1)
                return ledger.peak_memory()

        return meet_slow_clients, None

    many = f"{bench.sizes.many:,}"
    yield row(
        Figure(f"peak memory: projection {many} events behind", "MiB", 256, less=True), peak_of_projection, rounds=1
    )
    yield row(Figure(f"peak memory: broker down for {many} events", "MiB", 256, less=True), peak_of_relay, rounds=1)
    yield row(
        Figure(f"peak memory: {SLOW_CLIENTS} slow clients", "MiB", 512, less=True), peak_with_slow_clients, rounds=1
    )


@contextmanager
def slow_client(server: Server, request: bytes) -> Iterator[None]:
    """It has sent `request`, and neither sends nor reads any more."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((host, int(port)))
        client.settimeout(5)
        # A writer that the server refuses is answered, and read no further.
        with suppress(TimeoutError):
            client.sendall(request)
        yield
