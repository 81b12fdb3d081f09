"""What the two HTTP faces have in common."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, FastAPI, Path, Response

from shared.events import ACCOUNT_ID_PATTERN, ACCOUNT_ID_RULE

E = TypeVar("E", bound=Callable[..., Awaitable[Response]])

AccountIdPath = Annotated[str, Path(pattern=ACCOUNT_ID_PATTERN, description=ACCOUNT_ID_RULE)]


def route(app: FastAPI | APIRouter, path: str, method: str, **options: Any) -> Callable[[E], E]:
    """Register an endpoint at `path`, with and without a slash at its end."""

    def register(endpoint: E) -> E:
        app.add_api_route(path, endpoint, methods=[method], **options)
        app.add_api_route(f"{path}/", endpoint, methods=[method], include_in_schema=False, **options)
        return endpoint

    return register
