"""What a view is, and how its queries answer. Each is a room of its own under `views/`."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, NamedTuple, TypeVar, cast

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel

from projection_service.view_store import Change, ReadRows, ViewStore
from shared.errors import ProjectionBehind
from shared.events import INT64_MAX, Position, RecordedEvent
from shared.platform.gate import Endpoint
from shared.platform.watermark import Peer

S = TypeVar("S")

WAIT_SECONDS_MAX = 60
POSITION = "Ledger-Position"
"""The header of an answer that tells at which position it holds."""

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


class Asked(BaseModel):
    """What every query takes."""

    min_position: MinPosition = 0
    wait: WaitSeconds = 5


Reach = Callable[[Asked, Peer], Awaitable[None]]
"""Waits until the views are where a query wants them. Raises `ProjectionBehind`."""


def check_position(position: int, min_position: int) -> None:
    """Of an answer, once it is there: the views may have gone back after they were waited for.

    Raises `ProjectionBehind`.
    """
    if position < min_position:
        raise ProjectionBehind(f"the view is at position {position}, not yet at {min_position}.", position)


def no_endpoints(store: ViewStore, reach: Reach) -> Mapping[str, Endpoint]:
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
    add_queries: Callable[[APIRouter, ViewStore], None]
    """Registers its queries. They take `min_position` and `wait` without doing anything for it."""
    endpoints: Callable[[ViewStore, Reach], Mapping[str, Endpoint]] = no_endpoints
    """Those of its queries that are asked most, for the gate: there they wait, and may be answered, at less cost."""
    needs: Sequence[str] = ()
    """The views without which it is not kept: it uses their tables, their folds, and what they share of a run."""


def answer(body: bytes, position: Position) -> Response:
    """JSON, from what the view held at `position`."""
    return Response(body, headers=position_header(position), media_type="application/json")


def position_header(position: Position) -> dict[str, str]:
    return {POSITION: str(position)}
