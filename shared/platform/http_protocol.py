"""HTTP/1.1 on one connection: uvicorn's protocol with limits on what a client may send, and on how long it may take."""

import asyncio
import resource
from dataclasses import dataclass
from functools import partial
from typing import Any

import httptools
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge
from uvicorn import Config
from uvicorn._types import ASGI3Application, HTTPScope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from shared.errors import BadRequest, HeadTooLarge, LedgerError, Overloaded, RequestTimeout
from shared.platform.gate import Gate
from shared.platform.http_transport import READ_BYTES, SmallReads, Transport
from shared.platform.problems import in_lines, problem_response
from shared.platform.settings import ServiceSettings
from shared.platform.watermark import Peer

CONNECTIONS_MAX = 6_000
"""Each is some seventy objects while it waits: at ten thousand, one look of the garbage collector takes 250 ms."""
DESCRIPTORS_RESERVED = 128
"""Of the process's limit on open files: for databases, the broker, the feed, and connections that are turned away."""
TURNED_AWAY_MAX = 32
"""Connections over the limit that wait for their 503; one more takes the place of the oldest, which is cut off."""
FIELD_BYTES = 32
"""What each header counts beyond its bytes, as in RFC 9113, section 6.5.2: so much and more it costs to keep."""
FRAMING_BYTES_MAX = 64 * 1024
"""Of the sizes and extensions of a body's chunks, and of its trailers, beyond as many bytes as the body has."""
LINGER_BYTES_MAX = 256 * 1024
LINGER_BODY_BYTES_MAX = 32 * 1024 * 1024
LINGER_SECONDS = 2.0
"""A client that is still sending is read so far, or it would lose the answer that says why it is hung up on.

One that sends the body of a request that has been answered may well be sending all of it before it reads.
"""
UNREAD_BYTES_MAX = 64 * 1024 * 1024
"""Of all answers that wait for their clients to read them: the answer to one large batch has two million."""
SWEEP_SECONDS = 0.5

BLANKS = b" ", b"\t"

# What a connection is in the middle of.
_IDLE, _HEAD, _BODY, _DEAF, _TURNED_AWAY = range(5)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Limits:
    """What each connection may take; the settings say what each one means."""

    header_bytes_max: int
    header_seconds: float
    body_seconds: float
    idle_seconds: float
    write_seconds: float
    connections_max: int

    @classmethod
    def of(cls, settings: ServiceSettings) -> "Limits":
        return cls(
            settings.header_bytes_max,
            settings.header_seconds,
            settings.body_seconds,
            settings.idle_seconds,
            settings.write_seconds,
            _connections_max(settings.connections_max),
        )


