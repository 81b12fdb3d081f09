"""Everything that can go wrong, and how a client is told: RFC 9457 problem documents, made in one place."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

PROBLEM_TYPE = "urn:counting-house:problem:"

PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "reason": {"type": "string", "description": "Why the ledger rejected the command."},
        "event_id": {"type": "string", "description": "The event that records the rejection."},
        "position": {"type": "integer"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}

PROBLEM_DESCRIPTIONS = {
    400: "Rejected by the ledger, and recorded as such.",
    403: "A web page of another origin may not do this.",
    404: "Unknown.",
    413: "The body is over its limit. Nothing was recorded.",
    415: "The body is not said to be JSON, or is encoded. Nothing was recorded.",
    421: "The Host is none of this service's names.",
    422: "Malformed. Nothing was recorded.",
    500: "The outcome is unknown: retry with the same Idempotency-Key.",
    503: "Not now. Nothing was recorded; try again later.",
}

log = structlog.get_logger()


class LedgerError(Exception):
    """Base of every failure that a client is told about. `str()` says what happened and what to do."""

    status = 500
    slug = "internal-error"
    title = "Internal error"
    retry_after_seconds: int | None = None

    def __init__(
        self, detail: str, headers: Mapping[str, str] | None = None, errors: Sequence[tuple[str, str]] = ()
    ) -> None:
        """`errors` are fields, or headers as they are documented, each with what is wrong with it."""
        super().__init__(detail)
        self.errors = errors
        self.headers = dict(headers or {})
        if self.retry_after_seconds is not None:
            self.headers["Retry-After"] = str(self.retry_after_seconds)

    def members(self) -> Mapping[str, object]:
        """Extension members of the problem document."""
        errors = [{"field": field, "detail": detail} for field, detail in self.errors]
        return {"errors": errors} if errors else {}


class InvalidRequest(LedgerError):
    """Malformed input. Nothing was recorded."""

    status, slug, title = 422, "invalid-request", "Invalid request"

    def __init__(self, errors: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{field}: {detail}" for field, detail in errors), errors=errors)


class BodyTooLarge(LedgerError):
    status, slug, title = 413, "body-too-large", "Request body too large"


class Forbidden(LedgerError):
    status, slug, title = 403, "forbidden", "Forbidden"


class MisdirectedRequest(LedgerError):
    status, slug, title = 421, "misdirected-request", "Misdirected request"


class MethodNotAllowed(LedgerError):
    status, slug, title = 405, "method-not-allowed", "Method Not Allowed"


class UnsupportedMediaType(LedgerError):
    status, slug, title = 415, "unsupported-media-type", "Unsupported media type"


class HeadTooLarge(LedgerError):
    status, slug, title = 431, "head-too-large", "Request header fields too large"


class BadRequest(LedgerError):
    """Not a request that can be read. Nothing was recorded."""

    status, slug, title = 400, "bad-request", "Bad request"


class RequestTimeout(LedgerError):
    """The client took too long to send it. Nothing was recorded."""

    status, slug, title = 408, "request-timeout", "Request timeout"


class NotFound(LedgerError):
    status, slug, title = 404, "not-found", "Not found"


class IdempotencyKeyReused(LedgerError):
    """RFC draft draft-ietf-httpapi-idempotency-key-header, section 2.7: the same key with another payload."""

    status, slug, title = 422, "idempotency-key-reused", "Idempotency-Key is already used"


class Overloaded(LedgerError):
    """Refused before anything was done."""

    status, slug, title = 503, "overloaded", "Overloaded"
    retry_after_seconds = 1


class StoreUnavailable(LedgerError):
    """The store could not do it, and nothing was recorded."""

    status, slug, title = 503, "store-unavailable", "The store is unavailable"
    retry_after_seconds = 1


class OutcomeUnknown(LedgerError):
    """The commit itself failed: it may or may not be on disk. Only a retry with the same key is safe."""

    status, slug, title = 500, "outcome-unknown", "The outcome is unknown"


class CorruptStore(LedgerError):
    """What is stored cannot be right. Nobody goes on from there."""

    slug, title = "corrupt-store", "The store is corrupt"


class FilesGone(CorruptStore):
    """The files of an open store were removed or replaced, and nobody may find again what is committed to them."""

    slug, title = "files-gone", "The store's files are gone"


class ProjectionBehind(LedgerError):
    """The view has not reached the position that the client asked for."""

    status, slug, title = 503, "projection-behind", "The projection is behind"
    retry_after_seconds = 1

    def __init__(self, detail: str, position: int) -> None:
        super().__init__(detail, {"Ledger-Position": str(position)})
        self.position = position

    def members(self) -> Mapping[str, object]:
        return {"position": self.position}


class NotReady(LedgerError):
    status, slug, title = 503, "not-ready", "Not ready"
    retry_after_seconds = 1


def problem(
    status: int, slug: str, title: str, detail: str, members: Mapping[str, object] | None = None
) -> dict[str, object]:
    return {
        "type": PROBLEM_TYPE + slug,
        "title": title,
        "status": status,
        "detail": detail,
        **(members or {}),
    }


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What an OpenAPI operation documents for these statuses."""
    return {
        status: {
            "description": PROBLEM_DESCRIPTIONS[status],
            "content": {"application/problem+json": {"schema": PROBLEM_SCHEMA}},
        }
        for status in statuses
    }


def _response(document: Mapping[str, object], status: int, headers: Mapping[str, str] | None) -> Response:
    return Response(msgspec.json.encode(document), status, headers, "application/problem+json")


def problem_response(error: LedgerError) -> Response:
    document = problem(error.status, error.slug, error.title, str(error), error.members())
    return _response(document, error.status, error.headers)


def unexpected_response(method: str, path: str, error: Exception) -> Response:
    log.error("unexpected error", method=method, path=path, exc_info=error)
    return problem_response(LedgerError("An unexpected error; the service's log has it."))


def install_problem_handlers(app: FastAPI) -> None:
    """Answer every error of `app` with a problem document."""

    async def ledger_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, LedgerError)
        return problem_response(error)

    async def invalid_parameters(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        # The location starts with "path", "query" or "header"; the client knows the field by its name.
        invalid = InvalidRequest([(".".join(map(str, e["loc"][1:])), e["msg"]) for e in error.errors()])
        return await ledger_error(request, invalid)

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        slug = error.detail.lower().replace(" ", "-")
        detail = f"{request.method} {request.url.path}: {error.detail}"
        document = problem(error.status_code, slug, error.detail, detail)
        return _response(document, error.status_code, error.headers)

    async def disconnected(request: Request, error: Exception) -> Response:
        return Response(status_code=400)  # nobody is there to read it

    async def unexpected(request: Request, error: Exception) -> Response:
        return unexpected_response(request.method, request.url.path, error)

    app.add_exception_handler(LedgerError, ledger_error)
    app.add_exception_handler(RequestValidationError, invalid_parameters)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(ClientDisconnect, disconnected)
    app.add_exception_handler(Exception, unexpected)
