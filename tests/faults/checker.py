"""Decides from the clients' history, the log and the views whether the bank kept its promises."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from command_service.ledger.account import Account, Hold, decide
from command_service.ledger.commands import (
    Capture,
    Close,
    Command,
    CreateAccount,
    Deposit,
    ExpireHold,
    Freeze,
    PlaceHold,
    Release,
    SetOverdraftLimit,
    Transfer,
    Unfreeze,
    Withdraw,
    rejected,
)
from shared.events import USD, AccountId, Event, HoldId, Reason, Version
from tests.faults.history import Body, History, Operation, Read, View

CloudEvent = dict[str, Any]
HoldKey = tuple[str, str]
"""The account and the hold's id."""

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
LINKED: Reason = "linked-command-rejected"
STATUSES = {"account-frozen": "frozen", "account-unfrozen": "open", "account-closed": "closed"}


def check(history: History, log: Sequence[CloudEvent], views: Sequence[View]) -> list[str]:
    """Every violation, in a sentence each."""
    return [
        *check_log(log),
        *check_operations(history.operations, log),
        *check_atomic(history.operations, log),
        *check_order(history, log),
        *check_reads(history),
        *check_pool(history, views),
        *check_states(log, history.reads, views),
    ]


def check_log(log: Sequence[CloudEvent]) -> Iterator[str]:
    """Positions and versions without a hole, no event twice, and each decision right after the events before it."""
    versions: dict[str, int] = defaultdict(int)
    accounts: dict[str, Account] = {}
    holds: dict[HoldKey, Hold] = {}
    ids: set[str] = set()
    expected = 0
    for _, group in groupby(log, request_id):
        request = list(group)
        together = decided_together(request, accounts, versions, holds) if any(map(is_linked, request)) else None
        for number, event in enumerate(request):
            expected += 1
            where = f"position {event['sequence']}"
            if int(event["sequence"]) != expected:
                yield f"{where}: {expected} belongs there"
            before = Version(versions[event["subject"]])
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
            other = accounts.get(command.to) if command.to else None
            hold = holds.get(hold_key(event))
            right = together[number] if together else decide(account, before, command, event["time"], other, hold)
            if right is None or (right.type, msgspec.to_builtins(right)) != (event["type"], event["data"]):
                yield f"{where}: {event['type']} {event['data']} for {account}, and not {right}"
            settle(accounts, holds, event)
            for account_id, change in moved.items():
                after = accounts.get(account_id, Account(change))
                if after.balance < min(0, -after.overdraft_limit):
                    yield f"{where}: the balance of {account_id} is {after.balance}"
            if change_of_held(event) and account is not None:
                after = accounts[event["subject"]]
                if min(after.held, after.available) < 0:
                    yield f"{where}: {after.held} are held of {event['subject']}, which has {after.balance}"


def settle(accounts: MutableMapping[str, Account], holds: MutableMapping[HoldKey, Hold], event: CloudEvent) -> None:
    """Bring `accounts`, and the open `holds`, to where `event` leaves them."""
    account, data = accounts.get(event["subject"]), event["data"]
    if event["type"] == "account-created" and account is None:
        accounts[event["subject"]] = Account(asset=data.get("asset"))
    elif event["type"] == "overdraft-limit-set" and account is not None:
        accounts[event["subject"]] = replace(account, overdraft_limit=data["limit"])
    elif event["type"] in STATUSES and account is not None:
        accounts[event["subject"]] = replace(account, status=STATUSES[event["type"]])
    if held := change_of_held(event):
        holds.pop(hold_key(event), None)
        if held > 0:
            holds[hold_key(event)] = Hold(held, data.get("expires_at"))
        if account is not None:
            holds_open = account.holds + (1 if held > 0 else -1)
            accounts[event["subject"]] = replace(account, held=account.held + held, holds=holds_open)
    for account_id, change in changes(event).items():
        if account_id in accounts:
            before = accounts[account_id]
            accounts[account_id] = replace(before, balance=before.balance + change)


