"""The private node: when it does not start it says why, and leaves nothing behind."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.ports import is_open
from scripts.rabbitmq import RabbitMQNode


class BrokenNode(RabbitMQNode):
    """Its configuration is one that RabbitMQ refuses."""

    def _configure(self) -> None:
        super()._configure()
        with (self.folder / "rabbitmq.conf").open("a") as configuration:
            configuration.write("no.such.setting = 1\n")


def broken_configuration(folder: Path) -> RabbitMQNode:
    return BrokenNode(folder)


def folder_that_is_a_file(folder: Path) -> RabbitMQNode:
    folder.write_text("")
    return RabbitMQNode(folder)


def output_that_is_a_folder(folder: Path) -> RabbitMQNode:
    (folder / "output.log").mkdir(parents=True)
    return RabbitMQNode(folder)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (broken_configuration, "no.such.setting"),
        (folder_that_is_a_file, "File exists"),
        (output_that_is_a_folder, "Is a directory"),
    ],
)
def test_a_node_that_does_not_start_says_why_and_leaves_no_name_service(
    tmp_path: Path, make: Callable[[Path], RabbitMQNode], reason: str
) -> None:
    node = make(tmp_path / "rabbitmq")
    with pytest.raises((RuntimeError, OSError), match=reason):
        node.start()
    assert not is_open(node.epmd_port)


def test_a_node_whose_port_is_taken_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        node = RabbitMQNode(tmp_path / "rabbitmq", port)
        with pytest.raises(RuntimeError, match=f"another program listens on port {port}"):
            node.start()
        assert not is_open(node.epmd_port)
        node.close()


def test_a_node_that_died_by_itself_is_closed_and_starts_again(tmp_path: Path) -> None:
    node = RabbitMQNode(tmp_path / "rabbitmq")
    try:
        node.start()
        node.send(signal.SIGKILL)
        node.stop()
        node.start()
        assert is_open(node.port)
    finally:
        node.close()
    assert not is_open(node.port)
    assert not is_open(node.epmd_port)


def test_the_program_ends_with_a_sentence_when_the_node_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "rabbitmq").write_text("")
    environment = {**os.environ, "DATA_DIR": str(tmp_path), "AMQP_URL": ""}
    done = subprocess.run(
        [sys.executable, "-m", "scripts.rabbitmq", "true"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "File exists" in done.stderr or "15672 is taken" in done.stderr
