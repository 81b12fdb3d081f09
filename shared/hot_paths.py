"""The few requests that most of the time goes to, answered ahead of the framework.

FastAPI's handling of a request costs several times what deciding and recording a command does (docs/performance.md).
A handler here takes what is plainly well-formed. Everything else goes on to the application, which answers the same.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.problems import LedgerError, problem_response, unexpected_response


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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope.get("path", ""), scope.get("method", "")
        cut = path.rfind("/") + 1
        handler = self._handlers.get((method, path)) or self._handlers.get((method, path[:cut]))
        if handler is None:
            await self._app(scope, receive, send)
            return
        received: list[Message] = []
        size = 0
        while True:
            message = await receive()
            received.append(message)
            size += len(message.get("body", b""))
            if not message.get("more_body") or size > self._bytes_max:
                break
        answer = None
        if message["type"] == "http.request" and size <= self._bytes_max:
            body = b"".join([part.get("body", b"") for part in received])
            try:
                answer = await handler(HotRequest(path[cut:], scope["query_string"], scope["headers"], body))
            except LedgerError as error:
                await problem_response(error)(scope, receive, send)
                return
            except Exception as error:
                await unexpected_response(method, path, error)(scope, receive, send)
                return
        if answer is None:
            await self._app(scope, _replay(received, receive), send)
            return
        headers = [
            (b"content-length", b"%d" % len(answer.body)),
            (b"content-type", answer.media_type),
        ]
        if answer.position is not None:
            headers.append((b"ledger-position", b"%d" % answer.position))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})


def _replay(received: list[Message], receive: Receive) -> Receive:
    remaining = iter(received)

    async def next_message() -> Message:
        message = next(remaining, None)
        return await receive() if message is None else message

    return next_message