def decided_together(
    request: Sequence[CloudEvent],
    accounts: Mapping[str, Account],
    versions: Mapping[str, int],
    holds: Mapping[HoldKey, Hold],
) -> list[Event]:
    """What the commands of an atomic request that was rejected come to: they are tried in order, on a copy."""
    tried, tried_versions, tried_holds = dict(accounts), defaultdict(int, versions), dict(holds)
    commands, accepted = [command_of(event) for event in request], list[Event]()
    for number, (event, command) in enumerate(zip(request, commands, strict=True)):
        subject, version = event["subject"], Version(tried_versions[event["subject"]])
        other = tried.get(command.to) if command.to else None
        hold = tried_holds.get(hold_key(event))
        right = decide(tried.get(subject), version, command, event["time"], other, hold)
        assert right is not None
        data = msgspec.to_builtins(right)
        if "reason" in data:
            return [right if n == number else rejected(one, LINKED) for n, one in enumerate(commands)]
        accepted.append(right)
        settle(tried, tried_holds, {"subject": subject, "type": right.type, "data": data})
        for account_id in {subject, data.get("to", subject)}:
            tried_versions[account_id] += 1
    return accepted


def check_atomic(operations: Sequence[Operation], log: Sequence[CloudEvent]) -> Iterator[str]:
    """All or nothing: of an atomic request all is accepted or nothing, and one event follows another."""
    events = {operation_id(event): event for event in log}
    atomic = [operation for operation in operations if operation.atomic is not None]
    for name, group in groupby(atomic, lambda operation: operation.atomic):
        asked = list(group)
        done = [events[operation.id] for operation in asked if operation.id in events]
        positions = [int(event["sequence"]) for event in done]
        if done and len(done) < len(asked):
            yield f"of the {len(asked)} commands of {name} only {len(done)} are in the log: {positions}"
        if positions and positions != list(range(positions[0], positions[0] + len(positions))):
            yield f"the commands of {name} are not one after the other, in order: {positions}"
        reasons = [event["data"].get("reason") for event in done]
        if any(reasons) and (None in reasons or len(reasons) - reasons.count(LINKED) != 1):
            yield f"{name} is neither accepted nor rejected as a whole: {reasons}"
    alone = {operation.id for operation in operations if operation.atomic is None}
    for event in log:
        if is_linked(event) and operation_id(event) in alone:
            yield f"{operation_id(event)!r} is not of an atomic request, and is rejected as one of it"


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
            data = event["data"]
            amount = amount_of(event)
            if operation.kind in ("capture", "release") and operation.amount is None:
                amount = None  # all of it
            asked = (operation.kind, operation.account, operation.amount, operation.to, operation.asset)
            done = (KINDS[event["type"]], event["subject"], amount, data.get("to"), data.get("asset"))
            if asked != done:
                yield f"{what} asked for {asked}, the log has {done}"
            if operation.metadata != data.get("metadata"):
                yield f"{what} has the metadata {operation.metadata}, the log {data.get('metadata')}"
            hold = operation.hold_id, operation.expires_at
            if hold != (data.get("hold_id"), data.get("expires_at")):
                yield f"{what} is of the hold {hold}, the log has {data}"
            is_rejected = "reason" in data
            version = data.get("if_version") if is_rejected else event["accountversion"] - 1
            if operation.if_version != version and (is_rejected or operation.if_version is not None):
                yield f"{what} was for version {operation.if_version}, the log has {version}"
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
            if "asset" in answer and [answer["asset"]] != [event["data"].get("asset", USD) for event in events]:
                yield f"{what} was told {answer['asset']}, the log has another asset"
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


def check_pool(history: History, views: Sequence[View]) -> Iterator[str]:
    """Where all accounts of the pool were read, they have together what was put in: no log is asked for that."""
    pool = history.pool
    if pool is None:
        return
    whole = [(f"at {position}", balances) for position, balances in whole_pools(history).items()]
    for view in views:
        found = [view.accounts.get(account) for account in pool.accounts]
        whole.append((f"in a view at {view.position}", [body["balance"] if body else None for body in found]))
    for where, balances in whole:
        if sum(balance or 0 for balance in balances) != pool.total:
            yield f"{where} the pool has {balances}, and not {pool.total} together"


def whole_pools(history: History) -> dict[int, list[int | None]]:
    """The balances of the pool by position, where all its accounts were read: once, or several times in any views."""
    if history.pool is None:
        return {}
    found: dict[int, dict[str, int | None]] = defaultdict(dict)
    for read in history.reads:
        if read.account and read.account in history.pool.accounts and read.position >= history.pool.since:
            found[read.position][read.account] = read.body["balance"] if isinstance(read.body, dict) else None
    return {
        position: [*balances.values()]
        for position, balances in found.items()
        if len(balances) == len(history.pool.accounts)
    }