def _connections_max(asked: int | None) -> int:
    files_max, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files_max == resource.RLIM_INFINITY:
        return asked or CONNECTIONS_MAX
    room = max(1, files_max - DESCRIPTORS_RESERVED, files_max // 4)
    if asked is not None and asked > room:
        log.warning(
            "CONNECTIONS_MAX is lowered: raise the limit on open files (ulimit -n) for more",
            asked=asked,
            connections_max=room,
            open_files_max=files_max,
        )
    return min(asked or CONNECTIONS_MAX, room)


class Connections:
    """All connections of a server: how many there may be, and the end of those that wait too long for their client.

    One sweep looks at all of them, so that a request costs no timer.
    """

    def __init__(self, gate: Gate, limits: Limits, registry: CollectorRegistry) -> None:
        self.gate = gate
        self.limits = limits
        self.open: set[Any] = set()
        self.turned_away: dict[Protocol, None] = {}
        """The oldest first."""
        self.read_buffer = memoryview(bytearray(READ_BYTES))
        self.seconds = {
            "write": limits.write_seconds,
            "linger": LINGER_SECONDS,
            "body": limits.body_seconds,
            "header": limits.header_seconds,
            "idle": limits.idle_seconds,
            "turned away": 0.0,
        }
        self._default_headers: list[tuple[bytes, bytes]] = []
        self._default_lines = b""
        self._full = False
        count = Gauge("http_connections", "Open connections.", registry=registry)
        count.set_function(lambda: len(self.open) + len(self.turned_away))
        Gauge("http_connections_max", "Connections from which on more are refused.", registry=registry).set(
            limits.connections_max
        )
        self._refused = Counter("http_connections_refused", "Connections over CONNECTIONS_MAX.", registry=registry)
        self.cut_off = Counter(
            "http_cut_off", "Connections ended by a limit, or malformed.", ["cause"], registry=registry
        )
        for cause in ("header-bytes", "header", "body", "idle", "write", "malformed", "ended-early"):
            self.cut_off.labels(cause)

    def protocol(self, config: Config, server_state: ServerState, **options: Any) -> "Protocol":
        """What uvicorn makes for each connection."""
        self.open = server_state.connections
        return Protocol(self, config, server_state, **options)

    def is_full(self) -> bool:
        """Is there no room for one more? To be asked for each new connection; the log says it once."""
        if len(self.open) < self.limits.connections_max:
            return False
        self._refused.inc()
        if not self._full:
            self._full = True
            log.warning("connections are refused: raise CONNECTIONS_MAX, or see who holds them", open=len(self.open))
        return True

    def default_lines(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        """What is in the head of every answer; uvicorn makes new ones each second."""
        if headers is not self._default_headers:
            self._default_headers = headers
            self._default_lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        return self._default_lines

    async def sweep(self) -> None:
        """For ever: end what is overdue."""
        loop = asyncio.get_running_loop()
        elapsed, last = 0.0, loop.time()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            # Time that this process was stopped, or too busy to read, is not the clients' fault.
            now = loop.time()
            elapsed, last = elapsed + min(now - last, 2 * SWEEP_SECONDS), now
            for connection in [*self.open, *self.turned_away]:
                connection.check(elapsed)
            self._bound_unread()
            if self._full and len(self.open) < self.limits.connections_max * 0.9:
                self._full = False
                log.info("connections are taken again", open=len(self.open))

    def _bound_unread(self) -> None:
        """When too much waits to be read, give up those that have not read for longest."""
        unread, stalled = 0, [connection for connection in self.open if connection.flow.write_paused]
        for connection in sorted(stalled, key=lambda connection: connection.waiting_since, reverse=True):
            unread += connection.transport.get_write_buffer_size()
            if unread > UNREAD_BYTES_MAX:
                self.cut_off.labels("write").inc()
                connection.transport.abort()


class _Whole(RequestResponseCycle):
    """Of a request that came whole and is answered without a task. uvicorn and what is below ask no more of a cycle."""

    message_event = asyncio.Event()
    """Set by uvicorn when something has happened. Nobody waits for it."""
    disconnected = False
    response_started = False
    response_complete = False

    def __init__(self, keep_alive: bool) -> None:
        self.keep_alive = keep_alive
        self.scope: HTTPScope = {}  # type: ignore[typeddict-item]


class Protocol(HttpToolsProtocol):
    """One connection. What is called for each request names its base class: `super()` took 1 % of a deposit's time.

    Whatever is wrong with a request is answered after the requests before it, and is the connection's end.

    A request is parsed once those before it are answered, though one that ends in the middle of a read takes the head
    of the next with it. What is behind them waits as the bytes that it is, and when that is a read, no more is read:
    then a client that leaves is noticed when its answers have been written, or are not taken.
    """

    def __init__(self, connections: Connections, config: Config, server_state: ServerState, **options: Any) -> None:
        super().__init__(config, server_state, **options)
        self._all = connections
        self._header_bytes_max = connections.limits.header_bytes_max
        self._peer = Peer()
        # uvicorn copies it into the scope of each request. The gate gives whole answers; one that can't be brought to
        # its end must not look as if it were.
        self.app_state = {"peer": self._peer, "answer": self._answer, "abort": self._abort}
        self._stage = _IDLE
        self._unanswered = 0
        self._answering: RequestResponseCycle
        self._whole: bytes | None = None
        """What there is of the body of a request that may yet come whole."""
        self.headers = []
        self._rest = b""
        """Read, and not yet given to the parser."""
        self._unparsed_bytes = 0
        """Given to the parser since it last had something to tell: part of a header, a trailer, a chunk's extension."""
        self._framing_bytes = 0
        """Of this request's body, less those of the body itself: see `FRAMING_BYTES_MAX`."""
        self._refusal: LedgerError | None = None
        self._progress = 0
        self._seen: tuple[str | None, int] = (None, 0)
        self.waiting_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        full = self._all.is_full()
        self._transport = Transport(transport, self._is_still_sending)
        super().connection_made(self._transport)  # type: ignore[arg-type]
        transport.set_protocol(SmallReads(self, self._all.read_buffer))
        if full:
            self.connections.discard(self)
            self._stage = _TURNED_AWAY
            self._refusal = Overloaded(f"{len(self.connections)} connections are open. Try again later.")
            self._all.turned_away[self] = None
            if len(self._all.turned_away) > TURNED_AWAY_MAX:
                oldest = next(iter(self._all.turned_away))
                del self._all.turned_away[oldest]
                oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.turned_away.pop(self, None)
        self._peer.leave()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client may end its side and read on: the connection stays until it has its answers."""
        self._peer.leave()
        self._read_on()
        return True  # or it would be closed now, with what is not written yet

    def data_received(self, data: bytes) -> None:
        if self._stage >= _DEAF:
            self._unparsed_bytes += len(data)
            self._discard()
            return
        self._rest = self._rest + data if self._rest else data
        self._parse()
        if len(data) == READ_BYTES or len(self._rest) >= READ_BYTES:
            # There is more to read: after the others' turn.
            self._transport.hold_reading()
            self.loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        """Parse what waits for it and read on, unless too much still waits."""
        if self.transport.is_closing():
            return
        self._parse()
        if len(self._rest) < READ_BYTES:
            self._transport.release_reading()
        if self._peer.gone and not self._rest:
            self._end()

    def _end(self) -> None:
        """Nothing more comes."""
        if self._stage in (_HEAD, _BODY):
            self._refuse("ended-early", BadRequest("The connection ended in the middle of the request."))
        if not self._unanswered:
            self.transport.close()
        elif self._refusal is None:
            self.cycle.keep_alive = False

    def _parse(self) -> None:
        """Give the parser what it is the turn of, in pieces that end where a head does."""
        begin, data = 0, self._rest
        while begin < len(data) and not (self.pipeline if self._stage == _BODY else self._unanswered):
            head_end = data.find(b"\r\n\r\n", begin)
            piece = data[begin : head_end + 4] if head_end >= 0 else data[begin:]
            begin += len(piece)
            self._unparsed_bytes += len(piece)
            try:
                self.parser.feed_data(piece)
            except (httptools.HttpParserUpgrade, httptools.HttpParserError) as error:
                self._refuse_unread(error)
            if self._unparsed_bytes and self._head_bytes() > self._header_bytes_max:
                self._refuse("header-bytes", self._head_too_large())
            if self._stage == _BODY:
                self._framing_bytes += len(piece)
                if self._framing_bytes > FRAMING_BYTES_MAX:
                    over = f"over {FRAMING_BYTES_MAX} bytes more than the body itself"
                    self._refuse("malformed", BadRequest(f"Its chunks' sizes and extensions are {over}."))
            if self._stage >= _DEAF:
                begin = len(data)
        self._rest = data[begin:]
        if self._whole is not None:  # there is more of it to come
            self._begin_cycle()

    def _refuse_unread(self, error: Exception) -> None:
        # What a callback raises is the context of what the parser raises then.
        known = error.__context__
        if isinstance(error, httptools.HttpParserUpgrade):
            # Answered as if it had not asked; what follows may be in another protocol.
            self.cycle.keep_alive = False
            self._stage = _DEAF
        elif isinstance(known, HeadTooLarge):
            self._refuse("header-bytes", known)
        elif isinstance(known, BadRequest):
            self._refuse("malformed", known)
        else:
            reason = "the request's target cannot be read" if known else str(error)
            errors = [("Content-Length", reason)] if "Content-Length" in reason else []
            self._refuse("malformed", BadRequest(f"This is not HTTP/1.1: {reason}.", errors=errors))

    def _head_bytes(self) -> int:
        """Of the head that is being read, or of a chunk's extension, or a trailer."""
        return self._unparsed_bytes + FIELD_BYTES * len(self.headers)

    def on_message_begin(self) -> None:
        self._stage = _HEAD
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        if self._head_bytes() > self._header_bytes_max:
            raise self._head_too_large()
        version = self.parser.get_http_version()
        if version == "1.0":
            self.expect_100_continue = False  # RFC 9110, section 10.1.1
        elif version != "1.1":
            raise BadRequest(f"HTTP/{version} is not spoken here.")
        # Any other names its host itself, and that one would be meant instead of Host (RFC 9112, section 3.2.2).
        if not self.url.startswith(b"/") and self.url != b"*":
            raise BadRequest("the request's target must begin with /: send its host in the Host header only.")
        has_body = False
        for number, (name, value) in enumerate(self.headers):
            if value.endswith(BLANKS):  # RFC 9112, section 5.1: the parser leaves what is behind a value
                value = value.rstrip(b" \t")
                self.headers[number] = name, value
                if name == b"expect" and version == "1.1":
                    self.expect_100_continue = value.lower() == b"100-continue"
            if name == b"transfer-encoding":
                has_body = True
                if value.lower() != b"chunked":
                    raise BadRequest("the only Transfer-Encoding understood is chunked.")
            elif name == b"content-length" and value.strip(b"0"):
                has_body = True
        if has_body and self.parser.should_upgrade():
            raise BadRequest("A body that comes with Upgrade cannot be read. Send the request without Upgrade.")
        # A trailer is counted and dropped: nothing may slip in behind what has been looked at.
        self._head, self.headers = self.headers, []
        self._expects = self.expect_100_continue
        self._is_1_1 = version == "1.1"
        waits = self._unanswered or self.flow.write_paused or self._expects
        if has_body and not waits and self.parser.get_method() == b"POST":
            target = httptools.parse_url(self.url)
            self._path, self._query = target.path.decode("ascii"), target.query or b""
            self._whole = b""
        else:
            self._begin_cycle()
        self._unanswered += 1
        self._stage = _BODY
        self._progress += 1
        self._framing_bytes = -self._unparsed_bytes
        self._unparsed_bytes = 0

    def _begin_cycle(self) -> None:
        """Go uvicorn's way from here on: a scope, a cycle and a task, which is a sixth of a deposit's time."""
        url, trailers = self.url, self.headers
        HttpToolsProtocol.on_message_begin(self)
        self.url, self.expect_100_continue = url, self._expects
        self.headers += self._head
        HttpToolsProtocol.on_headers_complete(self)
        self._head, self.headers = [], trailers
        body, self._whole = self._whole, None
        if body:
            HttpToolsProtocol.on_body(self, body)

    def on_body(self, body: bytes) -> None:
        self._unparsed_bytes = 0
        self._framing_bytes -= 2 * len(body)
        if self._whole is None:
            HttpToolsProtocol.on_body(self, body)
        else:
            self._whole += body

    def on_message_complete(self) -> None:
        if self.headers and sum(len(n) + len(v) + FIELD_BYTES for n, v in self.headers) > self._header_bytes_max:
            raise self._head_too_large()  # the trailers came together with the last of the body
        self._unparsed_bytes = 0
        is_answered = self._whole is not None and self._is_answered_whole(self._whole)
        self._stage = _IDLE
        if is_answered:
            return
        if self._whole is not None:
            self._begin_cycle()
        if not self.parser.should_keep_alive():
            # A trailer may say so, too: whatever it was asked for, the parser reads nothing behind it.
            self.cycle.keep_alive = False
            if self.cycle.response_complete:
                self.transport.close()
        HttpToolsProtocol.on_message_complete(self)

    def _is_answered_whole(self, body: bytes) -> bool:
        whole = _Whole(self._is_1_1 and self.parser.should_keep_alive())
        write = partial(self._write_answer, whole)
        if not self._all.gate.answer_whole(self._path, self._query, self._head, body, self._peer, write):
            return False
        self.cycle = self._answering = whole
        self._head, self._whole = [], None
        return True

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        HttpToolsProtocol._start_asgi_task(self, cycle, app)

    def _abort(self) -> None:
        self.transport.abort()

    async def _answer(self, status: int, head: bytes, body: bytes) -> None:
        """A whole answer at once, as `cycle.send` makes it of two messages, with a look at each header.

        `head` is lines, Content-Length among them.
        """
        cycle = self._answering
        if self.flow.write_paused and not cycle.disconnected:
            await self.flow.drain()
        self._write_answer(cycle, status, head, body)

    def _write_answer(self, cycle: RequestResponseCycle, status: int, head: bytes, body: bytes) -> None:
        if cycle.disconnected:
            return
        cycle.response_started = cycle.response_complete = True
        close = b"" if cycle.keep_alive else b"connection: close\r\n"
        default = self._all.default_lines(self.server_state.default_headers)
        self._transport.write_now(b"".join((STATUS_LINE[status], default, close, head, b"\r\n", body)))
        cycle.message_event.set()
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def on_response_complete(self) -> None:
        # As uvicorn has it, without its timer: the sweep looks after what is idle.
        self._unanswered -= 1
        self.server_state.total_requests += 1
        # FastAPI leaves twenty objects in it, and a connection may be idle for long.
        if self.scope is self._answering.scope:
            self.scope = {}  # type: ignore[typeddict-item]
        self._answering.scope = {}  # type: ignore[typeddict-item]
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._stage == _DEAF:
            self._hang_up()
        if self._rest:
            # Not at once: an error that is being answered would be taken for the next request's.
            self.loop.call_soon(self._read_on)

    def resume_writing(self) -> None:
        self._progress += 1
        super().resume_writing()

    def check(self, now: float) -> None:
        """End the connection if it has been waiting for its client for too long; `now` in seconds."""
        awaited = self._awaited()
        if self._seen != (awaited, self._progress):
            self._seen, self.waiting_since = (awaited, self._progress), now
            return
        if awaited is None or now - self.waiting_since < self._all.seconds[awaited]:
            return
        match awaited:
            case "turned away":
                self._hang_up()
            case "linger":
                self.transport.abort()
            case "write":
                self._all.cut_off.labels("write").inc()
                self.transport.abort()
            case "idle":
                self._all.cut_off.labels("idle").inc()
                self.transport.close()
            case _:
                error = RequestTimeout(f"The {awaited} was not complete after {self._all.seconds[awaited]:g} seconds.")
                self._refuse(awaited, error)

    def _awaited(self) -> str | None:
        """What the client has to do next; None when it is our turn."""
        if self.transport.is_closing() or self.flow.write_paused:
            return "write"
        if self._stage == _TURNED_AWAY:
            return "turned away"
        if self._stage == _BODY:
            # While earlier requests are being answered, or what has come is not yet taken, nothing more is read.
            return None if self.pipeline or self.flow.read_paused else "body"
        if self._unanswered:
            return None
        return {_DEAF: "linger", _HEAD: "header", _IDLE: "idle"}[self._stage]

    def _head_too_large(self) -> HeadTooLarge:
        return HeadTooLarge(
            f"Request line and headers, or trailers, are limited to {self._header_bytes_max} bytes, "
            f"of which each header takes {FIELD_BYTES} beyond its own."
        )

    def _refuse(self, cause: str, error: LedgerError) -> None:
        """Take nothing more from this client, and tell it why."""
        self._all.cut_off.labels(cause).inc()
        in_body = self._stage == _BODY
        self._stage = _DEAF
        self._progress += 1
        self._unparsed_bytes = 0
        self._refusal = error
        if in_body and self._whole is not None:
            self._whole = None
            self._unanswered -= 1
        elif in_body and self.cycle.response_complete:
            self._refusal = None  # it has its answer, which did not need the body
        elif in_body and self.cycle.response_started:
            self.transport.abort()
            return
        elif in_body:
            self._unanswered -= 1
            if self.pipeline:
                self.pipeline.popleft()  # the newest, which has not been started
            else:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
        if not self._unanswered:
            self._hang_up()

    def _hang_up(self) -> None:
        """Say what is to be said last, and close once the client has had a chance to read it."""
        if self.transport.is_closing():
            return
        self._stage = _DEAF
        self._progress += 1
        if self._refusal is not None:
            status, head, body = in_lines(problem_response(self._refusal))
            default = self._all.default_lines(self.server_state.default_headers)
            lines = STATUS_LINE[status], default, head, b"connection: close\r\n\r\n", body
            self.transport.write(b"".join(lines))
        if self._peer.gone:
            self.transport.close()
        else:
            self.transport.write_eof()

    def _is_still_sending(self) -> bool:
        """Is this the end for a client that has its answer just now, in the middle of its body? Then hang up on it."""
        if self._stage != _BODY or not self._unanswered or not self.cycle.response_complete:
            return False
        self._stage = _DEAF
        self._unparsed_bytes = 0
        return True

    def _discard(self) -> None:
        if self._stage == _TURNED_AWAY:
            self._hang_up()
            return
        bytes_max = LINGER_BODY_BYTES_MAX if self._refusal is None else LINGER_BYTES_MAX
        if not self._unanswered and self._unparsed_bytes > bytes_max:
            self.transport.abort()
