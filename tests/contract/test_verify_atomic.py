"""`verify` decides an atomic request that was rejected again as a whole, and a forged one is found."""

from collections.abc import Callable, Sequence

import pytest

from command_service import ledger_writer
from command_service.event_log import EventLog, runs
from command_service.event_log.runs import Run
from command_service.ledger.commands import Close, Command, CreateAccount, Deposit, Transfer, Withdraw, rejected
from command_service.ledger_writer import WriteRequest
from command_service.verify import verify
from shared.chain import ChainAt
from shared.errors import CorruptStore
from shared.events import Event, Position, Reason
from tests.contract.conftest import OpenEventLog
from tests.contract.test_ledger import running
from tests.contract.test_verify import Rewritten, attributes, changed, everything, rewrite, write_history
from tests.examples import ALICE, BOB

LINKED: Reason = "linked-command-rejected"
NOTED = {"invoice": "2026-117"}
HISTORY = [
    WriteRequest([CreateAccount("Alice", ALICE), CreateAccount("Bob", BOB), Deposit(ALICE, 100)]),
    WriteRequest([Transfer(ALICE, BOB, 60), Transfer(ALICE, BOB, 60), Deposit(ALICE, 1)], "fees/1", b"", atomic=True),
    WriteRequest([Withdraw(BOB, 1), Deposit(ALICE, 5, metadata=NOTED)], atomic=True),
    WriteRequest([Deposit(ALICE, 5, if_version=6), Withdraw(BOB, 1)], atomic=True),
    WriteRequest([Deposit(ALICE, 5, if_version=7), Transfer(ALICE, BOB, 10)], "good", b"", atomic=True),
    WriteRequest([Withdraw(BOB, 11), Deposit(BOB, 1)]),
    WriteRequest([Withdraw(BOB, 12), Withdraw(BOB, 13)]),
    WriteRequest([Deposit(ALICE, 1)]),
    WriteRequest([Withdraw(ALICE, 10**6)], atomic=True),
    WriteRequest([Withdraw(ALICE, 10**6)], "alone", b"", atomic=True),
    WriteRequest([CreateAccount("Carol"), Close(BOB, if_version=1), Deposit(ALICE, 1)], atomic=True),
]
REASONS = [
    *(None, None, None),
    *(LINKED, "insufficient-funds", LINKED),
    *("insufficient-funds", LINKED),
    *(LINKED, "insufficient-funds"),
    *(None, None),
    *("insufficient-funds", None),
    *("insufficient-funds", "insufficient-funds"),
    None,
    "insufficient-funds",
    "insufficient-funds",
    *(LINKED, "version-mismatch", LINKED),
]


@pytest.fixture(params=[1, 2, 128])
def run_events_max(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "RUN_EVENTS_MAX", request.param)


@pytest.mark.usefixtures("run_events_max")
async def test_atomic_requests_are_passed_wherever_their_runs_are_cut(open_event_log: OpenEventLog) -> None:
    async with open_event_log() as log:
        await write_history(log, HISTORY)
        assert [attributes(event)["data"].get("reason") for event in await everything(log)] == REASONS
    async with open_event_log() as log:
        assert (await verify(log)).position == len(REASONS)
        await rewrite(log, await everything(log))
        assert (await verify(log)).position == len(REASONS)


def all_linked(commands: Sequence[Command], *_: object) -> list[Event]:
    """What no writer writes."""
    return [rejected(command, LINKED) for command in commands]


