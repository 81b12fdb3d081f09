"""What is measured, and what measures it: servers on one core, the load on the other."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.ports import free_ports

SERVER_CORE, LOAD_CORE = 0, 1
START_SECONDS = 30
ACCOUNTS = 1000
LOAD = Path(__file__).parent / "load"


@contextmanager
def server(*command: str, **environment: str) -> Iterator[str]:
    """Run it on its core, with a free port in PORT (and in place of `{port}`); its URL, once it answers."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    inherited = {name: value for name, value in os.environ.items() if name not in ("AMQP_URL", "DATABASE_URL")}
    process = subprocess.Popen(
        [part.format(port=port) for part in command],
        env={**inherited, "PORT": str(port), "LOG_LEVEL": "warning", **environment},
        preexec_fn=lambda: pin(SERVER_CORE),
    )
    try:
        wait_for(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(f"{url}/livez", timeout=1).close()
            return
        except urllib.error.HTTPError:
            return  # it answers
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{url} does not answer") from None
            time.sleep(0.05)


@contextmanager
def command_service(**environment: str) -> Iterator[str]:
    """With `ACCOUNTS` accounts in it."""
    with server(sys.executable, "-m", "command_service", **environment) as url:
        names = [{"type": "create-account", "account_id": f"account-{n}", "name": "Alice"} for n in range(ACCOUNTS)]
        post(f"{url}/commands", names)
        yield url


@contextmanager
def projection_service(**environment: str) -> Iterator[str]:
    with server(sys.executable, "-m", "projection_service", **environment) as url:
        yield url


@contextmanager
def echo(framework: str) -> Iterator[str]:
    """The peer of that name in `benchmarks.echoes`, on the same server with the same settings as ours."""
    arguments = ["--port", "{port}", "--no-access-log", "--log-level", "warning", "--loop", "uvloop"]
    with server(sys.executable, "-m", "uvicorn", *arguments, f"benchmarks.echoes:{framework}") as url:
        yield url


def wrk(url: str, script: str, connections: int, seconds: float) -> float:
    """Answers a second. Raises `RuntimeError` when any of them was not a success."""
    done = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}", "-s", str(LOAD / script), url],
        preexec_fn=lambda: pin(LOAD_CORE),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise RuntimeError(done.stdout)
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    assert found is not None
    return float(found[1])


def post(url: str, body: object) -> None:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=60).close()


def get(url: str) -> tuple[dict[str, str], bytes]:
    with urllib.request.urlopen(url, timeout=60) as response:
        return dict(response.headers), response.read()


def pin(core: int) -> None:
    """This process on that core alone, where the system can do that."""
    if hasattr(os, "sched_setaffinity") and core in os.sched_getaffinity(0):
        os.sched_setaffinity(0, {core})
