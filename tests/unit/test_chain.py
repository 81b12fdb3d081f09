"""The digest of a history: the same for the same events in the same order, and for nothing else."""

import hashlib

import pytest

from shared.chain import CHAIN_START, extend

EVENTS = [b"one", b"two", b"three"]


def test_the_chain_is_the_hash_of_the_chain_before_and_the_event() -> None:
    first = hashlib.sha256(bytes(32) + b"one").digest()
    assert extend(CHAIN_START, [b"one"]) == first
    assert extend(CHAIN_START, [b"one", b"two"]) == hashlib.sha256(first + b"two").digest()


def test_a_chain_is_gone_on_with_from_any_position() -> None:
    assert extend(extend(CHAIN_START, EVENTS[:1]), EVENTS[1:]) == extend(CHAIN_START, EVENTS)
    assert extend(CHAIN_START, []) == CHAIN_START


@pytest.mark.parametrize(
    "other", [EVENTS[:2], EVENTS[::-1], [*EVENTS, b""], [b"one", b"two", b"Three"], [b"onetwothree"]]
)
def test_another_history_has_another_chain(other: list[bytes]) -> None:
    assert extend(CHAIN_START, other) != extend(CHAIN_START, EVENTS)
