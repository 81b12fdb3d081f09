"""The checker finds each kind of broken promise: a history, a log and views that are right, broken on purpose."""

import copy
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from command_service.ledger.account import Account, decide
from command_service.ledger.commands import Command, CreateAccount, Deposit, Transfer, Withdraw, rejected
from shared.events import AccountId, Event, Reason, Version
from tests.examples import ALICE, BOB, evolved
from tests.faults.checker import (
    KINDS,
    LINKED,
    CloudEvent,
    Moment,
    check,
    contradictions,
    still_to_expire,
    whole_pools,
)
from tests.faults.history import Attempt, Body, History, Kind, Operation, Outcome, Pool, Read, View


@dataclass
class Case:
    history: History
    log: list[CloudEvent]
    views: list[View]

    def operation(self, name: str) -> Operation:
        return next(operation for operation in self.history.operations if operation.id == name)

    def event(self, name: str) -> CloudEvent:
        return next(event for event in self.log if name in event["data"].values())


def command_for(operation: Operation) -> Command:
    account = AccountId(operation.account)
    match operation.kind:
        case "create-account":
            return CreateAccount(operation.id, account)
        case "deposit":
            return Deposit(account, operation.amount or 0, operation.id)
        case _:
            return Withdraw(account, operation.amount or 0, operation.id)


SESSIONS = 3
ONE, OTHER = "one-projection", "other-projection"


def alice(balance: int, version: int, time: int) -> Body:
    return {**account_body("alice", "create", balance, version), "last_updated": f"time-{time}"}


def account_body(account: str, name: str, balance: int, version: int) -> Body:
    limit = {"held": 0, "available": balance, "overdraft_limit": 0, "status": "open"}
    return {"id": account, "name": name, "asset": "USD/2", "balance": balance, **limit, "version": version}


def reserves(amount: int, time: int) -> list[Body]:
    return [{"asset": "USD/2", "amount": amount, "last_updated": f"time-{time}"}]


def sound() -> Case:
    """What happens to one account, as it should be: one thing a second, each by the next session, and done in half."""
    history, log = History(), list[CloudEvent]()
    account: Account | None = None
    sessions = itertools.cycle(range(SESSIONS))

    def operate(name: str, kind: Kind, amount: int | None, outcome: Outcome, recorded: bool) -> None:
        nonlocal account
        sent = float(len(history.operations))
        answered = None if outcome == "unknown" else sent + 0.5
        operation = Operation(name, kind, "alice", amount, next(sessions), None, [Attempt(sent, answered, outcome)])
        history.operations.append(operation)
        if not recorded:
            return
        time = f"time-{len(log) + 1}"
        event = decide(account, Version(len(log)), command_for(operation), time)
        assert event is not None
        account = evolved(account, event)
        position = len(log) + 1
        log.append(
            {
                "id": f"event-{position}",
                "commandid": f"command-{position}",
                "type": event.type,
                "subject": "alice",
                "sequence": f"{position:020d}",
                "accountversion": position,
                "time": time,
                "data": msgspec.to_builtins(event),
            }
        )
        if outcome == "acknowledged" and "reason" in log[-1]["data"]:
            reason = log[-1]["data"]["reason"]
            operation.answers.append({"position": position, "event_id": f"event-{position}", "reason": reason})
        elif outcome == "acknowledged" and account is not None:
            operation.answers.append({"position": position, "version": position, "balance": account.balance})

    operate("early", "withdraw", 1, "acknowledged", recorded=True)
    operate("create", "create-account", None, "acknowledged", recorded=True)
    operate("salary", "deposit", 100, "acknowledged", recorded=True)
    operate("rent", "withdraw", 70, "acknowledged", recorded=True)
    operate("yacht", "withdraw", 999, "acknowledged", recorded=True)
    operate("busy", "deposit", 1, "refused", recorded=False)
    operate("lost", "deposit", 1, "unknown", recorded=False)
    operate("found", "deposit", 5, "unknown", recorded=True)
    history.reads = [
        Read(0, ONE, "alice", 1, 0.6, 0.8, 1, None),
        Read(1, ONE, "alice", 2, 3.2, 3.4, 3, alice(100, 3, 3)),
        Read(1, OTHER, None, None, 4.6, 4.8, 3, reserves(100, 3)),
        Read(1, OTHER, "alice", 4, 4.9, 5.0, 5, alice(30, 5, 4)),
        Read(2, ONE, None, None, 7.6, 7.8, 6, reserves(35, 6)),
        Read(1, OTHER, "alice", 5, 8.6, 8.8, 6, alice(35, 6, 6)),
        Read(0, ONE, "alice", 1, 8.7, 8.9, 6, alice(35, 6, 6)),
    ]
    views = [View(6, {"alice": alice(35, 6, 6)}, reserves(35, 6)) for _ in range(2)]
    return Case(history, log, views)


