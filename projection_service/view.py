"""What a view is, and how its queries answer. Each is a room of its own under `views/`."""

from base64 import b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, NamedTuple, Protocol, TypeVar, cast

import msgspec
from fastapi import APIRouter, Query, Request, Response
from msgspec import Struct
from pydantic import BaseModel

from projection_service.view_store import Change, ReadRows, ViewStore
from shared.errors import NotFound, ProjectionBehind
from shared.events import INT64_MAX, TIME_CHARS_MAX, TIME_RULE, AccountId, Asset, HoldId, Position, RecordedEvent
from shared.platform.caching import ASK_AGAIN, etag_of
from shared.platform.gate import Answer, Get
from shared.platform.watermark import Peer

S = TypeVar("S")
P = TypeVar("P", bound=Struct)

_encode = msgspec.json.Encoder().encode

WAIT_SECONDS_MAX = 60
POSITION = "Ledger-Position"
"""The header of an answer that tells at which position it holds."""
ASKED = "min_position"
"""In a request's scope, once it has been read: no answer is of a position before."""

MinPosition = Annotated[
    int,
    Query(
        ge=0,
        le=INT64_MAX,
        description="Answer only once the view has reached this position: with the position "
        "from a command's answer, read your own write.",
    ),
]
WaitSeconds = Annotated[
    float, Query(ge=0, le=WAIT_SECONDS_MAX, description="Seconds to wait for min_position at most.")
]
AtPosition = Annotated[
    int | None,
    Query(
        ge=0,
        le=INT64_MAX,
        description="As it was after the event at this position, which is waited for as for `min_position`.",
    ),
]
AsOf = Annotated[
    str | None,
    Query(
        max_length=TIME_CHARS_MAX,
        description="As it was at this time, after the last event that the view has of then or before: "
        f"{TIME_RULE}, and not in the future.",
        json_schema_extra={"format": "date-time"},
    ),
]


NO_PAST = dict.fromkeys(("at_position", "as_of"), "this query has no past")
"""Parameters that must not be passed over: who asks for the past would take the present for it."""


class Asked(BaseModel):
    """What every query takes."""

    min_position: MinPosition = 0
    wait: WaitSeconds = 5


class AskedPast(Asked):
    """What those queries take, too, that can say how it was."""

    at_position: AtPosition = None
    as_of: AsOf = None


Reach = Callable[[Asked, Peer], Awaitable[None]]
"""Waits until the views are where a query wants them. Raises `ProjectionBehind`."""


def check_position(position: int, min_position: int) -> None:
    """Of an answer, once it is there: the views may have gone back after they were waited for.

    Raises `ProjectionBehind`.
    """
    if position < min_position:
        raise ProjectionBehind(f"the view is at position {position}, not yet at {min_position}.", position)


class Then(Protocol):
    """How it was after the event at `position`, and stays for ever. All raise `ProjectionBehind`."""

    position: Position

    async def account(self, account_id: AccountId) -> Mapping[str, object] | None:
        """As its query told it; None when there was none."""

    async def accounts(self, ids: Sequence[AccountId]) -> Mapping[AccountId, Mapping[str, object]]:
        """Those of `ids` that there were, at less cost than one by one."""

    async def holds(
        self, account_id: AccountId, after: HoldId, holds_max: int
    ) -> Sequence[Mapping[str, object]] | None:
        """The open ones after the id `after`, in the order of their ids; None when there was no such account."""

    async def reserve(self, asset: Asset) -> Mapping[str, object]: ...

    async def reserves(self, after: str, assets_max: int) -> Sequence[Mapping[str, object]]:
        """Those of the assets after `after`, in their order."""


Past = Callable[[AskedPast, Peer], Awaitable[Then | None]]
"""Waits until the views are where a query wants them; how it was then, or None when it asks for the present.

Raises `ProjectionBehind`, `InvalidRequest`, and `NotFound` when the past is not kept.
"""


