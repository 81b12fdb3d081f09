"""One run: requests by several clients at once, the oracle's word on each answer, and the verdict on what is left."""

import asyncio
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.bank import VISIBLE_SECONDS, Bank, Service, fold, open_bank, reserves
from tests.fuzz.oracle import Announced, Announcements, announcements, judge, read_log_files
from tests.fuzz.requests import ACCOUNTS, Request, make
from tests.livez import Delay, probe
from tests.wire import Answer, Connection, NoAnswer
from tests.wire import request as well_formed

CLIENTS = 16
FAULTS_SHOWN_MAX = 20
SHORTER_TRIES_MAX = 300
SHORTEST_BYTES_SHOWN = 300
MEMORY_GROWTH_MAX_MIB = 64
WARM_UP_REQUESTS = 5_000
"""Until then memory may grow: caches fill, and the allocator keeps what the largest request took."""
LIVEZ_MS_MAX = 250
IDLE_TIMES_MAX = 5
UNHEARD_BYTES_MIN = 60_000
"""A server that refuses so much may hang up before its answer has been read."""


@dataclass
class Fault:
    """The first request that showed it, and how many there were."""

    what: str
    number: int
    request: Request
    times: int = 1
    shortest: bytes = b""

    def __str__(self) -> str:
        raw = self.shortest or self.request.encode()
        shown = repr(raw) if len(raw) <= SHORTEST_BYTES_SHOWN else f"{raw[:SHORTEST_BYTES_SHOWN]!r} … {len(raw)} bytes"
        first = f"first of request {self.number} to the {self.request.service} service"
        return f"{self.what}: {self.times} times, {first}\n    {shown}"