def test_a_bank_that_kept_its_promises_has_no_violation() -> None:
    case = sound()
    assert check(case.history, case.log, case.views) == []


def forget(case: Case) -> None:
    """An acknowledged deposit is gone, and all that follows has moved up."""
    gone = case.event("salary")
    case.log.remove(gone)
    for position, event in enumerate(case.log, 1):
        event.update(sequence=f"{position:020d}", accountversion=position)


def append_again(name: str) -> Callable[[Case], None]:
    def append(case: Case) -> None:
        position = len(case.log) + 1
        again = {**case.event(name), "id": "again", "sequence": f"{position:020d}", "accountversion": position}
        case.log.append(copy.deepcopy(again))

    return append


def change_event(name: str, **attributes: object) -> Callable[[Case], None]:
    return lambda case: case.event(name).update(attributes)


def change_data(name: str, **data: object) -> Callable[[Case], None]:
    return lambda case: case.event(name)["data"].update(data)


def change_answer(name: str, **members: object) -> Callable[[Case], None]:
    return lambda case: case.operation(name).answers[0].update(members)


def remove_operation(case: Case) -> None:
    case.history.operations.remove(case.operation("salary"))


def set_read(number: int, **members: object) -> Callable[[Case], None]:
    def change(case: Case) -> None:
        for name, value in members.items():
            setattr(case.history.reads[number], name, value)

    return change


def refuse(case: Case) -> None:
    case.operation("found").attempts[0].outcome = "refused"


def attempt(name: str, *attempts: Attempt) -> Callable[[Case], None]:
    return lambda case: setattr(case.operation(name), "attempts", list(attempts))


def at(sent: float, answered: float | None = None, outcome: Outcome = "acknowledged") -> Attempt:
    return Attempt(sent, answered, "unknown" if answered is None else outcome)


def batch(*names: str, sent: float, answered: float) -> Callable[[Case], None]:
    """All in one request."""

    def change(case: Case) -> None:
        shared = at(sent, answered)
        for name in names:
            case.operation(name).attempts = [shared]

    return change


def all_of(*changes: Callable[[Case], None]) -> Callable[[Case], None]:
    def change(case: Case) -> None:
        for one in changes:
            one(case)

    return change


SALARY_IS_3 = "the deposit 'salary' has position 3, but was sent after the answer to"


