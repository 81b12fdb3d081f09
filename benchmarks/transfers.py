"""Commands of two accounts, and what many commands to few accounts come to."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from benchmarks.rows import Bench, Figure, Measures, Row, batches, pgbench, row, singles
from benchmarks.servers import ACCOUNTS, Server, command_service

HOT_ACCOUNTS, SPREAD_ACCOUNTS = 8, 100_000
FUNDS = 10**9
"""Of each account, in cents: a transfer takes one."""
ONE, BATCH = "transfer.lua", "batch_of_transfers.lua"
OPEN_HOLDS = 100_000


def transfers(bench: Bench) -> Iterator[Row]:
    def funded(stack: ExitStack, accounts: int, **store: str) -> Server:
        ledger = stack.enter_context(command_service(accounts, **store))
        bench.fill(ledger, accounts, accounts, FUNDS)
        return ledger

    def in_batches(stack: ExitStack) -> Measures:
        ledger = funded(stack, ACCOUNTS, DATA_DIR=bench.data_dir())
        return batches(ledger, load=BATCH), batches(ledger)

    def alone(stack: ExitStack) -> Measures:
        ledger = funded(stack, ACCOUNTS, DATA_DIR=bench.data_dir())
        return singles(ledger, load=ONE), singles(ledger)

    def hot(stack: ExitStack) -> Sequence[Measures]:
        ledger = funded(stack, SPREAD_ACCOUNTS, DATA_DIR=bench.data_dir())
        return [
            (singles(ledger, accounts=HOT_ACCOUNTS, load=load), singles(ledger, accounts=SPREAD_ACCOUNTS, load=load))
            for load in ("deposit.lua", ONE)
        ]

    def on_postgres(stack: ExitStack) -> Sequence[Measures]:
        url = bench.cluster.url(bench.cluster.create_database())
        ledger = funded(stack, ACCOUNTS, DATABASE_URL=url)
        peer = pgbench(bench.cluster, "pgbench_transfer.sql", "--protocol=prepared")
        return [(singles(ledger, load=ONE), peer), (batches(ledger, load=BATCH), None)]

    yield row(Figure("batches of 1000 transfers / of 1000 deposits", "commands/s", 0.7), in_batches)
    # On a ledger of their own: what comes after batches pays for the disk's share of them.
    yield row(Figure("transfers, 32 connections / deposits", "requests/s", 0.9), alone)
    hot_or_spread = f"{HOT_ACCOUNTS} hot accounts / {SPREAD_ACCOUNTS:,} spread ones"
    yield Row([Figure(f"{what}: {hot_or_spread}", "requests/s", 0.9) for what in ("deposits", "transfers")], hot)

    def beside_holds(stack: ExitStack) -> Sequence[Measures]:
        """One account with many open holds, and one with none."""
        many, none = (funded(stack, 1, DATA_DIR=bench.data_dir()) for _ in range(2))
        for _ in range(OPEN_HOLDS // 10_000):
            many.post("/commands", [{"type": "hold", "account_id": "account-0", "amount": 1}] * 10_000)
        return [(batches(many, 1, load), batches(none, 1, load)) for load in ("batch_of_holds.lua", "batch.lua")]

    open_holds = f"{OPEN_HOLDS:,} open holds / none"
    yield Row(
        [
            Figure(f"batches of 1000 holds and releases: an account with {open_holds}", "commands/s", 0.9),
            Figure(f"batches of 1000 deposits: an account with {open_holds}", "commands/s", 0.9),
        ],
        beside_holds,
    )
    yield Row(
        [
            Figure("transfers, PostgreSQL, 32 connections / pgbench as in TPC-B, 32 clients", "requests/s", 1),
            Figure("batches of 1000 transfers, PostgreSQL", "commands/s"),
        ],
        on_postgres,
    )
