"""Everything that can go wrong, with the status and the words in which a client hears of it."""

from collections.abc import Mapping, Sequence

PROBLEM_TYPE = "urn:counting-house:problem:"
"""The reason or the slug of a failure follows: the `type` of its problem document (RFC 9457)."""


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
