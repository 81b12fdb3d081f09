"""What it costs to look back: statements and balances of an account with many events."""

import csv
import io
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice

from benchmarks.rows import Bench, Figure, Measure, Measures, Row, visible
from benchmarks.servers import LOAD_CORE, WAIT_SECONDS, Server, opened, pinned, projection_service, until, wrk

STATEMENT = "/account/account-0/statement"
PEER_LINES_MAX = 100_000
"""As many of the same lines are written again in memory: a million would take a gigabyte."""


def history(bench: Bench) -> Iterator[Row]:
    many = bench.sizes.many

    def prepare(stack: ExitStack) -> Sequence[Measures]:
        ledger = stack.enter_context(opened(bench.log(many, accounts=1)))
        views = "accounts,reserve,history"
        ours = stack.enter_context(
            projection_service(DATA_DIR=bench.data_dir(), LEDGER_URL=ledger.url, PROJECTION_VIEWS=views)
        )
        until(lambda: visible(ours) > many, "the projection to catch up")

        def asked(load: str) -> Measure:
            """Milliseconds for one after the other."""
            return lambda seconds: 1000 / wrk(ours.url, load, 1, seconds, many if load == "past.lua" else 1)

        return [
            (asked("statement.lua"), asked("query.lua")),
            (asked("past.lua"), asked("query.lua")),
            (lambda _: streamed(ours), lambda _: written(ours)),
        ]

    yield Row(
        [
            Figure(f"first page of a statement of {many:,} lines / query of the account", "ms", 2, less=True),
            Figure(f"the account at one of {many:,} positions / query of it", "ms", 2, less=True),
            Figure(f"statement of {many:,} lines as CSV / the same by csv.writer in memory", "lines/s", 0.3),
        ],
        prepare,
        bench.sizes.growth_rounds,
    )


def csv_of(server: Server) -> "urllib.request._UrlopenRet":
    request = urllib.request.Request(server.url + STATEMENT, headers={"Accept": "text/csv"})
    return urllib.request.urlopen(request, timeout=WAIT_SECONDS)


def streamed(server: Server) -> float:
    """Lines a second, all of them."""
    begin, lines = time.perf_counter(), 0
    with pinned(LOAD_CORE), csv_of(server) as response:
        while piece := response.read(256 * 1024):
            lines += piece.count(b"\n")
    return lines / (time.perf_counter() - begin)


def written(server: Server) -> float:
    """Lines a second, with numbers as numbers."""
    with pinned(LOAD_CORE), csv_of(server) as response:
        lines = csv.reader(io.TextIOWrapper(response, newline=""))
        rows = [
            tuple(int(value) if value.lstrip("-").isdecimal() else value for value in line)
            for line in islice(lines, PEER_LINES_MAX)
        ]
        begin = time.perf_counter()
        text = io.StringIO()
        csv.writer(text).writerows(rows)
        text.getvalue().encode()
        return len(rows) / (time.perf_counter() - begin)
