"""What is measured, and what measures it: servers on one core, the load on the other."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

from scripts.ports import free_ports

SERVER_CORE, LOAD_CORE = 0, 1
WAIT_SECONDS = 300
ACCOUNTS, BATCH = 1000, 1000
HAS_PROC = Path("/proc/self/status").exists()
LOAD = Path(__file__).parent / "load"


class Server(NamedTuple):
    url: str
    process_id: int

    def get(self, path: str) -> tuple[dict[str, str], bytes]:
        with urllib.request.urlopen(self.url + path, timeout=WAIT_SECONDS) as response:
            return dict(response.headers), response.read()

    def post(self, path: str, body: object) -> None:
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=WAIT_SECONDS).close()

    def metric(self, name: str) -> int:
        _, text = self.get("/metrics")
        (value,) = (line.split()[1] for line in text.decode().splitlines() if line.startswith(f"{name} "))
        return int(float(value))

    def peak_memory(self) -> float:
        """In MiB, all of its life: VmHWM of https://man7.org/linux/man-pages/man5/proc_pid_status.5.html"""
        status = Path(f"/proc/{self.process_id}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024

    def cpu_seconds(self) -> float:
        """Of all its threads, so far: utime and stime of https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html"""
        fields = Path(f"/proc/{self.process_id}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def server(*command: str, **environment: str) -> Iterator[Server]:
    """Run it on its core, with a free port in PORT (and in place of `{port}`), until it answers and to its end."""
    (port,) = free_ports(1)
    inherited = {name: value for name, value in os.environ.items() if name not in ("AMQP_URL", "DATABASE_URL")}
    process = subprocess.Popen(
        [part.format(port=port) for part in command],
        env={**inherited, "PORT": str(port), "LOG_LEVEL": "error", **environment},
        preexec_fn=lambda: pin(SERVER_CORE),
    )
    started = Server(f"http://127.0.0.1:{port}", process.pid)
    try:
        until(lambda: answers(started, process), f"{command} to answer")
        yield started
    finally:
        process.terminate()
        process.wait(WAIT_SECONDS)


def answers(server: Server, process: "subprocess.Popen[bytes]") -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
    try:
        server.get("/livez")
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@contextmanager
def command_service(accounts: int = ACCOUNTS, **environment: str) -> Iterator[Server]:
    """With so many accounts in it."""
    with server(sys.executable, "-m", "command_service", **environment) as started:
        for first in range(0, accounts, 10_000):
            numbers = range(first, min(accounts, first + 10_000))
            started.post(
                "/commands",
                [{"type": "create-account", "account_id": f"account-{n}", "name": "Alice"} for n in numbers],
            )
        yield started


def opened(folder: str) -> AbstractContextManager[Server]:
    """The command service of the log in that folder."""
    return command_service(accounts=0, DATA_DIR=folder)


@contextmanager
def projection_service(**environment: str) -> Iterator[Server]:
    with server(sys.executable, "-m", "projection_service", **environment) as started:
        yield started


@contextmanager
def echo(framework: str) -> Iterator[Server]:
    """The peer of that name in `benchmarks.echoes`, on the same server with the same settings as ours."""
    arguments = ["--port", "{port}", "--no-access-log", "--log-level", "warning", "--loop", "uvloop"]
    with server(sys.executable, "-m", "uvicorn", *arguments, f"benchmarks.echoes:{framework}") as started:
        yield started


def wrk(url: str, script: str, connections: int, seconds: float, accounts: int = ACCOUNTS, delay_ms: int = 0) -> float:
    """Answers a second. Raises `RuntimeError` when any of them was not a success."""
    said = _wrk(url, script, connections, seconds, accounts, delay_ms)
    found = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert found is not None
    return float(found[1])


def wrk_99th_ms(url: str, script: str, seconds: float, accounts: int = ACCOUNTS) -> float:
    """The time that the 99th of a hundred answers takes, to one client that asks for one after the other."""
    found = re.search(r"99%\s+([\d.]+)(us|ms|s)", _wrk(url, script, 1, seconds, accounts))
    assert found is not None
    return float(found[1]) * {"us": 0.001, "ms": 1, "s": 1000}[found[2]]


def _wrk(url: str, script: str, connections: int, seconds: float, accounts: int, delay_ms: int = 0) -> str:
    """What it says. Raises `RuntimeError`."""
    rest = {"DELAY_MS": str(delay_ms)} if delay_ms else {}
    done = subprocess.run(
        ["wrk", "-t1", "--latency", f"-c{connections}", f"-d{seconds:.0f}", "-s", str(LOAD / script), url],
        env={**os.environ, "ACCOUNTS": str(accounts), **rest},
        preexec_fn=lambda: pin(LOAD_CORE),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise RuntimeError(done.stdout)
    return done.stdout


def rate_between(position: Callable[[], int], first: int, last: int) -> float:
    """Events a second between two positions."""

    def reach(aim: int) -> tuple[float, int]:
        until(lambda: position() >= aim, f"position {aim}")
        return time.perf_counter(), position()

    (begin, start), (end, stop) = reach(first), reach(last)
    return (stop - start) / (end - begin)


def until(is_so: Callable[[], bool], what: str) -> None:
    """Raises `TimeoutError` when it does not come to be."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {WAIT_SECONDS} s for {what}")
        time.sleep(0.01)


def pin(core: int) -> None:
    """This process on that core alone, where the system can do that."""
    if hasattr(os, "sched_setaffinity") and core in os.sched_getaffinity(0):
        os.sched_setaffinity(0, {core})


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """The same for a while, and for all that is started in it."""
    everywhere = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    pin(core)
    try:
        yield
    finally:
        if everywhere:
            os.sched_setaffinity(0, everywhere)