@dataclass
class Report:
    seed: int
    requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    faults: dict[str, Fault] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    """Of what is left when all is over: the log, the views, the services' logs, their memory."""
    announced: int = 0
    unanswered: int = 0
    memory_mib: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Of each service: after the warm-up, and at the end."""
    delays: dict[str, Delay] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        return not self.faults and not self.violations

    @property
    def is_fast(self) -> bool:
        """Was `/livez` there in time? Where the whole machine is slow, an idle service is too."""
        *services, idle = self.delays.values()
        limit = max(LIVEZ_MS_MAX, IDLE_TIMES_MAX * idle.worst_ms)
        return all(delay.worst_ms <= limit for delay in services)

    def __str__(self) -> str:
        statuses = ", ".join(f"{number} x {status}" for status, number in sorted(self.statuses.items()))
        lines = [
            f"seed {self.seed}: {self.requests} requests",
            f"answers: {statuses}; {self.unanswered} without any",
            f"events: {self.announced}, each acknowledged once" if self.is_good else f"events: {self.announced}",
            *(
                f"memory of the {name}: {old:.0f} MiB, then {new:.0f} MiB"
                for name, (old, new) in self.memory_mib.items()
            ),
            *(
                f"/livez of the {name}: at worst {delay.worst_ms:.0f} ms; {delay.failures} of {delay.answers} failed"
                for name, delay in self.delays.items()
            ),
            *map(str, list(self.faults.values())[:FAULTS_SHOWN_MAX]),
            *(violation[:1000] for violation in self.violations[:FAULTS_SHOWN_MAX]),
        ]
        return "\n".join(lines)


async def fuzz(folder: Path, seed: int, enough: Callable[[int], bool]) -> Report:
    """Send the requests of `seed` until `enough` of them, to a bank of its own; an idle service is there to compare."""
    report = Report(seed)
    told = Announcements()
    (folder / "idle").mkdir()
    async with open_bank(folder) as bank, open_bank(folder / "idle", projections=0) as idle:
        services = {"command": bank.command, "projection": bank.projection}
        for account in ACCOUNTS[::2]:
            _, answer = await bank.create(account)
            told.add(Announced(answer["position"], None, account), has_key=False)
        numbers = itertools.count()
        watched = {**services, "idle service": idle.command}
        async with probe(*(service.url for service in watched.values())) as found, asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(_client(services, numbers, enough, report, told))
        report.delays = dict(zip(watched, found.delays, strict=True))
        for name, service in services.items():
            report.memory_mib[name] = (report.memory_mib.get(name, (memory_mib(service), 0))[0], memory_mib(service))
        await _check(bank, report, told)
        for fault in list(report.faults.values())[:FAULTS_SHOWN_MAX]:
            fault.shortest = await shorten(fault, services)
    return report


async def _client(
    services: dict[str, Service],
    numbers: Iterator[int],
    enough: Callable[[int], bool],
    report: Report,
    told: Announcements,
) -> None:
    connections = {name: Connection(service.port) for name, service in services.items()}
    for number in numbers:
        if enough(number):
            break
        if number == WARM_UP_REQUESTS:
            report.memory_mib = {name: (memory_mib(service), 0) for name, service in services.items()}
        request = make(report.seed, number)
        report.requests += 1
        answers, faults = await ask(connections[request.service], request)
        report.statuses.update(answer.status for answer in answers)
        if not answers:
            report.unanswered += 1
            if request.is_vague and request.service == "command" and request.body is not None:
                told.unanswered.append(request.encode())
        for answer in answers:
            if request.service == "command":
                for announced in announcements(answer):
                    told.add(announced, request.has_key)
        for what in faults:
            if what in report.faults:
                report.faults[what].times += 1
            else:
                report.faults[what] = Fault(what, number, request)
    for connection in connections.values():
        connection.close()


async def ask(connection: Connection, request: Request) -> tuple[list[Answer], list[str]]:
    """The answers, and what is wrong with them."""
    raw = request.encode()
    if request.is_vague:
        answers = await connection.ask_vaguely(raw, request.answers_likely)
    else:
        try:
            answers = [await connection.ask(raw, is_head=request.method == b"HEAD")]
        except NoAnswer as error:
            if request.waits or len(raw) > UNHEARD_BYTES_MIN:
                return [], []
            return [], [f"no answer: {error}"]
    found = (judge(request, answer) for answer in answers)
    return answers, [f"{what} to {_kind(request)}" if answers[0].status >= 500 else what for what in found if what]


def _kind(request: Request) -> str:
    """Method and path without what is particular: faults of the same kind are reported once."""
    path = request.target.split(b"?")[0].decode("latin-1")[:60]
    return f"{request.method.decode('latin-1')} {re.sub('fuzz-[0-9]+', '…', path).rstrip('/')}"


async def shorten(fault: Fault, services: dict[str, Service]) -> bytes:
    """The shortest bytes found that still show the fault."""
    connection = Connection(services[fault.request.service].port)
    tries = 0

    async def shows(request: Request) -> bool:
        nonlocal tries
        tries += 1
        _, faults = await ask(connection, request)
        return any(what.split(" to ")[0] == fault.what.split(" to ")[0] for what in faults)

    request = fault.request
    if not await shows(request):
        return request.encode()
    for candidate in _without_headers(request):
        if await shows(candidate):
            request = candidate
    part = "body" if request.raw is None else "raw"
    text: bytes = getattr(request, part) or b""
    size = (len(text) + 1) // 2
    while size:
        start = 0
        while start < len(text) and tries < SHORTER_TRIES_MAX:
            shorter = replace(request, **{part: text[:start] + text[start + size :]})  # type: ignore[arg-type]
            if await shows(shorter):
                request, text = shorter, text[:start] + text[start + size :]
            else:
                start += size
        size //= 2
    connection.close()
    return request.encode()


def _without_headers(request: Request) -> Iterator[Request]:
    if request.raw is None:
        plain = tuple(header for header in request.headers if header[0] in (b"Host", b"Content-Type"))
        yield replace(request, headers=plain)
        yield replace(request, headers=plain, framing="length")


async def _check(bank: Bank, report: Report, told: Announcements) -> None:
    report.announced = len(told)
    log = await bank.log()
    report.violations += told.compare(log)
    report.violations += read_log_files(bank.command.log, bank.projection.log)
    for name, (old, new) in report.memory_mib.items():
        if new > old + MEMORY_GROWTH_MAX_MIB:
            report.violations.append(f"the memory of the {name} service grew from {old:.0f} to {new:.0f} MiB")
    for name, delay in report.delays.items():
        if delay.failures:
            report.violations.append(f"the {name} did not answer /livez {delay.failures} times")
    report.violations += await _compare_views(bank.projection, log)


async def _compare_views(projection: Service, log: list[dict[str, Any]]) -> list[str]:
    """Where the views are not the fold of the log. Libraries would ask for other paths than some accounts have."""
    balances, wrong = fold(log), []
    connection = Connection(projection.port)
    for path, name, expected in [
        *(
            (f"/reserve?asset={asset}&min_position={len(log)}&wait={VISIBLE_SECONDS}", "amount", amount)
            for asset, amount in reserves(log).items()
        ),
        *((f"/account/{account}", "balance", balance) for account, balance in balances.items()),
    ]:
        answer = await connection.ask(well_formed("GET", path))
        if answer.status != 200 or json.loads(answer.body)[name] != expected:
            wrong.append(f"{path} is {answer.body!r}, and not {expected}")
    connection.close()
    return wrong


def memory_mib(service: Service, value: str = "VmRSS") -> float:
    """Resident, now or (VmHWM) at most: https://man7.org/linux/man-pages/man5/proc_pid_status.5.html"""
    assert service.process is not None
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return int(re.findall(rf"{value}:\s+(\d+) kB", status)[0]) / 1024
