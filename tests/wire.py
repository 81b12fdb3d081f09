"""HTTP/1.1 in bytes: a client that sends whatever it is given, as no well-behaved library would."""

import asyncio
from contextlib import suppress
from typing import NamedTuple

ANSWER_SECONDS = 20
ANSWER_BYTES_MAX = 64 * 1024 * 1024
DOUBT_SECONDS = 3
"""Of silence until a client believes that no answer comes to what may be no whole request."""
QUIET_SECONDS = 0.1
"""Of silence until it believes that no answer comes beyond those that it can think of."""


class Answer(NamedTuple):
    """`headers` have their names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class NoAnswer(Exception):
    """The server ended the connection, or said nothing in time."""


class Connection:
    """One connection at a time to one server; opened anew when the server has ended it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, raw: bytes, is_head: bool = False) -> Answer:
        """The answer to one whole request. Raises `NoAnswer`.

        A server may end a connection that nobody used, just when somebody does: so it is asked again, once.
        """
        is_fresh = self._writer is None
        try:
            return await self._ask(raw, is_head)
        except NoAnswer:
            if is_fresh:
                raise
            return await self._ask(raw, is_head)

    async def _ask(self, raw: bytes, is_head: bool) -> Answer:
        reader, writer = await self._open()
        writer.write(raw)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                # A server that refuses a request early need not read all of it.
                answer = await read_answer(reader, is_head)
        except TimeoutError:
            self.close()
            raise NoAnswer(f"nothing in {ANSWER_SECONDS} s") from None
        except NoAnswer:
            self.close()
            raise
        if answer.headers.get("connection", "").lower() == "close":
            self.close()
        return answer

    async def ask_vaguely(self, raw: bytes, answers_likely: int = 1) -> list[Answer]:
        """Every answer to what may be no request, half of one, or several, on a connection of its own."""
        self.close()
        reader, writer = await self._open()
        writer.write(raw)
        answers: list[Answer] = []
        with suppress(NoAnswer, TimeoutError):
            while True:
                async with asyncio.timeout(DOUBT_SECONDS if len(answers) < answers_likely else QUIET_SECONDS):
                    answers.append(await read_answer(reader, is_head=raw.startswith(b"HEAD ")))
        self.close()
        return answers

    def close(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._reader is None or self._writer is None:
            try:
                self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1024 * 1024)
            except OSError as error:
                raise NoAnswer(str(error)) from error
        return self._reader, self._writer


async def read_answer(reader: asyncio.StreamReader, is_head: bool) -> Answer:
    """The next answer but those that only announce one (1xx). Raises `NoAnswer`."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            status = int(head[0].split(" ", 2)[1])
            if status >= 200:
                break
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
        if is_head or status in (204, 304):
            body = b""
        elif "content-length" in headers:
            body = await reader.readexactly(min(int(headers["content-length"]), ANSWER_BYTES_MAX))
        elif headers.get("transfer-encoding") == "chunked":
            body = await _read_chunks(reader)
        else:
            body = await reader.read(ANSWER_BYTES_MAX)
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, IndexError) as error:
        raise NoAnswer(repr(error)) from error
    return Answer(status, headers, body)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return bytes(body)


def request(method: str, target: str, body: bytes = b"", *headers: tuple[str, str], host: str = "127.0.0.1") -> bytes:
    """A whole and well-formed one, with its length and, where it has a body, the type of JSON."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers)]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body
