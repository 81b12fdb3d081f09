"""Decides from the clients' history, the log and the views whether the bank kept its promises."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from command_service.account import Account, Command, CreateAccount, Deposit, Withdraw, decide
from shared.events import TYPE_NAMES, AccountId
from tests.faults.history import History, Operation, Read, View

CloudEvent = dict[str, Any]

KINDS = {
    "account-created": "create-account",
    "account-creation-rejected": "create-account",
    "amount-deposited": "deposit",
    "deposit-rejected": "deposit",
    "amount-withdrawn": "withdraw",
    "withdrawal-rejected": "withdraw",
}


def check(history: History, log: Sequence[CloudEvent], views: Sequence[View]) -> list[str]:
    """Every violation, in a sentence each."""
    return [*check_log(log), *check_operations(history.operations, log), *check_states(log, history.reads, views)]


def check_log(log: Sequence[CloudEvent]) -> Iterator[str]:
    """Positions and versions without a hole, no event twice, and each decision right after the events before it."""
    versions: dict[str, int] = defaultdict(int)
    accounts: dict[str, Account] = {}
    ids: set[str] = set()
    for expected, event in enumerate(log, 1):
        where, account_id = f"position {event['sequence']}", event["subject"]
        if int(event["sequence"]) != expected:
            yield f"{where}: {expected} belongs there"
        versions[account_id] += 1
        if event["accountversion"] != versions[account_id]:
            yield f"{where}: version {event['accountversion']} of {account_id}, not {versions[account_id]}"
        if event["id"] in ids:
            yield f"{where}: the event {event['id']} is there twice"
        ids.add(event["id"])
        account = accounts.get(account_id)
        right = decide(account, command_of(event))
        if (TYPE_NAMES[type(right)], msgspec.to_builtins(right)) != (event["type"], event["data"]):
            yield f"{where}: {event['type']} {event['data']} for {account}, and not {right}"
        balance = (account.balance if account else 0) + change(event)
        if balance < 0:
            yield f"{where}: the balance of {account_id} is {balance}"
        if account is not None:
            accounts[account_id] = Account(account.name, balance)
        elif event["type"] == "account-created":
            accounts[account_id] = Account(event["data"]["name"], 0)


def check_operations(operations: Sequence[Operation], log: Sequence[CloudEvent]) -> Iterator[str]:
    """Acknowledged: there once, as the client was told. Refused: not there. Unknown: there once or not at all."""
    found: dict[str, list[CloudEvent]] = defaultdict(list)
    for event in log:
        found[operation_id(event)].append(event)
    balances = balances_after_each(log)
    for operation in operations:
        events = found.pop(operation.id, [])
        what = f"{operation.outcome} {operation.kind} {operation.id!r}"
        positions = [int(event["sequence"]) for event in events]
        match operation.outcome, len(events):
            case "acknowledged", 1:
                pass
            case ("acknowledged", number) if number != 1:
                yield f"{what} is in the log {number} times: {positions}"
            case ("refused", number) if number > 0:
                yield f"{what} is in the log: {positions}"
            case ("unknown", number) if number > 1:
                yield f"{what} is in the log {number} times: {positions}"
        for event in events:
            asked = (operation.kind, operation.account, operation.amount)
            done = (KINDS[event["type"]], event["subject"], event["data"].get("amount"))
            if asked != done:
                yield f"{what} asked for {asked}, the log has {done}"
        for answer in operation.answers:
            told = (answer["position"], answer.get("event_id"), answer.get("version"), answer.get("balance"))
            there = [
                (
                    int(event["sequence"]),
                    event["id"] if "event_id" in answer else None,
                    event["accountversion"] if "version" in answer else None,
                    balances[int(event["sequence"])] if "balance" in answer else None,
                )
                for event in events
            ]
            if told not in there:
                yield f"{what} was told (position, event, version, balance) {told}, the log has {there}"
            if "reason" in answer and [answer["reason"]] != [event["data"].get("reason") for event in events]:
                yield f"{what} was told {answer['reason']}, the log has another reason"
    for operation_id_, events in found.items():
        yield f"{operation_id_!r} at {[event['sequence'] for event in events]} was sent by nobody"


def check_states(log: Sequence[CloudEvent], reads: Sequence[Read], views: Sequence[View]) -> Iterator[str]:
    """Each answer to a query, and each whole view, is the fold of the log up to the position it names."""
    balances: dict[str, int] = {}
    versions: dict[str, int] = {}
    asked: dict[int, list[Read]] = defaultdict(list)
    for read in reads:
        asked[read.position].append(read)
        if read.position < read.min_position:
            yield f"{read}: older than the {read.min_position} that was asked for"
    for position in range(len(log) + 1):
        if position:
            event = log[position - 1]
            account_id = event["subject"]
            if event["type"] == "account-created":
                balances[account_id] = 0
            if account_id in balances:
                balances[account_id] += change(event)
                versions[account_id] = event["accountversion"]
        for read in asked.pop(position, []):
            state = (balances.get(read.account), versions.get(read.account))
            if (read.balance, read.version) != state:
                yield f"{read}: the log says (balance, version) {state}"
        for view in views:
            if view.position == position:
                state_of_all = {account: (balances[account], versions[account]) for account in balances}
                for account in state_of_all.keys() | view.accounts.keys():
                    if view.accounts.get(account) != state_of_all.get(account):
                        yield (
                            f"a view at {position} has {view.accounts.get(account)} for {account}, "
                            f"the log says {state_of_all.get(account)}"
                        )
                if view.reserve != sum(balances.values()):
                    yield f"a view at {position} has the reserve {view.reserve}, not {sum(balances.values())}"
    for position in [*asked, *(view.position for view in views if view.position > len(log))]:
        yield f"a view was at {position}, the log ends at {len(log)}"
    for one in views:
        for other in views:
            if one.position == other.position and one != other:
                yield f"two views at {one.position} differ"


def balances_after_each(log: Sequence[CloudEvent]) -> dict[int, int | None]:
    """Of the event's account, by position; None while it does not exist."""
    balances: dict[str, int] = {}
    after: dict[int, int | None] = {}
    for event in log:
        if event["type"] == "account-created":
            balances[event["subject"]] = 0
        if event["subject"] in balances:
            balances[event["subject"]] += change(event)
        after[int(event["sequence"])] = balances.get(event["subject"])
    return after


def change(event: CloudEvent) -> int:
    """Of the balance, in cents."""
    match event["type"]:
        case "amount-deposited":
            return int(event["data"]["amount"])
        case "amount-withdrawn":
            return -int(event["data"]["amount"])
        case _:
            return 0


def operation_id(event: CloudEvent) -> str:
    data = event["data"]
    return str(data["description"] if "description" in data else data["name"])


def command_of(event: CloudEvent) -> Command:
    """The command that led to `event`."""
    account_id, data = AccountId(event["subject"]), event["data"]
    match KINDS[event["type"]]:
        case "create-account":
            return CreateAccount(data["name"], account_id)
        case "deposit":
            return Deposit(account_id, data["amount"], data["description"])
        case _:
            return Withdraw(account_id, data["amount"], data["description"])