def check_states(log: Sequence[CloudEvent], reads: Sequence[Read], views: Sequence[View]) -> Iterator[str]:
    """Each answer to a query, and each whole view, is the fold of the log up to the position it names."""
    accounts: dict[str, Body] = {}
    reserves: list[Body] = [{"asset": USD, "amount": 0, "last_updated": None}]
    asked: dict[int, list[Read]] = defaultdict(list)
    for read in reads:
        asked[read.position].append(read)
    for position in range(len(log) + 1):
        if position:
            reserves = fold(accounts, reserves, log[position - 1])
        for read in asked.pop(position, []):
            state = reserves if read.account is None else accounts.get(read.account)
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
                if view.reserves != reserves:
                    yield f"a view at {position} has the reserves {view.reserves}, the log says {reserves}"
    for position in [*asked, *(view.position for view in views if view.position > len(log))]:
        yield f"a view was at {position}, the log ends at {len(log)}"
    for one in views:
        for other in views:
            if one.position == other.position and one != other:
                yield f"two views at {one.position} differ"


def fold(accounts: dict[str, Body], reserves: Iterable[Body], event: CloudEvent) -> list[Body]:
    """Bring `accounts` to where `event` leaves them; the reserves after it, in the order of their assets."""
    moved, time = changes(event), event["time"]
    by_asset, sums = {reserve["asset"]: reserve for reserve in reserves}, Counter[str]()
    if event["type"] == "account-created":
        account_id, name, asset = event["subject"], event["data"]["name"], event["data"].get("asset", USD)
        accounts[account_id] = {"id": account_id, "name": name, "asset": asset, "balance": 0, "held": 0, "available": 0}
        accounts[account_id].update(overdraft_limit=0, status="open", last_updated=time)
        by_asset.setdefault(asset, {"asset": asset, "amount": 0, "last_updated": None})
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
    for account_id, change in moved.items():
        sums[accounts[account_id]["asset"] if account_id in accounts else USD] += change
    for asset, change in sums.items():
        if change:
            by_asset[asset] = {"asset": asset, "amount": by_asset[asset]["amount"] + change, "last_updated": time}
    return [by_asset[asset] for asset in sorted(by_asset)]


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


def hold_key(event: CloudEvent) -> HoldKey:
    return event["subject"], str(event["data"].get("hold_id"))


def still_to_expire(log: Sequence[CloudEvent]) -> list[str]:
    """The open holds that are to expire, in a sentence each."""
    found: dict[HoldKey, str] = {}
    for event in log:
        if change_of_held(event):
            key = hold_key(event)
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
    account = "the reserves" if what.account is None else what.account
    return f"the read of {account} in {what.views} by session {what.session}"


def amount_of(event: CloudEvent) -> int | None:
    data: Body = event["data"]
    amount: int | None = data.get("limit", data.get("amount"))
    return amount


def request_id(event: CloudEvent) -> str:
    """Alike for all events of one request, and for no others."""
    request, slash, _ = str(event["commandid"]).rpartition("/")
    return request if slash else f"{event['commandid']} alone"


def is_linked(event: CloudEvent) -> bool:
    return bool(event["data"].get("reason") == LINKED)


def operation_id(event: CloudEvent) -> str:
    data = event["data"]
    if "limit" in data:
        return f"limit-{data['limit']}"
    if KINDS[event["type"]] in ("capture", "release", "expire-hold"):
        return f"{KINDS[event['type']]}-{data['hold_id']}"
    return str(data["description"] if "description" in data else data["name"])


def command_of(event: CloudEvent) -> Command | ExpireHold:
    """The command that led to `event`."""
    asked = {name: value for name, value in event["data"].items() if name in ("metadata", "if_version")}
    return replace(plain_command_of(event), **asked)


def plain_command_of(event: CloudEvent) -> Command | ExpireHold:
    """Without what any command may carry."""
    account_id, data = AccountId(event["subject"]), event["data"]
    match KINDS[event["type"]]:
        case "create-account":
            return CreateAccount(data["name"], account_id, data.get("asset"))
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