@pytest.mark.parametrize(
    ("damage", "violation"),
    [
        (forget, "acknowledged deposit 'salary' is in the log 0 times"),
        (append_again("salary"), "acknowledged deposit 'salary' is in the log 2 times"),
        (append_again("found"), "unknown deposit 'found' is in the log 2 times"),
        (refuse, "refused deposit 'found' is in the log"),
        (remove_operation, "'salary' at ['00000000000000000003'] was sent by nobody"),
        (change_event("rent", sequence=f"{9:020d}"), "4 belongs there"),
        (change_event("rent", accountversion=9), "version 9 of alice, not 4"),
        (change_event("rent", id="event-1"), "the event event-1 is there twice"),
        (change_event("yacht", type="amount-withdrawn", data={"amount": 999, "description": "yacht"}), "and not"),
        (change_event("yacht", type="amount-withdrawn", data={"amount": 999, "description": "yacht"}), "is -969"),
        (change_event("rent", type="withdrawal-rejected"), "and not"),
        (change_data("salary", amount=101), "asked for ('deposit', 'alice', 100, None, None), the log has"),
        (change_event("salary", subject="bob"), "asked for ('deposit', 'alice', 100, None, None), the log has"),
        (change_answer("salary", balance=99), "was told (position, event, version, balance)"),
        (change_answer("salary", position=4), "was told (position, event, version, balance)"),
        (change_answer("yacht", event_id="event-1"), "was told (position, event, version, balance)"),
        (change_answer("yacht", reason="account-not-found"), "was told account-not-found"),
        (attempt("salary", at(3.6, 4.0)), f"{SALARY_IS_3} the withdraw 'rent' told of 4"),
        (attempt("early", at(1.6, 1.8)), "'early' has position 1, but was sent after the answer to the create-account"),
        (attempt("salary", at(3.6), at(4.0, 4.2)), f"{SALARY_IS_3} the withdraw 'rent' told of 4"),
        (attempt("salary", at(2.0, 2.2, "refused"), at(3.6, 4.0)), f"{SALARY_IS_3} the withdraw 'rent' told of 4"),
        (attempt("rent", at(1.6), at(1.7, 1.9), at(4.0, 4.5)), f"{SALARY_IS_3} the withdraw 'rent' told of 4"),
        (batch("create", "yacht", sent=2.6, answered=2.9), "'create' has position 2, but was sent after the answer to"),
        (batch("create", "yacht", sent=1.0, answered=1.9), f"{SALARY_IS_3} the withdraw 'yacht' told of 5"),
        (attempt("found", at(7.9)), "'found' has position 6, but was sent after the answer to the read of the reserve"),
        (set_read(0, position=3), "'create' has position 2, but was sent after the answer to the read of alice in one"),
        (set_read(1, min_position=4), "older than the 4 that was asked for"),
        (set_read(4, position=2), "one-projection went back: the read of the reserves in one-projection by session 2"),
        (set_read(3, position=2), "other-projection went back: the read of alice in other-projection by session 1"),
        (set_read(3, position=3), "session 1 went back: the read of alice in other-projection by session 1 is at 3"),
        (
            all_of(set_read(3, session=0), set_read(5, session=0, position=4, views=ONE)),
            "session 0 went back: the read of alice in one-projection by session 0 is at 4, "
            "but was sent after the answer to the read of alice in other-projection by session 0 told of 5",
        ),
        (set_read(6, body=alice(36, 6, 6)), "at 6, the read of alice in other-projection by session 1 is"),
        (
            set_read(1, body=alice(99, 3, 3)),
            "the log says {'id': 'alice', 'name': 'create', 'asset': 'USD/2', 'balance': 100, 'held'",
        ),
        (
            set_read(1, body=alice(100, 2, 3)),
            "the log says {'id': 'alice', 'name': 'create', 'asset': 'USD/2', 'balance': 100, 'held'",
        ),
        (set_read(1, body=alice(100, 3, 2)), "'last_updated': 'time-2'}, the log says"),
        (set_read(1, body={**alice(100, 3, 3), "name": "bob"}), "the log says {'id': 'alice', 'name': 'create'"),
        (set_read(0, body=alice(0, 1, 1)), "the log says None"),
        (
            set_read(2, body=reserves(99, 3)),
            "the log says [{'asset': 'USD/2', 'amount': 100, 'last_updated': 'time-3'}]",
        ),
        (
            set_read(2, body=reserves(100, 2)),
            "the log says [{'asset': 'USD/2', 'amount': 100, 'last_updated': 'time-3'}]",
        ),
        (set_read(1, position=7), "a view was at 7, the log ends at 6"),
        (lambda case: case.views[0].accounts.update(alice=alice(36, 6, 6)), "a view at 6 has {'id': 'alice', 'name'"),
        (lambda case: case.views[0].accounts.clear(), "a view at 6 has None for alice"),
        (lambda case: case.views[0].accounts.update(bob=alice(0, 1, 1)), "for bob, the log says None"),
        (
            lambda case: case.views[0].reserves[0].update(amount=36),
            "a view at 6 has the reserves [{'asset': 'USD/2', 'amount': 36",
        ),
        (lambda case: case.views[0].reserves[0].update(amount=36), "two views at 6 differ"),
        (lambda case: setattr(case.views[0], "position", 7), "a view was at 7, the log ends at 6"),
    ],
)
def test_a_broken_promise_is_found(damage: Callable[[Case], None], violation: str) -> None:
    case = sound()
    damage(case)
    violations = check(case.history, case.log, case.views)
    assert any(violation in found for found in violations), violations