@pytest.mark.parametrize("is_right", [True, False])
async def test_an_atomic_request_that_is_added_meanwhile_is_read_to_its_end(
    event_log: EventLog, is_right: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_right:
        monkeypatch.setattr(ledger_writer, "rejected_together", all_linked)
    monkeypatch.setattr(runs, "RUN_EVENTS_MAX", 2)
    read_end, read_runs = event_log.end, event_log.runs
    async with running(event_log) as ledger:
        await ledger.writer.write(WriteRequest([CreateAccount("Alice", ALICE)]))

        async def end_before_more() -> tuple[ChainAt, str]:
            told = await read_end()
            if told[0].position == 1:
                await ledger.writer.write(WriteRequest([*[Deposit(ALICE, 5)] * 4, Withdraw(ALICE, 21)], atomic=True))
            return told

        async def two_runs(after: Position) -> Sequence[Run]:
            return (await read_runs(after))[:2]

        monkeypatch.setattr(event_log, "end", end_before_more)
        monkeypatch.setattr(event_log, "runs", two_runs)
        if is_right:
            assert (await verify(event_log)).position == 6
        else:
            with pytest.raises(CorruptStore, match=r"^position 6: not what was to be decided"):
                await verify(event_log)


Forgery = Callable[[Rewritten], None]


def data_of(position: int, **data: object) -> Forgery:
    def forge(events: Rewritten) -> None:
        events[position - 1] = changed(events[position - 1], data)

    return forge


def envelope_of(position: int, **others: object) -> Forgery:
    def forge(events: Rewritten) -> None:
        events[position - 1] = changed(events[position - 1], None, **others)

    return forge


def both(one: Forgery, other: Forgery) -> Forgery:
    def forge(events: Rewritten) -> None:
        one(events)
        other(events)

    return forge


@pytest.mark.parametrize(
    ("forge", "position"),
    [
        pytest.param(both(data_of(17, reason=LINKED), envelope_of(17, type="deposit-rejected")), 17, id="alone"),
        pytest.param(data_of(18, reason=LINKED), 18, id="the only one of its request"),
        pytest.param(data_of(16, reason="account-frozen"), 16, id="another reason in an ordinary request"),
        pytest.param(data_of(15, reason=LINKED), 15, id="first of an ordinary request"),
        pytest.param(data_of(5, reason="account-frozen"), 5, id="another reason for all"),
        pytest.param(data_of(5, reason=LINKED), 5, id="no reason for all"),
        pytest.param(data_of(6, reason="amount-not-positive"), 6, id="two reasons"),
        pytest.param(data_of(9, reason="account-not-found"), 9, id="two reasons, the first too many"),
        pytest.param(data_of(5, amount=1), 4, id="all could have been accepted"),
        pytest.param(data_of(4, amount=1000), 4, id="one before it was to be rejected"),
        pytest.param(data_of(4, if_version=99), 4, id="one before it was of another version"),
        pytest.param(envelope_of(6, type="amount-deposited"), 6, id="one was accepted"),
        pytest.param(envelope_of(5, commandid="other/1"), 4, id="of two requests"),
        pytest.param(envelope_of(6, commandid="fees/1/3"), 6, id="one is not there"),
        pytest.param(envelope_of(6, commandid="fees/1"), 6, id="not numbered"),
        pytest.param(envelope_of(4, commandid="fees/1/1"), 4, id="the first is not there"),
        pytest.param(envelope_of(8, commandid="a\0b"), 8, id="an id with a character that no text has"),
        pytest.param(data_of(21, if_version=8), 21, id="it had the right version"),
        pytest.param(data_of(8, metadata={}), 8, id="metadata without a pair"),
        pytest.param(envelope_of(8, source="/ledgers/another"), 8, id="of another ledger"),
        pytest.param(both(data_of(4, amount=1000), envelope_of(6, type="merged")), 4, id="another thing after it"),
    ],
)
async def test_an_atomic_request_that_cannot_have_been_is_found_at_its_first_such_event(
    open_event_log: OpenEventLog, forge: Forgery, position: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "RUN_EVENTS_MAX", 2)
    async with open_event_log() as log:
        await write_history(log, HISTORY)
        events = await everything(log)
        forge(events)
        await rewrite(log, events)
        with pytest.raises(CorruptStore, match=f"^position {position}: "):
            await verify(log)
