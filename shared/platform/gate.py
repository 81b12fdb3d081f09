"""The gate that every request goes through: what it must and must not say of itself, how much of it is read.

Behind it are the few endpoints that most of the time goes to. FastAPI's handling of a request costs several times what
deciding and recording a command does (docs/performance.md); it has all other paths.
"""

import asyncio
import ipaddress
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, ClassVar, NoReturn
from urllib.parse import unquote, urlsplit

from fastapi import FastAPI
from msgspec import Struct
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Message, Receive, Scope, Send

from shared.errors import (
    BadRequest,
    BodyTooLarge,
    Forbidden,
    InvalidRequest,
    LedgerError,
    MethodNotAllowed,
    MisdirectedRequest,
    Overloaded,
    UnsupportedMediaType,
)
from shared.platform.caching import is_named
from shared.platform.problems import in_lines, problem_response, unexpected_response
from shared.platform.watermark import Peer

HOST_BYTES_MAX = 261
"""A name of 255 and a port: nothing longer is looked up, and so kept."""
BODIES_BYTES_MAX = 128 * 1024 * 1024
"""Of all requests whose bodies are on their way: a thousand clients that send slowly must not fill the memory."""
NAMES = (
    *("Authorization", "Content-Encoding", "Content-Length", "Content-Type", "Host", "Idempotency-Key", "Origin"),
    *("Last-Event-ID", "Sec-Fetch-Site", "traceparent"),
)
ONCE = {name.lower().encode(): name for name in NAMES}
"""Headers of which two readers might each believe another one, and how they are documented."""
IF_NONE_MATCH = b"if-none-match"
"""A list, which may come in several lines (RFC 9110, section 5.3)."""
SITES_OF_OURS = {b"same-origin", b"same-site", b"none"}
# RFC 6838, section 4.2
_is_json = re.compile(rb"application/(json|[a-z0-9][a-z0-9!#$&^_.+-]{0,121}\+json)").fullmatch

Headers = Mapping[bytes, bytes]
Write = Callable[[int, bytes, bytes], None]
"""Status, lines of the head, and body of an answer."""


class Request(Struct, frozen=True):
    """`name` is the part of the path that the endpoint has for any, decoded.

    `headers` are those of `ONCE` and `IF_NONE_MATCH`, in lower case, and `sent` are all.
    """

    name: str
    query: bytes
    headers: Headers
    sent: Iterable[tuple[bytes, bytes]]
    peer: Peer


class Answer(Struct, frozen=True):
    """One with an `etag` is a 304 without its body for a client that has it already."""

    status: int
    media_type: bytes
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    etag: bytes = b""


class Get(Struct, frozen=True):
    """What answers GET at a path; the application may answer other methods there.

    `handle` raises `LedgerError`. None leaves the request to the application. What a client wants to wait for is waited
    for here: the application takes many times the memory, and thousands may wait.
    """

    handle: Callable[[Request], Awaitable[Answer | None]]
    method: ClassVar[str] = "GET"


class Post(Struct, frozen=True):
    """What answers POST at a path: `begin` takes a body of JSON, of up to `bytes_max`, and `tell` what comes of it.

    Each raises `LedgerError`, and so does what is waited for between them. That nothing else is waited for lets a
    request that came whole go without a task (`Gate.answer_whole`).
    """

    bytes_max: int
    begin: Callable[[Request, bytes], "asyncio.Future[Any]"]
    tell: Callable[[Any], Answer]
    method: ClassVar[str] = "POST"


class ClientGone(Exception):
    """Nobody is there to be answered."""