@pytest.mark.parametrize(
    "change",
    [
        # What was under way at the same time may have either order, whoever was answered first.
        all_of(attempt("salary", at(2.9, 4.8)), attempt("rent", at(3.0, 3.1))),
        # The retry's answer tells of the first try: that one came before the rent.
        attempt("salary", at(2.0), at(3.6, 4.0)),
        # The duplicate too, long after the first answer.
        attempt("salary", at(2.0, 2.5), at(9.0, 9.5)),
        # A first try that was not done does not count.
        attempt("found", at(0.0, 0.2, "refused"), at(7.0)),
        # Of whom nobody heard, it may be recorded at any time after it was sent.
        attempt("found", at(0.0)),
        # All commands of a batch were under way for as long as the request.
        batch("create", "yacht", sent=1.0, answered=4.5),
        # Without `min_position` a session may find other views behind.
        set_read(3, min_position=None, position=3, body=alice(100, 3, 3)),
        # Two reads of the same views at the same time.
        set_read(4, sent=4.7, answered=9.0, position=4, views=OTHER, body=reserves(30, 4)),
    ],
)
def test_what_real_time_leaves_open_is_no_violation(change: Callable[[Case], None]) -> None:
    case = sound()
    change(case)
    assert check(case.history, case.log, case.views) == []


READ = Read(0, ONE, None, None, 0, 0, 0, None)
MOMENTS = st.lists(st.builds(Moment, st.integers(0, 9).map(float), st.integers(0, 9), st.just(READ)))


@given(MOMENTS, MOMENTS)
def test_contradictions_are_those_that_comparing_each_with_each_finds(told: list[Moment], sent: list[Moment]) -> None:
    each = [
        (max(before.position for before in told if before.time < after.time), after.time, after.position)
        for after in sent
        if any(before.time < after.time and before.position > after.position for before in told)
    ]
    found = [(before.position, after.time, after.position) for before, after in contradictions(told, sent)]
    assert sorted(found) == sorted(each)


def transferred() -> Case:
    """Alice has given Bob 30 of her 100; Carol has 7 of something else."""
    log: list[CloudEvent] = []
    operations: list[Operation] = []
    done: list[tuple[Kind, str, int | None, Body, Body]] = [
        ("create-account", "alice", None, {"name": "one"}, {"balance": 0, "version": 1}),
        ("create-account", "bob", None, {"name": "two"}, {"balance": 0, "version": 1}),
        ("deposit", "alice", 100, {"description": "three"}, {"balance": 100, "version": 2}),
        (
            "transfer",
            "alice",
            30,
            {"to": "bob", "description": "four"},
            {"balance": 70, "version": 3, "counterpart": {"account_id": "bob", "balance": 30, "version": 2}},
        ),
        (
            "create-account",
            "carol",
            None,
            {"name": "five", "asset": "EUR/2"},
            {"asset": "EUR/2", "balance": 0, "version": 1},
        ),
        ("deposit", "carol", 7, {"description": "six"}, {"balance": 7, "version": 2}),
    ]
    types = {kind: event_type for event_type, kind in reversed(KINDS.items())}
    for position, (kind, account, amount, data, answer) in enumerate(done, 1):
        name = data.get("description") or data["name"]
        attempt = Attempt(position, position + 0.5, "acknowledged")
        operation = Operation(name, kind, account, amount, 0, data.get("to"), [attempt], data.get("asset"))
        operation.answers.append({"position": position, **answer})
        operations.append(operation)
        other = {"counterpart": "bob", "counterpartversion": 2} if kind == "transfer" else {}
        log.append(
            {
                "id": f"event-{position}",
                "commandid": f"command-{position}",
                "type": types[kind],
                "subject": account,
                "sequence": f"{position:020d}",
                "accountversion": answer["version"],
                **other,
                "time": f"time-{position}",
                "data": data if amount is None else {"amount": amount, **data},
            }
        )
    accounts = {
        "alice": {**account_body("alice", "one", 70, 3), "last_updated": "time-4"},
        "bob": {**account_body("bob", "two", 30, 2), "last_updated": "time-4"},
        "carol": {**account_body("carol", "five", 7, 2), "asset": "EUR/2", "last_updated": "time-6"},
    }
    of_both = [{"asset": "EUR/2", "amount": 7, "last_updated": "time-6"}, *reserves(100, 3)]
    return Case(History(operations), log, [View(6, accounts, of_both)])


def test_a_transfer_is_in_the_streams_of_both_accounts_and_each_asset_has_its_reserve() -> None:
    case = transferred()
    assert check(case.history, case.log, case.views) == []


