"""The checker finds each kind of broken promise: a history, a log and views that are right, broken on purpose."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import pytest

from command_service.account import Account, Command, CreateAccount, Deposit, Withdraw, decide, evolve
from shared.events import TYPE_NAMES, AccountId
from tests.faults.checker import CloudEvent, check
from tests.faults.history import History, Kind, Operation, Read, View


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


def sound() -> Case:
    """What happens to one account, as it should be."""
    history, log = History(), list[CloudEvent]()
    account: Account | None = None

    def operate(name: str, kind: Kind, amount: int | None, outcome: str, recorded: bool) -> None:
        nonlocal account
        operation = Operation(name, kind, "alice", amount)
        history.operations.append(operation)
        operation.refusals, operation.unknowns = int(outcome == "refused"), int(outcome == "unknown")
        if not recorded:
            return
        event = decide(account, command_for(operation))
        account = evolve(account, event)
        position = len(log) + 1
        log.append(
            {
                "id": f"event-{position}",
                "type": TYPE_NAMES[type(event)],
                "subject": "alice",
                "sequence": f"{position:020d}",
                "accountversion": position,
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
    history.reads = [Read("alice", 1, 1), Read("alice", 3, 3, 100, 3), Read("alice", 2, 6, 35, 6)]
    return Case(history, log, [View(6, {"alice": (35, 6)}, 35) for _ in range(2)])


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


def set_read(number: int, **members: int) -> Callable[[Case], None]:
    def change(case: Case) -> None:
        for name, value in members.items():
            setattr(case.history.reads[number], name, value)

    return change


def refuse(case: Case) -> None:
    case.operation("found").refusals, case.operation("found").unknowns = 1, 0


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
        (change_data("salary", amount=101), "asked for ('deposit', 'alice', 100), the log has"),
        (change_event("salary", subject="bob"), "asked for ('deposit', 'alice', 100), the log has"),
        (change_answer("salary", balance=99), "was told (position, event, version, balance)"),
        (change_answer("salary", position=4), "was told (position, event, version, balance)"),
        (change_answer("yacht", event_id="event-1"), "was told (position, event, version, balance)"),
        (change_answer("yacht", reason="account-not-found"), "was told account-not-found"),
        (set_read(1, min_position=4), "older than the 4 that was asked for"),
        (set_read(1, balance=99), "the log says (balance, version) (100, 3)"),
        (set_read(1, version=2), "the log says (balance, version) (100, 3)"),
        (set_read(0, balance=0, version=1), "the log says (balance, version) (None, None)"),
        (set_read(1, position=7), "a view was at 7, the log ends at 6"),
        (lambda case: case.views[0].accounts.update(alice=(36, 6)), "a view at 6 has (36, 6) for alice"),
        (lambda case: case.views[0].accounts.clear(), "a view at 6 has None for alice"),
        (lambda case: case.views[0].accounts.update(bob=(0, 1)), "a view at 6 has (0, 1) for bob"),
        (lambda case: setattr(case.views[0], "reserve", 36), "a view at 6 has the reserve 36, not 35"),
        (lambda case: setattr(case.views[0], "reserve", 36), "two views at 6 differ"),
        (lambda case: setattr(case.views[0], "position", 7), "a view was at 7, the log ends at 6"),
    ],
)
def test_a_broken_promise_is_found(damage: Callable[[Case], None], violation: str) -> None:
    case = sound()
    damage(case)
    violations = check(case.history, case.log, case.views)
    assert any(violation in found for found in violations), violations
