"""What the two HTTP faces have in common."""

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import Annotated, Any, TypeVar, get_args
from urllib.parse import parse_qsl, unquote

from fastapi import APIRouter, FastAPI, Path, Response
from pydantic import BaseModel, BeforeValidator, ValidationError

from shared.errors import InvalidRequest
from shared.events import ACCOUNT_ID_PATTERN, ACCOUNT_ID_RULE
from shared.platform.gate import Get, Request
from shared.platform.watermark import Peer

NAME_CHARS_MAX = 200
FAULTS_MAX = 10
"""What a client is told of its parameters: it may send thousands."""
NOTHING: Mapping[str, str] = {}

_is_integer = re.compile(r"0|-?[1-9][0-9]*").fullmatch
_is_number = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?").fullmatch
NO_NUMBER = "must be a number, in digits"
_is_weight = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?").fullmatch
NO_SPACE = str.maketrans("", "", " \t")

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


def read_query(query: bytes, model: type[Q], refused: Mapping[str, str] = NOTHING) -> Q:
    """As the application would read it. Raises `InvalidRequest`."""
    try:
        return model.model_validate(dict(parameters(query, _types(model), refused)))
    except ValidationError as error:
        raise InvalidRequest([(".".join(map(str, e["loc"])), e["msg"]) for e in error.errors()]) from None


@cache
def _types(model: type[BaseModel]) -> Mapping[str, object]:
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def parameters(
    query: bytes, known: Mapping[str, object], refused: Mapping[str, str] = NOTHING
) -> Sequence[tuple[str, str]]:
    """What a query says. Raises `InvalidRequest` as `check_parameters` does."""
    said = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    check_parameters(said, known, refused)
    return said


def check_parameters(
    said: Sequence[tuple[str, str]], known: Mapping[str, object], refused: Mapping[str, str] = NOTHING
) -> None:
    """Raises `InvalidRequest` at what must not be passed over. `known` has the type of each parameter, `refused` what
    is wrong with some others.

    Of one that comes twice two readers might each believe another; who has misspelt one would take the answer for
    another than it is; and of a number pydantic reads more than people write: `1_0` is 10 for it.
    """
    if wrong := list(islice(_faults(said, known, refused), FAULTS_MAX)):
        raise InvalidRequest(wrong)


def _faults(
    said: Sequence[tuple[str, str]], known: Mapping[str, object], refused: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    for name, count in Counter(name for name, _ in said).items():
        if name not in known:
            here = ", ".join(sorted(known)) or "nothing"
            yield name[:NAME_CHARS_MAX], refused.get(name, f"is not known here; known: {here}")
        elif count > 1:
            yield name, "was sent twice; send it once"
    for name, value in said:
        types = {known.get(name), *get_args(known.get(name))}
        if (int in types and not _is_integer(value)) or (float in types and not _is_number(value)):
            yield name, NO_NUMBER


def _in_digits(value: object) -> object:
    if isinstance(value, str) and not _is_integer(value):
        raise ValueError(NO_NUMBER)
    return value


IN_DIGITS = BeforeValidator(_in_digits)
"""Of an integer in a path or a header: as `check_parameters` wants those of a query."""


def weights(accepted: str) -> Mapping[str, float]:
    """How much a client wants each media type or coding of an `Accept` header: 0 is not at all (RFC 9110, section
    12.4.2)."""
    return dict([_weight(one) for one in accepted.split(",")])


def _weight(said: str) -> tuple[str, float]:
    wanted, *parameters = said.lower().translate(NO_SPACE).split(";")
    weights = [one.removeprefix("q=") for one in parameters if one.startswith("q=")] or ["1"]
    return wanted, float(weights[0]) if _is_weight(weights[0]) else 0.0


def waiting(model: type[Q], wait: Callable[[Q, Peer], Awaitable[object]]) -> Get:
    """Waits for what a query asks for, before the application is asked to answer it."""

    async def handle(request: Request) -> None:
        await wait(read_query(request.query, model), request.peer)

    return Get(handle)