def half_a_transfer(case: Case) -> None:
    case.views[0].accounts["bob"].update(balance=0)


def a_transfer_that_made_money(case: Case) -> None:
    case.views[0].reserves[1].update(amount=130)


def a_wrong_version(case: Case) -> None:
    case.event("four").update(counterpartversion=3)


def no_counterpart(case: Case) -> None:
    del case.event("four")["counterpart"]


def another_account(case: Case) -> None:
    case.operation("four").to = "carol"


def a_transfer_into_another_asset(case: Case) -> None:
    data = {"to": "carol", "amount": 1, "description": "seven"}
    streams = {"accountversion": 4, "counterpart": "carol", "counterpartversion": 3}
    case.log.append({**case.event("four"), "id": "event-7", "sequence": f"{7:020d}", **streams, "data": data})


def money_in_another_reserve(case: Case) -> None:
    case.views[0].reserves[0].update(amount=0)


def no_reserve(case: Case) -> None:
    del case.views[0].reserves[0]


def a_view_of_another_asset(case: Case) -> None:
    case.views[0].accounts["carol"].update(asset="USD/2")


def another_asset(case: Case) -> None:
    case.operation("five").asset = None


def a_wrong_asset_in_an_answer(case: Case) -> None:
    case.operation("five").answers[0].update(asset="USD/2")


def a_wrong_answer(case: Case) -> None:
    case.operation("four").answers[0]["counterpart"]["balance"] = 31


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (half_a_transfer, "has {'id': 'bob', 'name': 'two', 'asset': 'USD/2', 'balance': 0"),
        (a_transfer_that_made_money, "has the reserves [{'asset': 'EUR/2', 'amount': 7, "),
        (a_wrong_version, "version 3 of bob, not 2"),
        (no_counterpart, "is in the streams of ['alice'] only"),
        (another_account, "asked for ('transfer', 'alice', 30, 'carol', None)"),
        (a_transfer_into_another_asset, "reason='asset-mismatch'"),
        (money_in_another_reserve, "has the reserves [{'asset': 'EUR/2', 'amount': 0"),
        (no_reserve, "has the reserves [{'asset': 'USD/2', 'amount': 100"),
        (a_view_of_another_asset, "'name': 'five', 'asset': 'USD/2'"),
        (another_asset, "asked for ('create-account', 'carol', None, None, None)"),
        (a_wrong_asset_in_an_answer, "was told USD/2, the log has another asset"),
        (a_wrong_answer, "'balance': 31, 'version': 2} of its counterpart"),
    ],
)
def test_a_damaged_transfer_is_found(damage: Callable[[Case], None], said: str) -> None:
    case = transferred()
    damage(case)
    violations = check(case.history, case.log, case.views)
    assert any(said in violation for violation in violations), violations


ACCEPTED, REFUSED = "atomic-1", "atomic-2"


def all_or_nothing() -> Case:
    """One request that creates Alice and Bob and pays them, and one in which Alice pays more than she has."""
    requests: list[tuple[str, list[tuple[str, Command, Kind, Reason | None]]]] = [
        (
            ACCEPTED,
            [
                ("one", CreateAccount("one", ALICE, if_version=0), "create-account", None),
                ("two", CreateAccount("two", BOB, metadata={"sent as": "two"}), "create-account", None),
                ("three", Deposit(ALICE, 100, "three", if_version=1), "deposit", None),
                ("four", Transfer(ALICE, BOB, 30, "four"), "transfer", None),
            ],
        ),
        (
            REFUSED,
            [
                ("five", Transfer(ALICE, BOB, 60, "five", metadata={"sent as": "five"}), "transfer", LINKED),
                ("six", Transfer(ALICE, BOB, 20, "six"), "transfer", "insufficient-funds"),
                ("seven", Withdraw(BOB, 1000, "seven", if_version=2), "withdraw", LINKED),
            ],
        ),
    ]
    log: list[CloudEvent] = []
    operations: list[Operation] = []
    versions: Counter[str] = Counter()
    for request, commands in requests:
        for number, (name, command, kind, reason) in enumerate(commands):
            position, account_id = len(log) + 1, command.account_id
            assert account_id is not None
            event = rejected(command, reason) if reason else accepted(command)
            versions.update({account_id, command.to} if command.to and not reason else {account_id})
            other = {"counterpart": BOB, "counterpartversion": versions[BOB]} if command.to and not reason else {}
            told: Body = {"position": position, "event_id": f"event-{position}"}
            operations.append(
                Operation(
                    *(name, kind, account_id, getattr(command, "amount", None), 0, command.to),
                    [at(position, position + 0.5)],
                    None,
                    [{**told, "reason": reason} if reason else {**told, "version": versions[account_id]}],
                    None if command.if_version is UNSET else command.if_version,
                    None if command.metadata is UNSET else command.metadata,
                    request,
                )
            )
            if other:
                operations[-1].answers[0]["counterpart"] = {"account_id": BOB, "balance": 30, "version": versions[BOB]}
            log.append(
                {
                    "id": f"event-{position}",
                    "commandid": f"{request}/{number}",
                    "type": event.type,
                    "subject": account_id,
                    "sequence": f"{position:020d}",
                    "accountversion": versions[account_id],
                    **other,
                    "time": f"time-{position}",
                    "data": msgspec.to_builtins(event),
                }
            )
    accounts = {
        "alice": {**account_body("alice", "one", 70, 5), "last_updated": "time-4"},
        "bob": {**account_body("bob", "two", 30, 3), "last_updated": "time-4"},
    }
    return Case(History(operations), log, [View(7, accounts, reserves(100, 3))])


