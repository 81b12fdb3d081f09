"""Ports of this machine's loopback address, for servers that are started here."""

import random
import socket
from contextlib import ExitStack, suppress


def is_open(port: int) -> bool:
    """Does somebody listen there?"""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def free_ports(number: int) -> list[int]:
    """Different ones, that nobody listens on now, and that no outgoing connection takes before somebody does.

    Those are made from 32768 on by Linux, from 49152 on by others (RFC 6335, section 6).
    """
    ports: list[int] = []
    with ExitStack() as stack:
        while len(ports) < number:
            with suppress(OSError):
                stack.enter_context(socket.create_server(("127.0.0.1", port := random.randrange(10_000, 32_768))))
                ports.append(port)
    return ports
