"""What a view is, and how its queries answer. Each is a room of its own under `views/`."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from fastapi import APIRouter, Response

from projection_service.view_store import Change, ReadRows, ViewStore
from shared.events import Position, RecordedEvent
from shared.gate import Endpoint
from shared.watermark import Watermark


def no_endpoints(store: ViewStore, watermark: Watermark) -> Mapping[str, Endpoint]:
    """Most queries are not asked often enough to need an endpoint before FastAPI's."""
    return {}


class View(NamedTuple):
    name: str
    """Its folder's, and its name in PROJECTION_VIEWS."""
    changes: Callable[[ReadRows, Sequence[RecordedEvent]], Awaitable[list[Change]]]
    """What a run of events changes in its tables. Raises `ImpossibleEvents` at what no ledger could have recorded."""
    add_queries: Callable[[APIRouter, ViewStore], None]
    """Registers its queries. They take `min_position` and `wait` without doing anything for it."""
    endpoints: Callable[[ViewStore, Watermark], Mapping[str, Endpoint]] = no_endpoints
    """Those of its queries that most of the time goes to, for the gate."""


def answer(body: bytes, position: Position) -> Response:
    """JSON, from what the view held at `position`."""
    return Response(body, headers=position_header(position), media_type="application/json")


def position_header(position: Position) -> dict[str, str]:
    return {"Ledger-Position": str(position)}
