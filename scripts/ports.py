"""Ports of this machine's loopback address, for servers that are started here."""

import socket


def is_open(port: int) -> bool:
    """Does somebody listen there?"""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def free_ports(number: int) -> list[int]:
    """Different ones, that nobody listens on now."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports: list[int] = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports
