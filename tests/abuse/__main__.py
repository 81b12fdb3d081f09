"""`make abuse`: each abuse against a service of its own with the limits it has by itself; a table of what it cost."""

import asyncio
import resource
import sys
import tempfile
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from tests.abuse.abuses import ABUSES, LIMITS, Abuse, Outcome
from tests.bank import Service, open_bank
from tests.fuzz.run import IDLE_TIMES_MAX, LIVEZ_MS_MAX, memory_mib
from tests.livez import probe

HEADS = ("tried", "limits", "what came of it", "memory at most", "/livez at worst", "of an idle service")


class Measured(NamedTuple):
    abuse: Abuse
    outcome: Outcome
    memory_mib: float
    """More than before, at most."""
    worst_ms: float
    idle_ms: float

    @property
    def is_good(self) -> bool:
        return self.worst_ms <= max(LIVEZ_MS_MAX, IDLE_TIMES_MAX * self.idle_ms)

    def __str__(self) -> str:
        figures = f"+{self.memory_mib:.0f} MiB | {self.worst_ms:.0f} ms | {self.idle_ms:.0f} ms"
        limits = [f"`{name}` {LIMITS[name]:,}" if name.isupper() else name for name in self.abuse.limits.split(", ")]
        return f"| {self.abuse.name} | {', '.join(limits)} | {self.outcome} | {figures} |"


def main(only: Annotated[str, typer.Option(help="Only the abuses with this in their name.")] = "") -> None:
    """Abuse the services and print a table. Exit status 1 when `/livez` was kept waiting by any of it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    chosen = [abuse for abuse in ABUSES if only in abuse.name]
    with tempfile.TemporaryDirectory(prefix="counting-house-abuse-") as folder:
        measured = asyncio.run(run(Path(folder), chosen))
    print(f"| {' | '.join(HEADS)} |\n|{'---|' * len(HEADS)}")
    print("\n".join(map(str, measured)))
    if late := [found.abuse.name for found in measured if not found.is_good]:
        print(
            f"/livez took over {LIVEZ_MS_MAX} ms, and over {IDLE_TIMES_MAX} times an idle one's: {late}",
            file=sys.stderr,
        )
        raise SystemExit(1)


async def run(folder: Path, chosen: list[Abuse]) -> list[Measured]:
    (folder / "idle").mkdir()
    async with open_bank(folder / "idle", projections=0) as idle:

        async def measured(number: int, abuse: Abuse) -> Measured:
            inner = folder / f"{number}"
            inner.mkdir()
            return await measure(inner, abuse, idle.command)

        found = [await measured(number, abuse) for number, abuse in enumerate(chosen) if not abuse.patient]
        patient = [(number, abuse) for number, abuse in enumerate(chosen) if abuse.patient]
        return found + await asyncio.gather(*(measured(number, abuse) for number, abuse in patient))


async def measure(folder: Path, abuse: Abuse, idle: Service) -> Measured:
    print(abuse.name, file=sys.stderr, end=" … ", flush=True)
    async with open_bank(folder, projections=abuse.service == "projection") as bank:
        service = bank.projection if abuse.service == "projection" else bank.command
        if abuse.open_files_max is not None:
            await service.stop()
            limited = f'ulimit -n {abuse.open_files_max}; exec "$@"'
            service.command_line = ["sh", "-c", limited, "sh", *service.command_line]
            await service.start()
        before = memory_mib(service)
        async with probe(service.url, idle.url) as found:
            outcome = await abuse.run(service)
        assert service.process is not None
        assert service.process.poll() is None, f"{abuse.name} has ended the service: {service.log.read_text()[-2000:]}"
        watched, compared = found.delays
        if watched.failures:
            outcome += f"; /livez failed {watched.failures} times"
        grown = memory_mib(service, "VmHWM") - before
        result = Measured(abuse, outcome, grown, watched.worst_ms, compared.worst_ms)
    print(result, file=sys.stderr)
    return result


if __name__ == "__main__":
    typer.run(main)