def accepted(command: Command) -> Event:
    account = Account(10**6)
    is_new = isinstance(command, CreateAccount)
    version = Version(command.if_version or 0)
    event = decide(None if is_new else account, version, command, "", account)
    assert event is not None
    return event


def test_an_atomic_request_is_accepted_or_rejected_as_a_whole() -> None:
    case = all_or_nothing()
    assert check(case.history, case.log, case.views) == []


def forget_last(case: Case) -> None:
    del case.log[-1]


def take_effect(case: Case) -> None:
    """The first command of the rejected request."""
    event = case.event("five")
    del event["data"]["reason"]
    event.update(type="money-transferred", counterpart="bob", counterpartversion=3)


def swap(case: Case) -> None:
    five, six = case.operation("five"), case.operation("six")
    five.id, six.id = "six", "five"


def as_an_ordinary_one(case: Case) -> None:
    for operation in case.history.operations:
        operation.atomic = None


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (forget_last, "of the 3 commands of atomic-2 only 2 are in the log: [5, 6]"),
        (take_effect, "atomic-2 is neither accepted nor rejected as a whole: [None, 'insufficient-funds'"),
        (take_effect, "position 00000000000000000005: money-transferred {"),
        (change_data("seven", reason="insufficient-funds"), "neither accepted nor rejected as a whole: ['linked-"),
        (change_data("seven", reason="insufficient-funds"), "position 00000000000000000007: withdrawal-rejected {"),
        (change_data("six", reason="linked-command-rejected"), "neither accepted nor rejected as a whole: ['linked-"),
        (change_data("six", reason="linked-command-rejected"), "position 00000000000000000006: transfer-rejected {"),
        (change_data("six", reason="account-frozen"), "position 00000000000000000006: transfer-rejected {"),
        (change_data("six", amount=10), "position 00000000000000000006: transfer-rejected {"),
        (change_data("five", amount=71), "position 00000000000000000005: transfer-rejected {"),
        (change_event("seven", commandid="another"), "position 00000000000000000007: withdrawal-rejected {"),
        (swap, "the commands of atomic-2 are not one after the other, in order: [6, 5, 7]"),
        (as_an_ordinary_one, "'five' is not of an atomic request, and is rejected as one of it"),
        (change_data("five", metadata={"sent as": "six"}), "has the metadata {'sent as': 'five'}, the log {'sent as'"),
        (lambda case: case.event("two")["data"].pop("metadata"), "has the metadata {'sent as': 'two'}, the log None"),
        (change_data("seven", if_version=3), "'seven' was for version 2, the log has 3"),
        (lambda case: setattr(case.operation("three"), "if_version", 0), "'three' was for version 0, the log has 1"),
        (change_data("six", if_version=0), "'six' was for version None, the log has 0"),
    ],
)
def test_a_damaged_atomic_request_is_found(damage: Callable[[Case], None], said: str) -> None:
    case = all_or_nothing()
    damage(case)
    violations = check(case.history, case.log, case.views)
    assert any(said in violation for violation in violations), violations


