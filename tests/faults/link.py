"""A TCP proxy that can be cut, stalled and half-closed: the network between two of the processes."""

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

CHUNK_BYTES = 64 * 1024


@dataclass(eq=False)
class _Direction:
    source: asyncio.StreamReader
    target: asyncio.StreamWriter
    task: "asyncio.Task[None] | None" = None

    def end(self) -> None:
        """Tell the target that there is no more to come, and take nothing more for it."""
        if self.task is not None:
            self.task.cancel()
        with suppress(OSError, RuntimeError):
            self.target.write_eof()


class Link:
    """Forwards `port` to `target_port`, both on 127.0.0.1."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self._target_port = target_port
        self._server: asyncio.Server
        self._connections: set[tuple[_Direction, _Direction]] = set()
        self._serving: set[asyncio.Task[None] | None] = set()
        self._is_cut = False
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()
        self._flowing.set()
        self._reset_connections()
        await asyncio.gather(*filter(None, self._serving))
        await self._server.wait_closed()

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Every connection is reset, and every new one, until the block is left."""
        self._is_cut = True
        self._reset_connections()
        try:
            yield
        finally:
            self._is_cut = False

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Connections stay, and can be made, but nothing gets through until the block is left."""
        self._flowing.clear()
        try:
            yield
        finally:
            self._flowing.set()

    def half_close(self, towards_target: bool) -> None:
        """On every connection one side hears that the other has finished; the way back stays open."""
        for to_target, to_client in list(self._connections):
            (to_target if towards_target else to_client).end()

    async def _serve(self, client_reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._serving.add(task)
        try:
            if self._is_cut:
                _reset(client_writer)
            else:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._target_port)
                await self._connect(_Direction(client_reader, writer), _Direction(reader, client_writer))
        except OSError:
            pass
        finally:
            client_writer.transport.abort()
            self._serving.discard(task)

    async def _connect(self, *connection: *tuple[_Direction, _Direction]) -> None:
        self._connections.add(connection)
        try:
            # A direction ends with its source's end, with its target's loss, or because it was half-closed.
            for direction in connection:
                direction.task = asyncio.create_task(self._forward(direction))
            await asyncio.wait([direction.task for direction in connection if direction.task])
        finally:
            self._connections.discard(connection)
            for direction in connection:
                direction.target.transport.abort()

    async def _forward(self, direction: _Direction) -> None:
        with suppress(OSError):
            while data := await direction.source.read(CHUNK_BYTES):
                await self._flowing.wait()
                direction.target.write(data)
                await direction.target.drain()
            await self._flowing.wait()
            direction.target.write_eof()

    def _reset_connections(self) -> None:
        for connection in list(self._connections):
            for direction in connection:
                _reset(direction.target)


def _reset(writer: asyncio.StreamWriter) -> None:
    # Without lingering, closing sends a reset instead of a proper end: socket(7).
    linger = struct.pack("ii", 1, 0)
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
