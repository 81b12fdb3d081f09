"""A private PostgreSQL cluster for the tests: own folder, own port, own password, removed when it is closed."""

import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from scripts.ports import free_ports

START_SECONDS = 60
STOP_SECONDS = 30
USER = "ledger"

# Debian keeps the server's programs off the PATH, a folder for each version; so does Homebrew.
BINARY_FOLDERS = (
    "/usr/lib/postgresql/*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)


class PostgresCluster:
    """A cluster that keeps its data over `stop` or `kill` and another `start`, until `close`; with `primary`, a standby
    that follows that one.

    As root it runs as the user `postgres` or `nobody`, since PostgreSQL refuses root:
    https://www.postgresql.org/docs/current/app-initdb.html
    """

    def __init__(self, primary: "PostgresCluster | None" = None) -> None:
        (self.port,) = free_ports(1)
        self._primary = primary
        self._password: str = primary._password if primary else secrets.token_urlsafe(16)
        self.binaries = find_binaries()
        self._user = unprivileged_user()
        # Not in a folder of pytest's: another user could not reach it there.
        self._folder = Path(tempfile.mkdtemp(prefix="counting-house-postgres-"))
        if self._user:
            shutil.chown(self._folder, self._user)
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0

    def url(self, database: str, port: int | None = None) -> str:
        """Where `database` is; `port` leads through something else to it."""
        return f"postgresql://{USER}:{self._password}@127.0.0.1:{port or self.port}/{database}"

    def start(self) -> None:
        """Returns when it accepts connections. Raises `RuntimeError` with its log when it does not."""
        if not (self._folder / "data").exists():
            self._copy(self._primary) if self._primary else self._create()
        deadline = time.monotonic() + START_SECONDS
        while True:
            with (self._folder / "output.log").open("ab") as output:
                self._process = subprocess.Popen(
                    [self.binaries / "postgres", "-D", self._folder / "data", "-p", str(self.port)],
                    user=self._user,
                    cwd=self._folder,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            while self._process.poll() is None:
                if self._run("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)).returncode == 0:
                    return
                if time.monotonic() > deadline:
                    break
                time.sleep(0.05)
            # After a kill, the orphans of the last run hold its shared memory for a moment.
            if time.monotonic() > deadline:
                tail = (self._folder / "output.log").read_text(errors="replace")[-3000:]
                raise RuntimeError(f"PostgreSQL did not start in {START_SECONDS} s:\n{tail}")
            time.sleep(0.1)

    def create_database(self) -> str:
        """A new, empty database; its name."""
        self._databases += 1
        name = f"test_{self._databases}"
        self.sql("postgres", f"CREATE DATABASE {name}")
        return name

    def sql(self, database: str, statement: str) -> str:
        """What `psql` prints for it. Raises `RuntimeError` with its message."""
        done = self._run("psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", statement, self.url(database))
        if done.returncode:
            raise RuntimeError(f"{statement}: {done.stdout}")
        return done.stdout.strip()

    def send(self, signal_number: signal.Signals) -> None:
        """Send it to the server and every process of it, as far as they are there."""
        assert self._process is not None
        for pid in [self._process.pid, *children(self._process.pid)]:
            try:
                os.kill(pid, signal_number)
            except ProcessLookupError:
                continue

    def stop(self) -> None:
        """A clean stop that ends open connections; what was committed is kept."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL for all of its processes: the next start recovers from the write-ahead log."""
        if self._process is not None:
            self.send(signal.SIGKILL)
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """End it and remove its data."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _create(self) -> None:
        password = self._folder / "password"
        password.write_text(self._password)
        if self._user:
            shutil.chown(password, self._user)
        done = self._run(
            *("initdb", "--pgdata", str(self._folder / "data"), "--username", USER, "--pwfile", str(password)),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"),
        )
        if done.returncode:
            raise RuntimeError(f"initdb failed:\n{done.stdout}")
        with (self._folder / "data" / "postgresql.conf").open("a") as configuration:
            configuration.write("listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\n")

    def _copy(self, primary: "PostgresCluster") -> None:
        url = primary.url("postgres")
        done = self._run("pg_basebackup", "-D", "data", "--write-recovery-conf", "--checkpoint=fast", "--dbname", url)
        if done.returncode:
            raise RuntimeError(f"pg_basebackup failed:\n{done.stdout}")

    def _run(self, program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [self.binaries / program, *arguments],
            user=self._user,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=START_SECONDS,
        )

    def _end(self, signal_number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal_number)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            self._process.wait()
        self._process = None


def find_binaries() -> Path:
    """The folder of `initdb` and `postgres`. Raises `RuntimeError` when there is none."""
    found = [folder for pattern in BINARY_FOLDERS for folder in Path("/").glob(pattern[1:])]
    found = [folder for folder in found if (folder / "initdb").exists()]
    if found:
        return max(found, key=lambda folder: [int(number) for number in re.findall(r"\d+", str(folder))])
    if server := shutil.which("postgres"):
        return Path(server).resolve().parent
    raise RuntimeError("PostgreSQL is not installed: run scripts/install-servers.sh postgresql")


def unprivileged_user() -> str | None:
    """Who the server runs as when we are root; None when we are not."""
    if os.geteuid() != 0:
        return None
    import pwd

    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def children(pid: int) -> list[int]:
    """The processes that `pid` started and that are still there."""
    listed = subprocess.run(["ps", "-axo", "ppid=,pid="], stdout=subprocess.PIPE, text=True, check=True)
    pairs = [line.split() for line in listed.stdout.splitlines()]
    return [int(child) for parent, child in pairs if int(parent) == pid]