class Gate:
    """`endpoints` by path, without a slash at its end; one that has it there is for all paths with one part more, and
    one with `/*/` before its last part for any there.

    `hosts` are the names by which clients may call this service, "*" for any.
    """

    def __init__(self, app: FastAPI, endpoints: Mapping[str, Get | Post], hosts: Iterable[str]) -> None:
        self._app = app
        self._endpoints = endpoints
        self._bodies = _Bodies()
        self._is_own = lru_cache(maxsize=1024)(_Hosts(hosts).allow)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The path as a proxy in front may have judged it: %2F is no slash in it, and only an id is decoded.
        scope["path"] = scope["raw_path"].decode("ascii")
        try:
            headers = _once(scope["headers"])
            self._admit(scope["method"], headers)
            answer = await self._answer(scope, headers, receive)
        except ClientGone:
            return
        except Exception as error:
            await _problem(scope["method"], scope["path"], error)(scope, receive, send)
            return
        if answer is None:
            await self._app(scope, receive, send)
            return
        await scope["state"]["answer"](*_lines(answer, headers))

    def answer_whole(
        self, path: str, query: bytes, sent: Iterable[tuple[bytes, bytes]], body: bytes, peer: Peer, write: Write
    ) -> bool:
        """Answer a POST that is here with all of its body: `write` is called later, once. False when that takes a task.

        `path` is as it was sent. What a task, and uvicorn's cycle around it, costs is a sixth of a deposit's time.
        """
        endpoint, name = self._find(path)
        if not isinstance(endpoint, Post):
            return False

        def tell(outcome: "asyncio.Future[Any]") -> None:
            try:
                answer = _lines(endpoint.tell(outcome.result()), headers)
            except Exception as error:
                answer = in_lines(_problem("POST", path, error))
            write(*answer)

        try:
            headers = _once(sent)
            self._admit("POST", headers)
            _check_body(headers, endpoint.bytes_max)
            _check_size(len(body), endpoint.bytes_max)
            outcome = endpoint.begin(Request(name, query, headers, sent, peer), body)
        except Exception as error:
            asyncio.get_running_loop().call_soon(write, *in_lines(_problem("POST", path, error)))
        else:
            outcome.add_done_callback(tell)
        return True

    def _admit(self, method: str, headers: Headers) -> None:
        """Refuse what a web page of somebody else can make a browser send.

        A name that leads here without being ours is DNS rebinding. Browsers say where a POST comes from:
        https://fetch.spec.whatwg.org/#origin-header and https://www.w3.org/TR/fetch-metadata/
        """
        host = headers.get(b"host")
        if host is None:
            raise BadRequest("send one Host header (RFC 9112, section 3.2).", errors=[("Host", "is missing")])
        if len(host) > HOST_BYTES_MAX or not self._is_own(host):
            raise MisdirectedRequest(
                "the Host is none of this service's names. Add it to ALLOWED_HOSTS if it should be."
            )
        if method == "POST" and (b"origin" in headers or b"sec-fetch-site" in headers):
            name = host.lower()
            if headers.get(b"origin", b"http://" + name).lower() not in (b"http://" + name, b"https://" + name):
                raise Forbidden("the Origin is another one than this service's: pages elsewhere may not post here.")
            if headers.get(b"sec-fetch-site", b"none").strip().lower() not in SITES_OF_OURS:
                raise Forbidden("Sec-Fetch-Site says another site than this one: pages elsewhere may not post here.")

    async def _answer(self, scope: Scope, headers: Headers, receive: Receive) -> Answer | None:
        endpoint, name = self._find(scope["path"])
        if endpoint is None:
            return None
        if scope["method"] != endpoint.method:
            if any(route.matches(scope)[0] is Match.FULL for route in self._app.routes):
                return None
            raise MethodNotAllowed(f"{scope['path']}: use {endpoint.method}.", {"Allow": endpoint.method})
        request = Request(name, scope["query_string"], headers, scope["headers"], Peer.of(scope))
        if isinstance(endpoint, Get):
            return await endpoint.handle(request)
        # Before the client is told to send it, if it asked (Expect: 100-continue).
        _check_body(headers, endpoint.bytes_max)
        body = await self._bodies.read(receive, endpoint.bytes_max)
        return endpoint.tell(await endpoint.begin(request, body))

    def _find(self, path: str) -> tuple[Get | Post | None, str]:
        path = path.removesuffix("/")
        cut = path.rfind("/") + 1
        if cut == len(path):
            return None, ""
        endpoint, name = self._endpoints.get(path), ""
        if endpoint is None:
            endpoint, name = self._endpoints.get(path[:cut]), unquote(path[cut:])
        if endpoint is None:
            above, _, name = path[: cut - 1].rpartition("/")
            endpoint, name = self._endpoints.get(f"{above}/*/{path[cut:]}"), unquote(name)
        return endpoint, name


def _check_body(headers: Headers, bytes_max: int) -> None:
    if headers.get(b"content-type") != b"application/json" or b"content-encoding" in headers:
        _require_json(headers)
    _check_size(int(headers.get(b"content-length", 0)), bytes_max)


