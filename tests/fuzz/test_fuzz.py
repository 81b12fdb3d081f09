"""A part of `make fuzz`, and a fuzz of what reads events. LEDGER_SEED repeats it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from scripts.rabbitmq import RabbitMQNode
from shared.events import UnreadableEvent, decode_events
from tests.fuzz.feed import fuzz_feed
from tests.fuzz.messages import fuzz_messages
from tests.fuzz.mutation import encode, mutate, mutate_bytes
from tests.fuzz.requests import make
from tests.fuzz.run import fuzz

REQUESTS = 20_000
MESSAGES = 2_000
LIES = 40
BATCHES = 20_000
EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "01a209f7-0fef-7411-817e-f5258400ba7d",
    "source": "/ledgers/a",
    "type": "amount-deposited",
    "subject": "alice",
    "time": "2026-11-23T19:51:56.160778Z",
    "sequence": f"{1:020d}",
    "accountversion": 2,
    "data": {"amount": 5, "description": "Salary"},
}
SEED = int(os.environ.get("LEDGER_SEED") or 1)


async def test_no_request_is_an_error_of_the_services_or_recorded_without_being_told(tmp_path: Path) -> None:
    report = await fuzz(tmp_path, SEED, lambda number: number >= REQUESTS)
    assert report.is_good, report
    assert report.requests == REQUESTS
    assert report.announced > REQUESTS / 10, report


def test_a_seed_repeats_its_requests() -> None:
    assert [make(SEED, number) for number in range(500)] == [make(SEED, number) for number in range(500)]


@pytest.fixture
def amqp_url(tmp_path: Path) -> Iterator[str]:
    node = RabbitMQNode(tmp_path / "rabbitmq")
    try:
        node.start()
        yield node.amqp_url
    finally:
        node.close()


async def test_no_message_stops_a_projection_or_gets_into_its_views(tmp_path: Path, amqp_url: str) -> None:
    assert await fuzz_messages(tmp_path, amqp_url, SEED, lambda number: number >= MESSAGES) == []


async def test_no_page_of_the_feed_ends_a_projection_or_gets_into_its_views(tmp_path: Path) -> None:
    assert await fuzz_feed(tmp_path, SEED, lambda number: number >= LIES) == []


def test_a_batch_is_read_or_is_unreadable() -> None:
    random = Random(SEED)
    for _ in range(BATCHES):
        batch = [EVENT] * random.randint(1, 3)
        body = random.choice(
            [json.dumps(batch).encode(), msgspec.json.encode(batch), encode(mutate(batch, random), random)]
        )
        body = mutate_bytes(body, random) if random.random() < 0.5 else body
        try:
            decode_events(body)
        except UnreadableEvent:
            pass
        except Exception as error:
            raise AssertionError(f"LEDGER_SEED={SEED}: {body[:500]!r}") from error
