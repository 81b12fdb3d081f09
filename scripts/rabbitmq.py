"""A private RabbitMQ node: own ports, own data, own name service, gone when its owner goes.

`python -m scripts.rabbitmq COMMAND …` runs COMMAND with such a node, or with the broker that AMQP_URL names.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from scripts.ports import free_ports, is_open

START_SECONDS = 60
STOP_SECONDS = 30
AMQP_PORT = 5672
MANAGEMENT_PORT = 15672

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
        free_port, self._distribution_port, self._epmd_port = free_ports(3)
        self.port = port or free_port
        self.amqp_url = f"amqp://guest:guest@127.0.0.1:{self.port}/"
        self._binaries = find_binaries()
        self._management_port = management_port
        self._process: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._epmd_port),
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
        }

    def start(self) -> None:
        """Returns when it accepts AMQP connections. Raises `RuntimeError` with the end of its output if it doesn't."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._configure()
        if self._epmd is None:
            self._epmd = subprocess.Popen(
                ["epmd"], env=self._environment, stderr=subprocess.DEVNULL, start_new_session=True
            )
            self._wait_for_port(self._epmd_port, self._epmd)
        with (self.folder / "output.log").open("ab") as output:
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
        """Send it to the server and every process of it."""
        assert self._process is not None
        # The server runs below a shell; the whole group is ours, and nobody else's.
        os.killpg(self._process.pid, signal_number)

    def stop(self) -> None:
        """A clean stop; queues and persistent messages are kept."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: what the disk has is what there is."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """End everything that was started. The data stays."""
        self._end(signal.SIGTERM)
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
                output = self.folder / "output.log"
                tail = output.read_text(errors="replace")[-3000:] if output.exists() else ""
                self.close()
                raise RuntimeError(f"RabbitMQ did not start in {START_SECONDS} s (data in {self.folder}):\n{tail}")
            time.sleep(0.05)

    def _end(self, signal_number: signal.Signals) -> None:
        if self._process is None:
            return
        self.send(signal_number)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            self._process.wait()
        self._process = None
        # The shell is gone; the server, its child, is once nobody listens any more.
        while is_open(self.port):
            time.sleep(0.01)


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
    folder = Path(os.environ.get("DATA_DIR", ".data")).resolve() / "rabbitmq"
    node = RabbitMQNode(folder, None if is_open(AMQP_PORT) else AMQP_PORT, MANAGEMENT_PORT)
    print("RabbitMQ: starting a private node", flush=True)
    try:
        node.start()
        print(f"RabbitMQ: {node.amqp_url}, UI on http://127.0.0.1:{MANAGEMENT_PORT} (guest, guest)", flush=True)
        status = run(command, {**os.environ, "AMQP_URL": node.amqp_url})
    finally:
        node.close()
    raise SystemExit(status)


def run(command: list[str], environment: dict[str, str]) -> int:
    process = subprocess.Popen(
        command, env=environment, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler)
    )
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    return process.wait()


if __name__ == "__main__":
    main()
