"""What an HTTP connection reads and writes at a time."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

READ_BYTES = 16 * 1024
"""So much is read of a connection before others have their turn. uvloop's own reads are of 256 KiB."""


class Connection(Protocol):
    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> bool: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...


class SmallReads(asyncio.BufferedProtocol):
    """Takes the place of `connection` at its transport, which asks a `BufferedProtocol` how much to read.

    What is read is handed on at once, so `buffer` may be one for all connections: it has `READ_BYTES`.
    """

    def __init__(self, connection: Connection, buffer: memoryview) -> None:
        self._connection = connection
        self._buffer = buffer

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._connection.data_received(self._buffer[:nbytes].tobytes())

    def eof_received(self) -> bool:
        return self._connection.eof_received()

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)


class Transport:
    """A transport that writes what one turn of the event loop gives it together, and reads when nobody has enough.

    uvicorn writes head and body of an answer one by one. As one write, that is a tenth more deposits a second.
    It pauses and resumes reading for the application; `hold_reading` and `release_reading` are for the parser.
    `stays` is asked before it is closed, whether that has to wait: who asks for it again will have its way.
    """

    def __init__(self, transport: asyncio.Transport, stays: Callable[[], bool]) -> None:
        self._transport = transport
        self._stays = stays
        self._loop = asyncio.get_running_loop()
        self._pending: list[bytes] = []
        self._paused = self._held = self._ended = False
        self.is_closing = transport.is_closing

    def pause_reading(self) -> None:
        self._paused = True
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._paused = False
        if not self._held:
            self._transport.resume_reading()

    def hold_reading(self) -> None:
        self._held = True
        self._transport.pause_reading()

    def release_reading(self) -> None:
        if self._held:
            self._held = False
            if not self._paused:
                self._transport.resume_reading()

    def write(self, data: bytes) -> None:
        if self._ended:
            return
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(data)

    def write_now(self, data: bytes) -> None:
        if self._pending:
            self._pending.append(data)
        elif not (self._ended or self._transport.is_closing()):
            self._transport.write(data)

    def write_eof(self) -> None:
        """What is written after it is dropped: a task that has yet to hear of the end may tell its client to go on."""
        self._flush()
        self._ended = True
        try:
            self._transport.write_eof()
        except OSError:  # asyncio's own loop has not noticed yet that the client is gone
            self._transport.abort()

    def close(self) -> None:
        self._flush()
        if not self._stays():
            self._transport.close()

    def _flush(self) -> None:
        # The client may have gone away since, and uvloop raises at what is written to a closed transport.
        if self._pending and not self._transport.is_closing():
            self._transport.write(b"".join(self._pending))
        self._pending.clear()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