def pooled() -> Case:
    """The same, with what was read of both between the deposit and the end: they are a pool of 100."""
    case = transferred()
    one, two = case.views[0].accounts["alice"], case.views[0].accounts["bob"]
    before = {**account_body("alice", "one", 100, 2), "last_updated": "time-3"}
    case.history.reads = [
        Read(0, ONE, "alice", None, 2.1, 2.2, 2, {**account_body("alice", "one", 0, 1), "last_updated": "time-1"}),
        Read(0, ONE, "bob", None, 2.1, 2.2, 2, {**account_body("bob", "two", 0, 1), "last_updated": "time-2"}),
        Read(0, ONE, "alice", None, 3.6, 3.7, 3, before),
        Read(0, ONE, "alice", None, 4.6, 4.7, 4, one),
        Read(1, OTHER, "bob", None, 4.6, 4.7, 4, two),
    ]
    case.history.pool = Pool(["alice", "bob"], 100, 3)
    return case


def test_a_pool_has_what_was_put_in() -> None:
    case = pooled()
    assert check(case.history, case.log, case.views) == []
    assert whole_pools(case.history) == {4: [70, 30]}


def a_torn_transfer(case: Case) -> None:
    case.history.reads[4].body = {**account_body("bob", "two", 0, 1), "last_updated": "time-2"}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (a_torn_transfer, "at 4 the pool has [70, 0], and not 100 together"),
        (set_read(4, body=None), "at 4 the pool has [70, None], and not 100 together"),
        (half_a_transfer, "in a view at 6 the pool has [70, 0], and not 100 together"),
        (
            lambda case: case.views[0].accounts.pop("bob"),
            "in a view at 6 the pool has [70, None], and not 100 together",
        ),
        (lambda case: setattr(case.history, "pool", Pool(["alice", "bob"], 100, 2)), "at 2 the pool has [0, 0]"),
    ],
)
def test_a_pool_that_does_not_add_up_is_found(damage: Callable[[Case], None], said: str) -> None:
    case = pooled()
    damage(case)
    violations = check(case.history, case.log, case.views)
    assert any(said in violation for violation in violations), violations


EXPIRES = "time-6"


def held() -> Case:
    """Of Alice's 100, two holds were placed: one of 60, captured in part, and one of 30, which has expired."""
    data: list[tuple[str, Body]] = [
        ("account-created", {"name": "one"}),
        ("amount-deposited", {"amount": 100, "description": "two"}),
        ("hold-placed", {"hold_id": "a", "amount": 60, "description": "three"}),
        ("hold-placed", {"hold_id": "b", "amount": 30, "description": "four", "expires_at": EXPIRES}),
        ("hold-captured", {"hold_id": "a", "amount": 40, "released": 20}),
        ("hold-expired", {"hold_id": "b", "amount": 30}),
    ]
    log: list[CloudEvent] = [
        {
            "id": f"event-{position}",
            "commandid": f"command-{position}",
            "type": event_type,
            "subject": "alice",
            "sequence": f"{position:020d}",
            "accountversion": position,
            "time": f"time-{position}",
            "data": body,
        }
        for position, (event_type, body) in enumerate(data, 1)
    ]
    kinds: list[Kind] = ["create-account", "deposit", "hold", "hold", "capture"]
    operations = [
        Operation(
            *(name, kind, "alice", amount, 0, None),
            attempts=[Attempt(position, position + 0.5, "acknowledged")],
            answers=[{"position": position}],
            hold_id=data[position - 1][1].get("hold_id"),
            expires_at=data[position - 1][1].get("expires_at"),
        )
        for position, (kind, name, amount) in enumerate(
            zip(kinds, ["one", "two", "three", "four", "capture-a"], [None, 100, 60, 30, 40], strict=True), 1
        )
    ]
    accounts = {"alice": {**account_body("alice", "one", 60, 6), "last_updated": "time-6"}}
    return Case(History(operations), log, [View(6, accounts, reserves(60, 5))])


def test_holds_that_end_once_and_in_time_are_no_violation() -> None:
    case = held()
    assert check(case.history, case.log, case.views) == []
    assert still_to_expire(case.log) == []


def an_expiry_before_its_time(case: Case) -> None:
    case.log[5]["time"] = "time-5"


def a_capture_of_a_hold_that_is_due(case: Case) -> None:
    case.log[2]["data"]["expires_at"] = "time-4"