def _lines(answer: Answer, headers: Headers) -> tuple[int, bytes, bytes]:
    """What is to be written, for a client that has sent `headers`."""
    status, body = answer.status, answer.body
    head = b"content-length: %d\r\ncontent-type: %b\r\n" % (len(body), answer.media_type)
    if answer.etag:
        if IF_NONE_MATCH in headers and is_named(answer.etag, headers[IF_NONE_MATCH]):
            status, head, body = 304, b"", b""
        head += b"etag: %b\r\n" % answer.etag
    for header in answer.headers:
        head += b"%b: %b\r\n" % header
    return status, head, body


def _problem(method: str, path: str, error: Exception) -> Response:
    return problem_response(error) if isinstance(error, LedgerError) else unexpected_response(method, path, error)


def _once(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    once: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in ONCE:
            if name in once:
                _refuse_repeated(name)
            once[name] = value
        elif name == IF_NONE_MATCH:
            once[name] = once[name] + b", " + value if name in once else value
    return once


def _refuse_repeated(name: bytes) -> NoReturn:
    errors = [(ONCE[name], "was sent twice; send it once")]
    if name == b"host":
        raise BadRequest("send one Host header, not two (RFC 9112, section 3.2).", errors=errors)
    raise InvalidRequest(errors)


def _require_json(headers: Headers) -> None:
    """A page elsewhere can make a browser post other types, or none, without asking first.

    https://fetch.spec.whatwg.org/#cors-safelisted-request-header
    """
    if not _is_json(headers.get(b"content-type", b"").split(b";")[0].strip().lower()):
        raise UnsupportedMediaType("the Content-Type must be application/json.")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedMediaType("send the body as it is, without Content-Encoding.", {"Accept-Encoding": "identity"})


class _Hosts:
    """Names by which a service may be called.

    A service that listens on every address of its machine is named by all of them: an address cannot be rebound.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {name.strip().strip("[]").lower() for name in names}
        self._any = "*" in self._names
        self._any_address = not self._names.isdisjoint({"0.0.0.0", "::"})

    def allow(self, header: bytes) -> bool:
        try:
            split = urlsplit(f"//{header.decode('ascii')}")
            name, _ = split.hostname, split.port
        except ValueError:
            return False
        if not name or split.netloc != header.decode() or split.username is not None:
            return False
        return self._any or name in self._names or (self._any_address and _is_address(name))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class _Bodies:
    """Reads bodies, and bounds what all of those that are on their way hold together.

    When that is too much, the one that has been on its way for longest is given up: clients that never come to an end
    cannot keep out those that do.
    """

    def __init__(self) -> None:
        self._held = 0
        self._on_their_way: dict[asyncio.Task[object], bytearray] = {}
        """The oldest first."""

    async def read(self, receive: Receive, bytes_max: int) -> bytes:
        """The whole body. Raises `BodyTooLarge`, `Overloaded`, and `ClientGone` when it will never be whole."""
        message = await receive()
        body = _part(message)
        if not message.get("more_body", False):
            _check_size(len(body), bytes_max)
            return body
        return await self._read_on(receive, body, bytes_max)

    async def _read_on(self, receive: Receive, part: bytes, bytes_max: int) -> bytes:
        task = asyncio.current_task()
        assert task is not None
        body = self._on_their_way[task] = bytearray()
        more = True
        try:
            while True:
                body += part
                self._held += len(part)
                _check_size(len(body), bytes_max)
                if not more:
                    return bytes(body)
                if self._held > BODIES_BYTES_MAX:
                    self._give_one_up(task)
                message = await receive()
                part, more = _part(message), message.get("more_body", False)
        except asyncio.CancelledError:
            if task in self._on_their_way:
                raise
            task.uncancel()
            raise _given_up() from None
        finally:
            if self._on_their_way.pop(task, None) is not None:
                self._held -= len(body)

    def _give_one_up(self, current: asyncio.Task[object]) -> None:
        oldest = next(iter(self._on_their_way))
        if oldest is current:
            raise _given_up()
        body = self._on_their_way.pop(oldest)
        self._held -= len(body)
        body.clear()
        oldest.cancel()


def _given_up() -> Overloaded:
    return Overloaded(f"over {BODIES_BYTES_MAX} bytes of requests are on their way. Try again later.")


def _part(message: Message) -> bytes:
    if message["type"] != "http.request":
        raise ClientGone
    body: bytes = message.get("body", b"")
    return body


def _check_size(size: int, bytes_max: int) -> None:
    if size > bytes_max:
        raise BodyTooLarge(f"the body is over {bytes_max} bytes.")
