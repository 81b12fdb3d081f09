"""What must not grow: the cost of a command with all that was before it, and the memory with all that waits."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from benchmarks.rows import Bench, Measure, Measures, Row, batches, bind_a_queue, confirmed, singles, visible
from benchmarks.servers import Server, command_service, projection_service, until

SLOW_CLIENTS = 1000
SLOW_READER = b"GET /events?limit=10000 HTTP/1.1\r\nHost: bank\r\n\r\n"
SLOW_WRITER = (
    b"POST /commands HTTP/1.1\r\nHost: bank\r\nContent-Type: application/json\r\nContent-Length: 16000000\r\n\r\n"
    + b" " * 1_000_000
)
"""A sixteenth of its batch, and no more."""


def growth(bench: Bench) -> Iterator[Row]:
    """Ours is with many, the peer is ourselves with few."""
    sizes = bench.sizes

    def one_account(stack: ExitStack, events: int) -> Server:
        server = stack.enter_context(command_service(accounts=1, DATA_DIR=bench.data_dir()))
        bench.fill(server, events, accounts=1)
        return server

    def accounts(stack: ExitStack, accounts: int) -> Server:
        return stack.enter_context(command_service(accounts=accounts, DATA_DIR=bench.data_dir()))

    def start(folder: str) -> Measure:
        def measure(_: float) -> float:
            begin = time.perf_counter()
            with command_service(accounts=0, DATA_DIR=folder) as server:
                server.post("/account/deposit/account-0", {"amount": 1})
                return time.perf_counter() - begin

        return measure

    def starts(_: ExitStack) -> Measures:
        folders = []
        for events in (sizes.long_log, 10_000):
            folders.append(bench.data_dir())
            with command_service(DATA_DIR=folders[-1]) as server:
                bench.fill(server, events)
        return start(folders[0]), start(folders[1])

    def long_log(load: Callable[[Server], Measure]) -> Callable[[ExitStack], Measures]:
        def prepare(stack: ExitStack) -> Measures:
            servers = [stack.enter_context(command_service(DATA_DIR=bench.data_dir())) for _ in range(2)]
            for server, events in zip(servers, (sizes.long_log, 10_000), strict=True):
                bench.fill(server, events)
            return load(servers[0]), load(servers[1])

        return prepare

    def many_events(load: Callable[..., Measure]) -> Callable[[ExitStack], Measures]:
        return lambda stack: (load(one_account(stack, sizes.many), accounts=1), load(one_account(stack, 1), accounts=1))

    def many_accounts(load: Callable[..., Measure]) -> Callable[[ExitStack], Measures]:
        return lambda stack: (
            load(accounts(stack, sizes.many), accounts=sizes.many),
            load(accounts(stack, 1), accounts=1),
        )

    many, log = f"{sizes.many:,}", f"{sizes.long_log:,}"
    yield Row(f"deposits: {many} events on one account / 1", "requests/s", 0.8, many_events(singles))
    yield Row(f"deposits: {many} accounts / 1", "requests/s", 0.8, many_accounts(singles))
    yield Row(f"deposits: {log} events in the log / 10,000", "requests/s", 0.8, long_log(singles))
    yield Row(f"batches: {many} events on one account / 1", "commands/s", 0.8, many_events(batches))
    yield Row(f"batches: {many} accounts / 1", "commands/s", 0.8, many_accounts(batches))
    yield Row(f"batches: {log} events in the log / 10,000", "commands/s", 0.8, long_log(batches))
    yield Row(f"start to first deposit: {log} events in the log / 10,000", "s", 1.25, starts, less=True)


def memory(bench: Bench) -> Iterator[Row]:
    """Peak memory of a service with a backlog before it: `many` events are about 370 bytes each."""

    def peak_of_projection(stack: ExitStack) -> Measures:
        ledger = stack.enter_context(command_service(DATA_DIR=bench.data_dir()))
        bench.fill(ledger, bench.sizes.many)

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
        ledger = stack.enter_context(command_service(DATA_DIR=bench.data_dir()))
        bench.fill(ledger, bench.sizes.backlog)

        def meet_slow_clients(_: float) -> float:
            with ExitStack() as clients:
                for number in range(SLOW_CLIENTS):
                    clients.enter_context(slow_client(ledger, SLOW_READER if number % 2 else SLOW_WRITER))
                # The others are served as ever.
                singles(ledger)(1)
                return ledger.peak_memory()

        return meet_slow_clients, None

    many = f"{bench.sizes.many:,}"
    yield Row(f"peak memory: projection {many} events behind", "MiB", 256, peak_of_projection, less=True, once=True)
    yield Row(f"peak memory: broker down for {many} events", "MiB", 256, peak_of_relay, less=True, once=True)
    yield Row(f"peak memory: {SLOW_CLIENTS} slow clients", "MiB", 512, peak_with_slow_clients, less=True, once=True)


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
