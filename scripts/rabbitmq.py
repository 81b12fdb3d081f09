"""A private RabbitMQ node: own ports, own data, own name service, gone when its owner goes.

`python -m scripts.rabbitmq COMMAND …` runs COMMAND with such a node, or with the broker that AMQP_URL names.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from scripts.ports import free_ports, is_open

START_SECONDS = 60
STOP_SECONDS = 30
OUTPUT_CHARS_MAX = 3_000
AMQP_PORT = 5672
MANAGEMENT_PORT = 15672
DEFINITIONS = Path(__file__).with_name("rabbitmq-definitions.json")
"""The users of the broker, their rights, and what they may not make, for this node and for the containers."""
LIMITS = Path(__file__).with_name("rabbitmq-limits.conf")
"""For this node and for the containers, too."""
COMMAND_USER, PROJECTION_USER = "command-service", "projection-service"

# The commands beside the server's own files: those on the PATH of a Debian system switch user and folder.
BINARY_FOLDERS = (
    "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin",
    "/opt/homebrew/opt/rabbitmq/sbin",
    "/usr/local/opt/rabbitmq/sbin",
)


class RabbitMQNode:
    """A node that keeps its data in `folder` over `stop` or `kill` and another `start`.

    Without `port` it takes a free one; `management_port` turns the management UI on, at that port.
    """

    def __init__(self, folder: Path, port: int | None = None, management_port: int | None = None) -> None:
        self.folder = folder
        free_port, self._distribution_port, self.epmd_port = free_ports(3)
        self.port = port or free_port
        self.amqp_url = f"amqp://guest:guest@127.0.0.1:{self.port}/"
        self._binaries = find_binaries()
        self._management_port = management_port
        self._process: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        self._output_start = 0
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            # The node must not start a name service of its own, which would outlive it.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_CTL_ERL_ARGS": "-start_epmd false",
            # The same name every time: RabbitMQ finds its data by it. The name service is ours alone.
            "RABBITMQ_NODENAME": "ledger@localhost",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "no-rabbitmq-env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
            "ERL_CRASH_DUMP": str(folder / "erl_crash.dump"),
        }

    def start(self) -> None:
        """Returns when it accepts AMQP connections. Raises `RuntimeError` with what it said if it doesn't,
        `OSError` when its folder or its programs can't be had; nothing of it runs then."""
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def user_url(self, user: str) -> str:
        """For a user of `DEFINITIONS`."""
        return f"amqp://{user}:{user}@127.0.0.1:{self.port}/"

    def import_definitions(self, definitions: Path = DEFINITIONS) -> None:
        """Make the users that are in them, and what is there for these."""
        self.ctl("import_definitions", str(definitions))

    def _start(self) -> None:
        for port in filter(None, (self.port, self._management_port)):
            if is_open(port):
                raise RuntimeError(f"RabbitMQ can't start: another program listens on port {port}.")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._configure()
        if self._epmd is None:
            self._epmd = subprocess.Popen(
                ["epmd"], env=self._environment, stderr=subprocess.DEVNULL, start_new_session=True
            )
            self._wait_for_port(self.epmd_port, self._epmd)
        with (self.folder / "output.log").open("ab") as output:
            self._output_start = output.tell()
            self._process = subprocess.Popen(
                [str(self._binaries / "rabbitmq-server")],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        for port in filter(None, (self.port, self._management_port)):
            self._wait_for_port(port, self._process)

    def send(self, signal_number: signal.Signals) -> None:
        """Send it to the server and every process of it, as far as they are there."""
        assert self._process is not None
        # The server runs below a shell; the whole group is ours, and nobody else's.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal_number)

    def stop(self) -> None:
        """A clean stop; queues and persistent messages are kept."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: what the disk has is what there is."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """End everything that was started. The data stays."""
        try:
            self._end(signal.SIGTERM)
        finally:
            if self._epmd is not None:
                self._epmd.kill()
                self._epmd.wait()
                self._epmd = None

    def ctl(self, *arguments: str) -> str:
        """What `rabbitmqctl` prints. Raises `RuntimeError` with it when that fails."""
        done = subprocess.run(
            [str(self._binaries / "rabbitmqctl"), "--quiet", *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
        )
        if done.returncode:
            raise RuntimeError(f"rabbitmqctl {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def _configure(self) -> None:
        # Alarms would stop publishers on a machine that is merely small or full of other work.
        lines = [
            f"listeners.tcp.1 = 127.0.0.1:{self.port}",
            "disk_free_limit.absolute = 50MB",
            "vm_memory_high_watermark.relative = 0.9",
            "log.file.level = warning",
            LIMITS.read_text(),
        ]
        plugins = ""
        if self._management_port:
            lines += ["management.tcp.ip = 127.0.0.1", f"management.tcp.port = {self._management_port}"]
            plugins = "rabbitmq_management"
        (self.folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        (self.folder / "advanced.config").write_text("[].\n")
        (self.folder / "enabled_plugins").write_text(f"[{plugins}].\n")

    def _wait_for_port(self, port: int, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            if is_open(port):
                return
            if process.poll() is not None or time.monotonic() > deadline:
                status = process.poll()
                how = f"took over {START_SECONDS} s" if status is None else f"ended with {status}"
                raise RuntimeError(f"RabbitMQ did not start: it {how} (data in {self.folder}):\n{self._why()}")
            time.sleep(0.05)

    def _why(self) -> str:
        """What it said of the failure: the first errors, since pages of consequences follow; else its last words."""
        output = self.folder / "output.log"
        said = output.read_bytes()[self._output_start :].decode(errors="replace") if output.exists() else ""
        lines = said.splitlines(keepends=True)
        first = next((number for number, line in enumerate(lines) if "[error]" in line), None)
        return said[-OUTPUT_CHARS_MAX:] if first is None else "".join(lines[first:])[:OUTPUT_CHARS_MAX]

    def _end(self, signal_number: signal.Signals) -> None:
        if self._process is None:
            return
        self.send(signal_number)
        deadline = time.monotonic() + STOP_SECONDS
        # Once the shell is gone, the server, its child, is when nobody listens any more.
        while self._process.poll() is None or is_open(self.port):
            if time.monotonic() > deadline:
                self.send(signal.SIGKILL)
                self._process.wait()
                break
            time.sleep(0.01)
        self._process = None


def find_binaries() -> Path:
    """The folder of `rabbitmq-server` and `rabbitmqctl`. Raises `RuntimeError` when there is none."""
    found = [folder for pattern in BINARY_FOLDERS for folder in sorted(Path("/").glob(pattern[1:]))]
    if found:
        return found[-1]
    if server := shutil.which("rabbitmq-server"):
        return Path(server).resolve().parent
    raise RuntimeError("rabbitmq-server is not installed: run scripts/install-servers.sh, or set AMQP_URL")


def main() -> None:
    command = sys.argv[1:]
    if not command or command[0] in ("-h", "--help"):
        print(__doc__)
        raise SystemExit(0 if command else 2)
    # Ctrl-C goes to the whole terminal: the command stops by itself, and then the node is stopped.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.environ.get("AMQP_URL"):
        print("RabbitMQ: the one that AMQP_URL names", flush=True)
        raise SystemExit(run(command, dict(os.environ)))
    if is_open(MANAGEMENT_PORT):
        print(f"Port {MANAGEMENT_PORT} is taken. If a RabbitMQ runs there, set AMQP_URL to it.", file=sys.stderr)
        raise SystemExit(1)
    # Whoever ends us while the node starts does not leave it behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    folder = Path(os.environ.get("DATA_DIR", ".data")).resolve() / "rabbitmq"
    try:
        node = RabbitMQNode(folder, None if is_open(AMQP_PORT) else AMQP_PORT, MANAGEMENT_PORT)
        print("RabbitMQ: starting a private node", flush=True)
        node.start()
    except (RuntimeError, OSError) as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None
    try:
        node.import_definitions()
        print(f"RabbitMQ: {node.amqp_url}, UI on http://127.0.0.1:{MANAGEMENT_PORT} (guest, guest)", flush=True)
        status = run(command, {**os.environ, **service_users(node)})
    finally:
        node.close()
    raise SystemExit(status)


def service_users(node: RabbitMQNode) -> dict[str, str]:
    """The variables by which each service logs in as its own user, and the projection knows the other's."""
    return {
        "AMQP_URL": node.amqp_url,
        "COMMAND_AMQP_URL": node.user_url(COMMAND_USER),
        "PROJECTION_AMQP_URL": node.user_url(PROJECTION_USER),
        "AMQP_PUBLISHER": COMMAND_USER,
    }


def run(command: list[str], environment: dict[str, str]) -> int:
    process = subprocess.Popen(
        command, env=environment, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler)
    )
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    return process.wait()


if __name__ == "__main__":
    main()