def no_past(reach: Reach, views: str) -> Past:
    """That of a projection of `views` alone."""

    async def past(asked: AskedPast, peer: Peer) -> None:
        if asked.at_position is not None or asked.as_of is not None:
            raise NotFound(f"this projection keeps no past: its PROJECTION_VIEWS is {views}, without history.")
        await reach(asked, peer)

    return past


def then_of(past: Past) -> Callable[..., Awaitable[Then | None]]:
    """What a query depends on that can say how it was."""

    async def then(
        request: Request, at_position: AtPosition = None, as_of: AsOf = None, wait: WaitSeconds = 5
    ) -> Then | None:
        # Not there when it was malformed, as FastAPI is about to say.
        min_position = request.scope.get(ASKED, 0)
        asked = AskedPast(min_position=min_position, wait=wait, at_position=at_position, as_of=as_of)
        found = await past(asked, Peer.of(request.scope))
        if found is not None:
            # What was to be reached has been: the answer's own position may be one before.
            request.scope[ASKED] = min(found.position, min_position)
        return found

    return then


def no_endpoints(store: ViewStore, reach: Reach, past: Past) -> Mapping[str, Get]:
    """Most queries are not asked often enough to need an endpoint before FastAPI's."""
    return {}


class Run:
    """Consecutive events on their way into the views, which are read as they were before them.

    `chain` is the ledger's after the last of them. What a view has worked out of them, it may share with those that
    need it: they are folded after it.
    """

    def __init__(self, read: ReadRows, events: Sequence[RecordedEvent], chain: bytes) -> None:
        self.read = read
        self.events = events
        self.chain = chain
        self._shared: dict[type, object] = {}

    def share(self, worked_out: object) -> None:
        self._shared[type(worked_out)] = worked_out

    def shared(self, kind: type[S]) -> S:
        """What a view that is needed has shared of that type."""
        return cast(S, self._shared[kind])


class View(NamedTuple):
    name: str
    """Its folder's, and its name in PROJECTION_VIEWS."""
    changes: Callable[[Run], Awaitable[list[Change]]]
    """What a run of events changes in its tables. Raises `ImpossibleEvents` at what no ledger could have recorded."""
    add_queries: Callable[[APIRouter, ViewStore, Past], None]
    """Registers its queries. They take `min_position` and `wait` without doing anything for it."""
    endpoints: Callable[[ViewStore, Reach, Past], Mapping[str, Get]] = no_endpoints
    """Those of its queries that are asked most, for the gate: there they wait, and may be answered, at less cost."""
    past: Callable[[ViewStore, Reach], Past] | None = None
    """Of the one that keeps it."""
    needs: Sequence[str] = ()
    """The views without which it is not kept: it uses their tables, their folds, and what they share of a run."""
    sparse: Sequence[str] = ()
    """Its tables that have rows at some positions only, whichever: where a run happened to end."""


def answer(body: bytes, position: Position) -> Response:
    """JSON, from what the view held at `position`."""
    headers = {**position_header(position), "ETag": etag_of(body).decode()}
    return Response(body, headers=headers, media_type="application/json")


def answer_of_gate(body: bytes, position: Position, *headers: tuple[bytes, bytes]) -> Answer:
    """The same, for the gate."""
    of_all = (b"ledger-position", b"%d" % position), (b"cache-control", ASK_AGAIN)
    return Answer(200, b"application/json", body, (*of_all, *headers), etag_of(body))


def encode_cursor(place: Struct) -> str:
    """The `next` of a page: where the one after it begins, in letters that a query takes as they are."""
    return urlsafe_b64encode(_encode(place)).rstrip(b"=").decode()


def read_cursor(cursor: str, type_: type[P]) -> P:
    """What `encode_cursor` made it of. Raises ValueError when it can't be that."""
    return msgspec.json.decode(b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True), type=type_)


def position_header(position: Position) -> dict[str, str]:
    return {POSITION: str(position)}
