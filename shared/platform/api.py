"""What the two HTTP faces have in common."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl, unquote

from fastapi import APIRouter, FastAPI, Path, Response
from pydantic import BaseModel, BeforeValidator, ValidationError

from shared.errors import InvalidRequest
from shared.events import ACCOUNT_ID_PATTERN, ACCOUNT_ID_RULE
from shared.platform.gate import Get, Request
from shared.platform.watermark import Peer

E = TypeVar("E", bound=Callable[..., Awaitable[Response]])
Q = TypeVar("Q", bound=BaseModel)

# The gate leaves the path as it was sent.
AccountIdPath = Annotated[str, BeforeValidator(unquote), Path(pattern=ACCOUNT_ID_PATTERN, description=ACCOUNT_ID_RULE)]


def route(app: FastAPI | APIRouter, path: str, method: str, **options: Any) -> Callable[[E], E]:
    """Register an endpoint at `path`, with and without a slash at its end."""

    def register(endpoint: E) -> E:
        app.add_api_route(path, endpoint, methods=[method], **options)
        app.add_api_route(f"{path}/", endpoint, methods=[method], include_in_schema=False, **options)
        return endpoint

    return register


def read_query(query: bytes, model: type[Q], refused: Mapping[str, str] | None = None) -> Q:
    """As the application would read it. `refused` has what must not be passed over, and why not.

    Raises `InvalidRequest`, also when it says twice what it may say once.
    """
    said = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    asked = dict(said)
    if refused and (wrong := [(name, why) for name, why in refused.items() if name in asked]):
        raise InvalidRequest(wrong)
    if len(asked) < len(said):
        known = [field.alias or name for name, field in model.model_fields.items()]
        if wrong := repeated([name for name, _ in said], known):
            raise InvalidRequest(wrong)
    try:
        return model.model_validate(asked)
    except ValidationError as error:
        raise InvalidRequest([(".".join(map(str, e["loc"])), e["msg"]) for e in error.errors()]) from None


def repeated(said: Sequence[str], known: Iterable[str]) -> list[tuple[str, str]]:
    """What is wrong where a parameter that is known comes twice: two readers might each believe another one."""
    return [(name, "was sent twice; send it once") for name in known if said.count(name) > 1]


def waiting(model: type[Q], wait: Callable[[Q, Peer], Awaitable[object]]) -> Get:
    """Waits for what a query asks for, before the application is asked to answer it."""

    async def handle(request: Request) -> None:
        await wait(read_query(request.query, model), request.peer)

    return Get(handle)
