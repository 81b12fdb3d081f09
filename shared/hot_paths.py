"""The few requests that most of the time goes to, answered ahead of the framework.

FastAPI's handling of a request costs several times what deciding and recording a command does (docs/performance.md).
A handler here takes what is plainly well-formed. Everything else goes on to the application, which answers the same.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.problems import LedgerError, Overloaded, problem_response, unexpected_response

BODIES_BYTES_MAX = 128 * 1024 * 1024
"""Of all requests that are being read: a thousand clients that send slowly must not fill the memory."""


class HotRequest(NamedTuple):
    """`name` is the last part of the path, decoded; `headers` are in lower case, as ASGI has them."""

    name: str
    query: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes


class HotAnswer(NamedTuple):
    status: int
    media_type: bytes
    body: bytes
    position: int | None = None


Handler = Callable[[HotRequest], Awaitable[HotAnswer | None]]
"""None leaves the request to the application. Raises `LedgerError`."""


class HotPaths:
    """`handlers` by method and path; a path that ends with a slash stands for all that go on with one part more."""

    def __init__(self, app: ASGIApp, handlers: Mapping[tuple[str, str], Handler], bytes_max: int = 0) -> None:
        self._app = app
        self._handlers = handlers
        self._bytes_max = bytes_max
        self._bytes_held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope.get("path", ""), scope.get("method", "")
        cut = path.rfind("/") + 1
        handler = self._handlers.get((method, path)) or self._handlers.get((method, path[:cut]))
        if handler is None:
            await self._app(scope, receive, send)
            return
        body = bytearray()
        try:
            last = await self._read(receive, body)
            answer = None
            if last["type"] == "http.request" and len(body) <= self._bytes_max:
                answer = await handler(HotRequest(path[cut:], scope["query_string"], scope["headers"], bytes(body)))
        except LedgerError as error:
            await problem_response(error)(scope, receive, send)
            return
        except Exception as error:
            await unexpected_response(method, path, error)(scope, receive, send)
            return
        else:
            if answer is None:
                await self._app(scope, _replay({**last, "body": bytes(body)}, receive), send)
                return
        finally:
            self._bytes_held -= len(body)
        headers = [
            (b"content-length", b"%d" % len(answer.body)),
            (b"content-type", answer.media_type),
        ]
        if answer.position is not None:
            headers.append((b"ledger-position", b"%d" % answer.position))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _read(self, receive: Receive, body: bytearray) -> Message:
        """Fill `body` up to its end or to what is too much; the last message."""
        while True:
            message = await receive()
            part = message.get("body", b"")
            body += part
            self._bytes_held += len(part)
            if not message.get("more_body") or len(body) > self._bytes_max:
                return message
            if self._bytes_held > BODIES_BYTES_MAX:
                raise Overloaded(f"{self._bytes_held} bytes of requests are being read. Try again later.")


def _replay(first: Message, receive: Receive) -> Receive:
    remaining = [first]

    async def next_message() -> Message:
        return remaining.pop() if remaining else await receive()

    return next_message
