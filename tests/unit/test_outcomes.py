"""What a client is told of each event, and what is read back of it for a retry."""

import msgspec
import pytest

from command_service.ledger.account import Account
from command_service.ledger.outcomes import Counterpart, NewAccount, Rejection, decode_outcomes, outcome_of
from shared.errors import CorruptStore
from shared.events import AccountCreated, Event, Position, Rejected, Version
from tests.examples import ALICE, BOB, EVENTS, INT64_MAX, MORE_EVENTS


@pytest.mark.parametrize("event", [*EVENTS, *MORE_EVENTS], ids=lambda event: event.type)
@pytest.mark.parametrize("counterpart", [None, Counterpart(BOB, INT64_MAX, Version(INT64_MAX))])
def test_what_is_stored_of_an_outcome_is_told_again_byte_for_byte(
    event: Event, counterpart: Counterpart | None
) -> None:
    account = Account(-INT64_MAX, overdraft_limit=INT64_MAX)
    outcome = outcome_of(event, "id", ALICE, Position(INT64_MAX), Version(7), account, counterpart)
    assert isinstance(outcome, Rejection) == isinstance(event, Rejected)
    assert isinstance(outcome, NewAccount) == isinstance(event, AccountCreated)
    stored = msgspec.json.encode([outcome])
    assert decode_outcomes(stored) == [outcome]
    assert msgspec.json.encode(decode_outcomes(stored)) == stored


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b'[{"status":200',
        b"[\xff]",
        b"{}",
        b"[{}]",
        b'[{"status":202,"position":1}]',
        b'[{"status":201,"id":"alice","name":"Alice","asset":"USD/2"}]',
        b"[" * 100_000,
    ],
    ids=lambda stored: stored[:40],
)
def test_a_stored_answer_that_cannot_be_read_is_damage(stored: bytes) -> None:
    with pytest.raises(CorruptStore, match=r"an answer .* good copy"):
        decode_outcomes(stored)
