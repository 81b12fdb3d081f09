"""The oracle finds what it is there for."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.mutation import MARKER
from tests.fuzz.oracle import Announced, Announcements, announcements, judge, read_log_files
from tests.fuzz.requests import JSON, Request
from tests.wire import Answer

HOST = (b"Host", b"127.0.0.1")
PROBLEM = {"content-type": "application/problem+json"}
RECEIPT = {"type": "amount-deposited", "event_id": "e1", "account_id": "a", "version": 1, "position": 1}
REJECTED = {"status": 400, "reason": "account-not-found", "event_id": "e1", "account_id": "a", "position": 1}


def event(number: int, account: str = "a") -> dict[str, Any]:
    return {"id": f"e{number}", "subject": account}


def problem(status: int) -> Answer:
    return Answer(status, PROBLEM, json.dumps({"status": status}).encode())


@pytest.mark.parametrize(
    ("told", "log", "unanswered", "found"),
    [
        ([1, 2], [event(1), event(2)], b"", []),
        ([1, 2], [event(1)], b"", ["was acknowledged, but the log ends at 1"]),
        ([1], [event(2)], b"", ["was acknowledged, but the log has"]),
        ([1], [event(1, "b")], b"", ["was acknowledged, but the log has"]),
        ([1, 1], [event(1)], b"", ["was given to 2 requests"]),
        ([1], [event(1), event(2)], b"", ["nobody was told of it"]),
        ([1], [event(1), event(2)], b"POST /account/deposit/a", []),
    ],
)
def test_what_was_told_is_in_the_log_once_and_nothing_else_is(
    told: Sequence[int], log: list[dict[str, Any]], unanswered: bytes, found: list[str]
) -> None:
    announced = Announcements()
    announced.unanswered.append(unanswered)
    for position in told:
        announced.add(Announced(position, f"e{position}", "a"), has_key=False)
    wrong = announced.compare(log)
    assert len(wrong) == len(found)
    assert all(part in line for part, line in zip(found, wrong, strict=True))


def test_an_event_that_two_requests_with_one_key_were_told_of_is_in_order() -> None:
    announced = Announcements()
    for _ in range(2):
        announced.add(Announced(1, "e1", "a"), has_key=True)
    assert announced.compare([event(1)]) == []


def test_receipts_rejections_and_batches_announce_and_refusals_do_not() -> None:
    told = [Announced(1, "e1", "a")]
    assert announcements(Answer(200, {}, json.dumps(RECEIPT).encode())) == told
    assert announcements(Answer(400, PROBLEM, json.dumps(REJECTED).encode())) == told
    assert announcements(Answer(200, {}, json.dumps([RECEIPT, REJECTED]).encode())) == told * 2
    assert announcements(problem(422)) == announcements(problem(400)) == []


@pytest.mark.parametrize(
    ("headers", "answer", "found"),
    [
        ((HOST, JSON), problem(422), None),
        ((HOST, JSON), problem(500), "status 500"),
        ((HOST, JSON), problem(503), "status 503"),
        ((HOST, JSON), Answer(400, {}, b"Invalid HTTP request received."), "without a problem document"),
        ((HOST, JSON), Answer(422, PROBLEM, b'{"status": 400}'), "without a problem document"),
        ((HOST, JSON, JSON), Answer(200, {}, b"{}"), "came twice"),
        ((HOST,), Answer(200, {}, b"{}"), "any web page"),
        ((JSON,), Answer(200, {}, b"{}"), "another host"),
        ((HOST, JSON, (b"Origin", b"https://evil.example")), Answer(200, {}, b"{}"), "somebody else's"),
        ((HOST, JSON, (b"Origin", b"127.0.0.1")), Answer(200, {}, b"{}"), "somebody else's"),
        ((HOST, JSON, (b"Origin", b"http://127.0.0.1")), Answer(200, {}, b"{}"), None),
        ((HOST, JSON, (b"Sec-Fetch-Site", b"Cross-Site")), Answer(200, {}, b"{}"), "somebody else's"),
    ],
)
def test_an_answer_that_must_not_be_is_found(
    headers: tuple[tuple[bytes, bytes], ...], answer: Answer, found: str | None
) -> None:
    wrong = judge(Request("command", b"POST", b"/account/deposit/a", headers, b"{}"), answer)
    assert wrong is None if found is None else wrong is not None and found in wrong


def test_a_log_with_words_of_a_request_or_an_error_that_nobody_expected_is_found(tmp_path: Path) -> None:
    log = tmp_path / "command.log"
    log.write_text(f'{{"event": "listening"}}\n{{"event": "x {MARKER}"}}\n{{"event": "unexpected error"}}\n')
    assert len(read_log_files(log)) == 2