def an_expiry_of_what_was_captured(case: Case) -> None:
    case.log[5]["data"].update(hold_id="a", amount=60)


def a_capture_of_more_than_was_held(case: Case) -> None:
    case.log[4]["data"].update(amount=70, released=-10)


def a_hold_of_more_than_there_is(case: Case) -> None:
    case.log[3]["data"]["amount"] = 50


def a_view_that_still_holds_it(case: Case) -> None:
    case.views[0].accounts["alice"].update(held=30, available=30)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (an_expiry_before_its_time, "00006: hold-expired {'hold_id': 'b', 'amount': 30} for"),
        (a_capture_of_a_hold_that_is_due, "00005: hold-captured"),
        (an_expiry_of_what_was_captured, "00006: hold-expired {'hold_id': 'a', 'amount': 60} for"),
        (a_capture_of_more_than_was_held, "00005: hold-captured"),
        (a_hold_of_more_than_there_is, "110 are held of alice, which has 100"),
        (a_view_that_still_holds_it, "'held': 30"),
        (change_data("four", expires_at="time-5"), "'four' is of the hold ('b', 'time-6'), the log has {'hold_id'"),
        (change_data("three", hold_id="c"), "'three' is of the hold ('a', None), the log has {'hold_id': 'c'"),
    ],
)
def test_a_damaged_hold_is_found(damage: Callable[[Case], None], said: str) -> None:
    case = held()
    damage(case)
    violations = check(case.history, case.log, case.views)
    assert any(said in violation for violation in violations), violations


def test_a_hold_that_is_to_expire_and_is_open_at_the_end_is_found() -> None:
    assert still_to_expire(held().log[:5]) == ["the hold b of alice was to expire at time-6, and is open"]


def held_together() -> Case:
    """Then Alice asks for more in one request than she has, and for as much as she has in the next."""
    case = held()
    done: list[tuple[str, str, Kind, str, Body]] = [
        ("atomic-1/0", "five", "hold", "hold-rejected", {"hold_id": "c", "amount": 10, "description": "five"}),
        ("atomic-1/1", "capture-c", "capture", "capture-rejected", {"hold_id": "c", "amount": 10}),
        ("atomic-1/2", "six", "hold", "hold-rejected", {"hold_id": "d", "amount": 50, "description": "six"}),
        ("atomic-1/3", "seven", "withdraw", "withdrawal-rejected", {"amount": 1, "description": "seven"}),
        ("atomic-2/0", "eight", "hold", "hold-placed", {"hold_id": "d", "amount": 60, "description": "eight"}),
        ("atomic-2/1", "release-d", "release", "hold-released", {"hold_id": "d", "amount": 60}),
    ]
    for position, (command_id, name, kind, event_type, data) in enumerate(done, 7):
        reason = {"reason": "insufficient-funds" if name == "seven" else LINKED}
        case.log.append(
            {
                "id": f"event-{position}",
                "commandid": command_id,
                "type": event_type,
                "subject": "alice",
                "sequence": f"{position:020d}",
                "accountversion": position,
                "time": f"time-{position}",
                "data": {**data, **reason} if "rejected" in event_type else data,
            }
        )
        amount = None if kind == "release" else data["amount"]
        operation = Operation(name, kind, "alice", amount, 0, hold_id=data.get("hold_id"))
        operation.atomic = command_id.partition("/")[0]
        operation.attempts.append(at(position, position + 0.5))
        operation.answers.append({"position": position})
        case.history.operations.append(operation)
    alice_after = {**account_body("alice", "one", 60, 12), "last_updated": "time-12"}
    case.views = [View(12, {"alice": alice_after}, reserves(60, 5))]
    return case


def test_an_atomic_request_sees_the_holds_of_its_own_commands() -> None:
    case = held_together()
    assert check(case.history, case.log, case.views) == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda case: case.log[7]["data"].update(amount=11), "position 00000000000000000008: capture-rejected {"),
        (lambda case: case.log[7]["data"].update(reason="hold-not-found"), "is neither accepted nor rejected as a who"),
        (change_data("six", amount=49), "position 00000000000000000010: withdrawal-rejected {"),
    ],
)
def test_a_damaged_atomic_request_with_holds_is_found(damage: Callable[[Case], None], said: str) -> None:
    case = held_together()
    damage(case)
    violations = check(case.history, case.log, case.views)
    assert any(said in violation for violation in violations), violations
