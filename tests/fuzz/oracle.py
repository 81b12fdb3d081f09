"""What a service may answer to anything at all, and what may be in the log afterwards."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.fuzz.mutation import MARKER
from tests.fuzz.requests import Request
from tests.wire import Answer

ALLOWED = {200, 201, 302, 303, 307, 308, 400, 401, 403, 404, 405, 408, 411, 413, 414, 415, 417, 421, 422, 426, 431}
BEHIND = "urn:counting-house:problem:projection-behind"
"""The one 503 that a request may ask for: a position that is not there yet."""
ONCE = (
    b"host",
    b"content-type",
    b"idempotency-key",
    b"traceparent",
    b"origin",
    b"sec-fetch-site",
    b"authorization",
    b"last-event-id",
)
FORM_TYPES = (b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data")
UNEXPECTED = ("unexpected error", "Traceback", '"exception":', "never retrieved")


class Announced(NamedTuple):
    """An event that an answer told of."""

    position: int
    event_id: str | None
    account_id: str


class Announcements:
    """Every event that was told of, and how often without an Idempotency-Key."""

    def __init__(self) -> None:
        self._by_position: dict[int, Announced] = {}
        self._unkeyed: Counter[int] = Counter()
        self.unanswered: list[bytes] = []
        """Requests that may have been whole, and got no answer: each may have recorded what nobody was told."""
        self.violations: list[str] = []

    def __len__(self) -> int:
        return len(self._by_position)

    def add(self, announced: Announced, has_key: bool) -> None:
        known = self._by_position.setdefault(announced.position, announced)
        if known != announced:
            self.violations.append(f"position {announced.position} was announced as {known} and as {announced}")
        if not has_key:
            self._unkeyed[announced.position] += 1

    def compare(self, log: Sequence[dict[str, Any]]) -> list[str]:
        """What is wrong between the answers and the whole log, in which position 1 comes first."""
        wrong = list(self.violations)
        wrong += [f"position {position} was given to {n} requests" for position, n in self._unkeyed.items() if n > 1]
        for position, announced in sorted(self._by_position.items()):
            if position > len(log):
                wrong.append(f"{announced} was acknowledged, but the log ends at {len(log)}")
                continue
            event = log[position - 1]
            if event["subject"] != announced.account_id or announced.event_id not in (None, event["id"]):
                wrong.append(f"{announced} was acknowledged, but the log has {event}")
        for position, event in enumerate(log, 1):
            if position not in self._by_position and not any(
                event["subject"].encode() in raw for raw in self.unanswered
            ):
                wrong.append(f"recorded, but nobody was told of it: {event}")
        return wrong


def judge(request: Request, answer: Answer) -> str | None:
    """What is wrong with the answer, in words that are the same for the same fault; None when nothing is."""
    if answer.status not in ALLOWED:
        document = _document(answer)
        if request.service == "projection" and answer.status == 503 and document.get("type") == BEHIND:
            return None
        return f"status {answer.status} ({document.get('type')})"
    if answer.status >= 400 and request.method != b"HEAD" and not _is_problem(answer):
        return f"status {answer.status} without a problem document"
    reason = refusal(request)
    if reason and (answer.status < 400 or announcements(answer)):
        return f"status {answer.status}, though {reason}"
    return None


def refusal(request: Request) -> str | None:
    """Why a request must not be done, as far as that is plain from outside."""
    if request.raw is not None or request.version != b"HTTP/1.1":
        return None
    names = Counter(name.lower() for name, _ in request.headers)
    headers = {name.lower(): value for name, value in request.headers}
    if any(names[name] > 1 for name in ONCE):
        return "a header that may come once came twice"
    if b"host" not in names or b"evil" in headers[b"host"]:
        return "it is meant for another host"
    if request.target.startswith(b"http:"):
        return "its target names a host of its own"
    if request.method != b"POST":
        return None
    if headers.get(b"content-type", b"").startswith(FORM_TYPES) or b"content-type" not in names:
        return "any web page can make a browser send that"
    if not re.fullmatch(rb"https?://[^/]+", headers.get(b"origin", b"http://a"), re.IGNORECASE) or (
        b"evil" in headers.get(b"origin", b"") or b"cross-site" in headers.get(b"sec-fetch-site", b"").lower()
    ):
        return "it comes from somebody else's web page"
    return None


def _is_problem(answer: Answer) -> bool:
    document = _document(answer)
    media_type = answer.headers.get("content-type", "")
    return media_type.startswith("application/problem+json") and document.get("status") == answer.status


def _document(answer: Answer) -> dict[str, Any]:
    try:
        document = json.loads(answer.body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def announcements(answer: Answer) -> list[Announced]:
    """The events that an answer to a command tells of; none when it refuses."""
    if answer.status not in (200, 201, 400) or answer.body[:1] not in (b"{", b"["):
        return []
    answered = json.loads(answer.body)
    results = answered if isinstance(answered, list) else [answered]
    return [
        Announced(result["position"], result.get("event_id"), result.get("account_id") or result["id"])
        for result in results
        if isinstance(result, dict) and "position" in result and ("version" in result or "reason" in result)
    ]


def read_log_files(*paths: Path) -> list[str]:
    """The lines that no log of a service may have: of what nobody expected, or with words of a request in them."""
    found = []
    for path in paths:
        for line in path.read_text(errors="replace").splitlines():
            if MARKER in line or any(word in line for word in UNEXPECTED):
                found.append(f"{path.name}: {line[:500]}")
    return found
