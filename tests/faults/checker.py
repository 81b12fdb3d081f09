"""Decides from the clients' history, the log and the views whether the bank kept its promises."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from command_service.account import (
    Account,
    Capture,
    Close,
    Command,
    CreateAccount,
    Deposit,
    ExpireHold,
    Freeze,
    Hold,
    PlaceHold,
    Release,
    SetOverdraftLimit,
    Transfer,
    Unfreeze,
    Withdraw,
    decide,
)
from shared.events import AccountId, HoldId
from tests.faults.history import Body, History, Operation, Read, View

CloudEvent = dict[str, Any]

KINDS = {
    "account-created": "create-account",
    "account-creation-rejected": "create-account",
    "amount-deposited": "deposit",
    "deposit-rejected": "deposit",
    "amount-withdrawn": "withdraw",
    "withdrawal-rejected": "withdraw",
    "money-transferred": "transfer",
    "transfer-rejected": "transfer",
    "hold-placed": "hold",
    "hold-rejected": "hold",
    "hold-captured": "capture",
    "capture-rejected": "capture",
    "hold-released": "release",
    "release-rejected": "release",
    "hold-expired": "expire-hold",
    "overdraft-limit-set": "set-overdraft-limit",
    "overdraft-limit-rejected": "set-overdraft-limit",
    "account-frozen": "freeze",
    "freeze-rejected": "freeze",
    "account-unfrozen": "unfreeze",
    "unfreeze-rejected": "unfreeze",
    "account-closed": "close",
    "close-rejected": "close",
}
STATUSES = {"account-frozen": "frozen", "account-unfrozen": "open", "account-closed": "closed"}


def check(history: History, log: Sequence[CloudEvent], views: Sequence[View]) -> list[str]:
    """Every violation, in a sentence each."""
    return [
        *check_log(log),
        *check_operations(history.operations, log),
        *check_order(history, log),
        *check_reads(history),
        *check_states(log, history.reads, views),
    ]


def check_log(log: Sequence[CloudEvent]) -> Iterator[str]:
    """Positions and versions without a hole, no event twice, and each decision right after the events before it."""
    versions: dict[str, int] = defaultdict(int)
    accounts: dict[str, Account] = {}
    holds: dict[tuple[str, str], Hold] = {}
    ids: set[str] = set()
    for expected, event in enumerate(log, 1):
        where = f"position {event['sequence']}"
        if int(event["sequence"]) != expected:
            yield f"{where}: {expected} belongs there"
        for account_id, version in streams(event).items():
            versions[account_id] += 1
            if version != versions[account_id]:
                yield f"{where}: version {version} of {account_id}, not {versions[account_id]}"
        if event["id"] in ids:
            yield f"{where}: the event {event['id']} is there twice"
        ids.add(event["id"])
        moved, command = changes(event), command_of(event)
        if moved.keys() - streams(event):
            yield f"{where}: it moves {moved}, and is in the streams of {[*streams(event)]} only"
        account = accounts.get(event["subject"])
        counterpart = accounts.get(command.to) if command.to else None
        key = event["subject"], str(event["data"].get("hold_id"))
        right = decide(account, command, event["time"], counterpart, holds.get(key))
        if right is None or (right.type, msgspec.to_builtins(right)) != (event["type"], event["data"]):
            yield f"{where}: {event['type']} {event['data']} for {account}, and not {right}"
        if event["type"] == "account-created" and account is None:
            accounts[event["subject"]] = Account(event["data"]["name"], 0)
        elif event["type"] == "overdraft-limit-set" and account is not None:
            accounts[event["subject"]] = replace(account, overdraft_limit=event["data"]["limit"])
        elif event["type"] in STATUSES and account is not None:
            accounts[event["subject"]] = replace(account, status=STATUSES[event["type"]])
        if held := change_of_held(event):
            holds.pop(key, None)
            if held > 0:
                holds[key] = Hold(held, event["data"].get("expires_at"))
            if account is not None:
                holds_open = account.holds + (1 if held > 0 else -1)
                accounts[event["subject"]] = account = replace(account, held=account.held + held, holds=holds_open)
                if min(account.held, account.available + moved.get(event["subject"], 0)) < 0:
                    yield f"{where}: {account.held} are held of {event['subject']}, which has {account.balance}"
        for account_id, change in moved.items():
            before = accounts.get(account_id, Account("", 0))
            if before.balance + change < min(0, -before.overdraft_limit):
                yield f"{where}: the balance of {account_id} is {before.balance + change}"
            if account_id in accounts:
                accounts[account_id] = replace(before, balance=before.balance + change)


def check_operations(operations: Sequence[Operation], log: Sequence[CloudEvent]) -> Iterator[str]:
    """Acknowledged: there once, as the client was told. Refused: not there. Unknown: there once or not at all."""
    found: dict[str, list[CloudEvent]] = defaultdict(list)
    for event in log:
        if KINDS[event["type"]] != "expire-hold":  # which no client has asked for
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
            asked = (operation.kind, operation.account, operation.amount, operation.to)
            amount = amount_of(event)
            if operation.kind in ("capture", "release") and operation.amount is None:
                amount = None  # all of it
            done = (KINDS[event["type"]], event["subject"], amount, event["data"].get("to"))
            if asked != done:
                yield f"{what} asked for {asked}, the log has {done}"
        for answer in operation.answers:
            told = (answer["position"], answer.get("event_id"), answer.get("version"), answer.get("balance"))
            there = [
                (
                    int(event["sequence"]),
                    event["id"] if "event_id" in answer else None,
                    event["accountversion"] if "version" in answer else None,
                    balances[int(event["sequence"])].get(event["subject"]) if "balance" in answer else None,
                )
                for event in events
            ]
            if told not in there:
                yield f"{what} was told (position, event, version, balance) {told}, the log has {there}"
            counterparts: list[object] = [
                {"account_id": account_id, "balance": balances[int(event["sequence"])][account_id], "version": version}
                for event in events
                for account_id, version in streams(event).items()
                if account_id != event["subject"]
            ]
            if [answer.get("counterpart")] != (counterparts or [None]):
                yield f"{what} was told {answer.get('counterpart')} of its counterpart, the log has {counterparts}"
            if "reason" in answer and [answer["reason"]] != [event["data"].get("reason") for event in events]:
                yield f"{what} was told {answer['reason']}, the log has another reason"
    for operation_id_, events in found.items():
        yield f"{operation_id_!r} at {[event['sequence'] for event in events]} was sent by nobody"


class Moment(NamedTuple):
    """When somebody was told how far the log is; or when a request was sent, and how far it can have been then."""

    time: float
    position: int
    what: Operation | Read


def check_order(history: History, log: Sequence[CloudEvent]) -> Iterator[str]:
    """In real time: no command that was sent after an answer has a position up to the one that the answer told of.

    With `check_log`, by which the order of positions is one in which the commands can have been decided one at a time,
    this makes them strictly serializable.
    """
    operations = {operation.id: operation for operation in history.operations}
    told, sent = when_answered(history.reads), list[Moment]()
    for event in log:
        operation, position = operations.get(operation_id(event)), int(event["sequence"])
        if operation is None:
            continue
        if (answered := operation.answered) is not None:
            told.append(Moment(answered, position, operation))
        if (first_sent := operation.sent) is not None:
            sent.append(Moment(first_sent, position - 1, operation))
    for before, after in contradictions(told, sent):
        yield (
            f"{named(after.what)} has position {after.position + 1}, "
            f"but was sent after the answer to {named(before.what)} told of {before.position}"
        )


def check_reads(history: History) -> Iterator[str]:
    """Views never go back, nor does a session that passes on what it has seen; at one position all are the same."""
    states: dict[tuple[int, str | None], Read] = {}
    of_views: dict[str, list[Read]] = defaultdict(list)
    of_session: dict[int, list[Read]] = defaultdict(list)
    told: dict[int, list[Moment]] = defaultdict(list)
    for read in history.reads:
        of_views[read.views].append(read)
        of_session[read.session].append(read)
        if read.min_position is not None and read.position < read.min_position:
            yield f"{named(read)} is at {read.position}, older than the {read.min_position} that was asked for"
        other = states.setdefault((read.position, read.account), read)
        if read.body != other.body:
            yield f"at {read.position}, {named(other)} is {other.body}, and {named(read)} is {read.body}"
    for operation in history.operations:
        if (answered := operation.answered) is not None:
            told[operation.session].append(Moment(answered, operation.answers[0]["position"], operation))
    for views, reads in of_views.items():
        for before, after in contradictions(when_answered(reads), when_sent(reads)):
            yield went_back(views, before, after)
    for session, reads in of_session.items():
        passed_on = [read for read in reads if read.min_position is not None]
        for before, after in contradictions([*told[session], *when_answered(reads)], when_sent(passed_on)):
            yield went_back(f"session {session}", before, after)


def when_sent(reads: Iterable[Read]) -> list[Moment]:
    return [Moment(read.sent, read.position, read) for read in reads]


def when_answered(reads: Iterable[Read]) -> list[Moment]:
    return [Moment(read.answered, read.position, read) for read in reads]


def contradictions(told: Iterable[Moment], sent: Iterable[Moment]) -> Iterator[tuple[Moment, Moment]]:
    """Of `sent` what cannot be after all that was told before, each with the furthest that was. O(n log n)."""
    furthest: Moment | None = None
    earlier = sorted(told, key=lambda moment: moment.time, reverse=True)
    for moment in sorted(sent, key=lambda moment: moment.time):
        while earlier and earlier[-1].time < moment.time:
            known = earlier.pop()
            if furthest is None or known.position > furthest.position:
                furthest = known
        if furthest is not None and furthest.position > moment.position:
            yield furthest, moment


def check_states(log: Sequence[CloudEvent], reads: Sequence[Read], views: Sequence[View]) -> Iterator[str]:
    """Each answer to a query, and each whole view, is the fold of the log up to the position it names."""
    accounts: dict[str, Body] = {}
    reserve: Body = {"amount": 0, "last_updated": None}
    asked: dict[int, list[Read]] = defaultdict(list)
    for read in reads:
        asked[read.position].append(read)
    for position in range(len(log) + 1):
        if position:
            reserve = fold(accounts, reserve, log[position - 1])
        for read in asked.pop(position, []):
            state = reserve if read.account is None else accounts.get(read.account)
            if read.body != state:
                yield f"{named(read)} at {position} is {read.body}, the log says {state}"
        for view in views:
            if view.position == position:
                for account in accounts.keys() | view.accounts.keys():
                    if view.accounts.get(account) != accounts.get(account):
                        yield (
                            f"a view at {position} has {view.accounts.get(account)} for {account}, "
                            f"the log says {accounts.get(account)}"
                        )
                if view.reserve != reserve:
                    yield f"a view at {position} has the reserve {view.reserve}, the log says {reserve}"
    for position in [*asked, *(view.position for view in views if view.position > len(log))]:
        yield f"a view was at {position}, the log ends at {len(log)}"
    for one in views:
        for other in views:
            if one.position == other.position and one != other:
                yield f"two views at {one.position} differ"


def fold(accounts: dict[str, Body], reserve: Body, event: CloudEvent) -> Body:
    """Bring `accounts` to where `event` leaves them; the reserve after it."""
    moved, time = changes(event), event["time"]
    if event["type"] == "account-created":
        account_id, name = event["subject"], event["data"]["name"]
        accounts[account_id] = {"id": account_id, "name": name, "balance": 0, "available": 0, "overdraft_limit": 0}
        accounts[account_id].update(held=0, status="open", last_updated=time)
    for account_id, version in streams(event).items():
        if account_id in accounts:
            accounts[account_id] = account = {**accounts[account_id], "version": version}
            if account_id in moved:
                account.update(balance=account["balance"] + moved[account_id], last_updated=time)
            if account_id == event["subject"] and change_of_held(event):
                account.update(held=account["held"] + change_of_held(event), last_updated=time)
            elif event["type"] == "overdraft-limit-set":
                account.update(overdraft_limit=event["data"]["limit"], last_updated=time)
            elif event["type"] in STATUSES:
                account.update(status=STATUSES[event["type"]], last_updated=time)
            account["available"] = account["balance"] - account["held"] + account["overdraft_limit"]
    if not sum(moved.values()):
        return reserve
    return {"amount": reserve["amount"] + sum(moved.values()), "last_updated": time}


def balances_after_each(log: Sequence[CloudEvent]) -> dict[int, dict[str, int]]:
    """Of the accounts in whose streams the event is, by its position; without those that do not exist."""
    balances: dict[str, int] = {}
    after: dict[int, dict[str, int]] = {}
    for event in log:
        if event["type"] == "account-created":
            balances[event["subject"]] = 0
        for account_id, change in changes(event).items():
            if account_id in balances:
                balances[account_id] += change
        after[int(event["sequence"])] = {one: balances[one] for one in streams(event) if one in balances}
    return after


def streams(event: CloudEvent) -> dict[str, int]:
    """The accounts in whose streams it is, and its version there."""
    of_counterpart = {event["counterpart"]: event["counterpartversion"]} if "counterpart" in event else {}
    return {event["subject"]: event["accountversion"], **of_counterpart}


def changes(event: CloudEvent) -> dict[str, int]:
    """Of balances, in cents."""
    match event["type"]:
        case "amount-deposited":
            return {event["subject"]: int(event["data"]["amount"])}
        case "amount-withdrawn":
            return {event["subject"]: -int(event["data"]["amount"])}
        case "money-transferred":
            amount = int(event["data"]["amount"])
            return {event["subject"]: -amount, event["data"]["to"]: amount}
        case "hold-captured":
            amount = int(event["data"]["amount"])
            of_counterpart = {event["data"]["to"]: amount} if "to" in event["data"] else {}
            return {event["subject"]: -amount, **of_counterpart}
        case _:
            return {}


def change_of_held(event: CloudEvent) -> int:
    """Of the account that it is of, in cents."""
    match event["type"]:
        case "hold-placed":
            return int(event["data"]["amount"])
        case "hold-captured":
            return -int(event["data"]["amount"]) - int(event["data"]["released"])
        case "hold-released" | "hold-expired":
            return -int(event["data"]["amount"])
        case _:
            return 0


def still_to_expire(log: Sequence[CloudEvent]) -> list[str]:
    """The open holds that are to expire, in a sentence each."""
    found: dict[tuple[str, str], str] = {}
    for event in log:
        if change_of_held(event):
            key = event["subject"], event["data"]["hold_id"]
            found.pop(key, None)
            if "expires_at" in event["data"]:
                found[key] = (
                    f"the hold {key[1]} of {key[0]} was to expire at {event['data']['expires_at']}, and is open"
                )
    return list(found.values())


def went_back(who: str, before: Moment, after: Moment) -> str:
    return (
        f"{who} went back: {named(after.what)} is at {after.position}, "
        f"but was sent after the answer to {named(before.what)} told of {before.position}"
    )


def named(what: Operation | Read) -> str:
    if isinstance(what, Operation):
        return f"the {what.kind} {what.id!r}"
    account = "the reserve" if what.account is None else what.account
    return f"the read of {account} in {what.views} by session {what.session}"


def amount_of(event: CloudEvent) -> int | None:
    data: Body = event["data"]
    amount: int | None = data.get("limit", data.get("amount"))
    return amount


def operation_id(event: CloudEvent) -> str:
    data = event["data"]
    if "limit" in data:
        return f"limit-{data['limit']}"
    if KINDS[event["type"]] in ("capture", "release", "expire-hold"):
        return f"{KINDS[event['type']]}-{data['hold_id']}"
    return str(data["description"] if "description" in data else data["name"])


def command_of(event: CloudEvent) -> Command | ExpireHold:
    """The command that led to `event`."""
    account_id, data = AccountId(event["subject"]), event["data"]
    match KINDS[event["type"]]:
        case "create-account":
            return CreateAccount(data["name"], account_id)
        case "deposit":
            return Deposit(account_id, data["amount"], data["description"])
        case "transfer":
            return Transfer(account_id, data["to"], data["amount"], data["description"])
        case "hold":
            hold_id, expires_at = HoldId(data["hold_id"]), data.get("expires_at")
            return PlaceHold(account_id, data["amount"], hold_id, expires_at, data["description"])
        case "capture":
            return Capture(account_id, HoldId(data["hold_id"]), data.get("amount"), data.get("to"))
        case "release":
            return Release(account_id, HoldId(data["hold_id"]))
        case "expire-hold":
            return ExpireHold(account_id, HoldId(data["hold_id"]))
        case "set-overdraft-limit":
            return SetOverdraftLimit(account_id, data["limit"])
        case "freeze":
            return Freeze(account_id, data["description"])
        case "unfreeze":
            return Unfreeze(account_id, data["description"])
        case "close":
            return Close(account_id, data["description"])
        case _:
            return Withdraw(account_id, data["amount"], data["description"])
