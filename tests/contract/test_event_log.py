"""What every event log promises."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from command_service.event_log import BEFORE_ALL, CLERK_LEASE_SECONDS, Answer, Append, EventLog, Lease
from command_service.event_log.runs import RUN_BYTES_MAX, RUN_EVENTS_MAX, Run
from command_service.ledger.account import Account, Hold
from command_service.ledger.states import HoldKey, State, encode_account
from shared.chain import CHAIN_START, START, ChainAt, extend
from shared.events import AccountCreated, AccountId, HoldId, Position, Version
from tests.contract.conftest import OpenEventLog
from tests.examples import ALICE, BOB, CREATED, DEPOSIT_REJECTED, DEPOSITED, HOLD, INT64_MAX, WITHDRAWN, at, logged

ALL = 1_000_000
"""Events or bytes: more than any test has."""
LOG = [
    logged(1, CREATED, ALICE, 1),
    logged(2, DEPOSIT_REJECTED, BOB, 1),
    logged(3, DEPOSITED, ALICE, 2),
    logged(4, AccountCreated("Bob"), BOB, 2),
    logged(5, WITHDRAWN, ALICE, 3),
]
TIME = "2026-01-01T00:00:05.000000Z"


def state(version: int, account: Account | None = None) -> State:
    return State(Version(version), encode_account(account))


STATES = {ALICE: state(3, Account(70)), BOB: state(2, Account(0))}
STATES_OF_TWO = {ALICE: state(1, Account(0)), BOB: state(1)}
ANSWER = Answer(b"\x00\xff fingerprint", '[{"type":"account-created","name":"Zoë 🏦"}]'.encode())
LONG_ANSWER = Answer(b"", b"[" + b'"long",' * 10_000 + b'"end"]')


async def answers_of(append: Append) -> dict[str, Answer]:
    """Those that it has read, whole."""
    outcomes = await append.outcomes(append.answers.keys())
    answers = {key: Answer(kept.fingerprint, outcomes[key]) for key, kept in append.answers.items()}
    assert {key: answer.digest(key) for key, answer in answers.items()} == {
        key: kept.digest for key, kept in append.answers.items() if kept.is_of(key)
    }
    return answers


async def record(
    log: EventLog,
    events: Sequence[bytes],
    states: Mapping[AccountId, State] | None = None,
    answers: Mapping[str, Answer] | None = None,
) -> None:
    async with log.append(set(), set()) as append:
        await append.commit(events, TIME, states or {}, answers or {})


async def stored(log: EventLog) -> list[bytes]:
    """The whole log; its head is where it ends, and the chain is over all of it."""
    page = await log.read(Position(0), ALL, ALL)
    assert await log.head() == page.end.position == len(page.events)
    assert page.end.chain == extend(CHAIN_START, page.events)
    return page.events


async def assert_appends_go_on(log: EventLog) -> None:
    """After some trouble: the next append writes one event at the head, and it is there."""
    before = await stored(log)
    event = logged(len(before) + 1, CREATED, AccountId("next"), 1)
    async with log.append({AccountId("next")}, set()) as append:
        assert append.head.position == len(before)
        await append.commit([event], TIME, {}, {})
    assert await stored(log) == [*before, *[event]]


async def test_a_new_log_is_empty(event_log: EventLog) -> None:
    assert await stored(event_log) == []
    assert await published(event_log) == 0
    async with event_log.append({ALICE}, {"key"}) as append:
        assert (append.head.position, append.states, await answers_of(append)) == (0, {}, {})


async def test_what_is_committed_is_there_byte_for_byte(event_log: EventLog) -> None:
    await record(event_log, LOG)
    assert await stored(event_log) == LOG


async def test_an_append_reads_the_states_and_answers_asked_for(event_log: EventLog) -> None:
    rejected_only = AccountId("carol")
    states = {
        ALICE: state(3, Account(INT64_MAX)),
        BOB: state(2, Account(0)),
        rejected_only: state(1),
    }
    events = [*LOG, logged(6, DEPOSIT_REJECTED, rejected_only, 1)]
    await record(event_log, events, states, {"key": ANSWER, "other": ANSWER})
    async with event_log.append({ALICE, rejected_only, AccountId("unknown")}, {"key", "unknown"}) as append:
        assert append.head.position == 6
        assert append.states == {ALICE: states[ALICE], rejected_only: states[rejected_only]}
        assert await answers_of(append) == {"key": ANSWER}


async def test_a_stream_is_replaced_by_its_next_state(event_log: EventLog) -> None:
    await record(event_log, LOG[:2], STATES_OF_TWO)
    await record(event_log, LOG[2:], STATES)
    async with event_log.append({ALICE, BOB}, set()) as append:
        assert append.states == STATES


async def test_an_append_takes_as_many_accounts_and_keys_as_a_transaction_has(event_log: EventLog) -> None:
    accounts = [AccountId(f"account-{number}") for number in range(10_000)]
    events = [logged(position, CREATED, account, 1) for position, account in enumerate(accounts, 1)]
    states = {account: state(1, Account(0)) for account in accounts}
    answers = {f"key-{number}": ANSWER for number in range(10_000)}
    await record(event_log, events, states, answers)
    async with event_log.append(accounts, answers.keys()) as append:
        assert (append.head.position, append.states, await answers_of(append)) == (10_000, states, answers)


async def test_an_append_without_events_keeps_its_answers_and_moves_nothing(event_log: EventLog) -> None:
    await record(event_log, LOG, STATES)
    for answers in ({"key": ANSWER}, {}):
        await record(event_log, [], {}, answers)
        async with event_log.append({ALICE, BOB}, {"key"}) as append:
            assert (append.head.position, append.states, await answers_of(append)) == (5, STATES, {"key": ANSWER})
    assert await stored(event_log) == LOG
    await assert_appends_go_on(event_log)


async def test_leaving_without_commit_writes_nothing(event_log: EventLog) -> None:
    async with event_log.append({ALICE}, set()):
        pass
    await assert_appends_go_on(event_log)


async def test_an_error_while_appending_writes_nothing_and_is_raised(event_log: EventLog) -> None:
    with pytest.raises(ZeroDivisionError):
        async with event_log.append({ALICE}, set()):
            raise ZeroDivisionError
    await assert_appends_go_on(event_log)


async def test_nobody_sees_an_append_before_its_commit(event_log: EventLog) -> None:
    await record(event_log, LOG[:2], STATES_OF_TWO)
    async with event_log.append({ALICE, BOB}, set()) as append:
        assert await stored(event_log) == LOG[:2]
        await append.commit(LOG[2:], TIME, STATES, {})
        assert await stored(event_log) == LOG


async def test_an_answer_cannot_be_written_again(event_log: EventLog) -> None:
    """A bug, and not a trouble of the store's that passes when one tries again."""
    await record(event_log, LOG, STATES, {"key": ANSWER})
    with pytest.raises(ValueError, match=r"\S"):
        await record(
            event_log, [logged(6, DEPOSITED, ALICE, 4)], {ALICE: state(9)}, {"key": ANSWER, "new": Answer(b"", b"[]")}
        )
    async with event_log.append({ALICE, BOB}, {"key", "new"}) as append:
        assert (append.states, await answers_of(append)) == (STATES, {"key": ANSWER})
    assert await stored(event_log) == LOG
    await assert_appends_go_on(event_log)


async def test_the_time_of_the_last_event_is_kept(event_log: EventLog) -> None:
    for events in ([], LOG):
        async with event_log.append(set(), set()) as append:
            assert append.time == ""
            await append.commit(events, TIME if events else append.time, {}, {})
    async with event_log.append(set(), set()) as append:
        assert append.time == TIME


async def test_long_answers_are_kept_too(event_log: EventLog) -> None:
    answers = {"long": LONG_ANSWER, "short": ANSWER}
    await record(event_log, [], {}, answers)
    async with event_log.append(set(), answers.keys()) as append:
        assert await answers_of(append) == answers


async def test_an_append_that_is_cancelled_is_whole_or_not_there(event_log: EventLog) -> None:
    """At whatever moment it is cancelled: the sleeps let it come a little further each time."""
    for moment in range(30):
        before = await stored(event_log)
        number = len(before)
        account_id = AccountId(f"{moment}")
        run = [logged(number + 1, CREATED, account_id, 1), logged(number + 2, DEPOSITED, account_id, 2)]
        appending = asyncio.create_task(record(event_log, run, {account_id: state(2, Account(100))}))
        for _ in range(moment // 3):
            await asyncio.sleep(0.0001)
        appending.cancel()
        await asyncio.wait([appending])
        async with event_log.append({ALICE}, set()):
            pass  # a server may still be at it: whoever has the lock next comes after its end
        assert await stored(event_log) in (before, before + run)
        await assert_appends_go_on_as(event_log, AccountId(f"after-{moment}"))


async def assert_appends_go_on_as(log: EventLog, account_id: AccountId) -> None:
    async with log.append({account_id}, set()) as append:
        before = append.head.position
        await append.commit([logged(before + 1, CREATED, account_id, 1)], TIME, {}, {})
    assert len(await stored(log)) == before + 1


async def test_an_append_that_is_cancelled_before_its_commit_is_not_there(event_log: EventLog) -> None:
    begun = asyncio.Event()

    async def begin() -> None:
        async with event_log.append({ALICE}, set()):
            begun.set()
            await asyncio.Event().wait()

    appending = asyncio.create_task(begin())
    await begun.wait()
    appending.cancel()
    await asyncio.wait([appending])
    assert appending.cancelled()
    assert await stored(event_log) == []
    await assert_appends_go_on(event_log)


async def test_two_appends_wait_for_each_other(event_log: EventLog) -> None:
    """`Append` holds the lock on the head: positions go on, whoever comes first."""

    async def add(account_id: AccountId, number: int) -> None:
        async with event_log.append({account_id}, set()) as append:
            first = append.head.position + 1
            await asyncio.sleep(0)
            await append.commit([logged(first + n, CREATED, account_id, n + 1) for n in range(number)], TIME, {}, {})

    async with asyncio.timeout(30):
        await asyncio.gather(add(ALICE, 1), add(BOB, 3))
    assert len(await stored(event_log)) == 4
    await assert_appends_go_on(event_log)


SIZES = [len(event) for event in LOG]


@pytest.mark.parametrize(
    ("after", "events_max", "bytes_max", "positions"),
    [
        (0, ALL, ALL, [1, 2, 3, 4, 5]),
        (3, ALL, ALL, [4, 5]),
        (5, ALL, ALL, []),
        (99, ALL, ALL, []),
        (0, 2, ALL, [1, 2]),
        (0, 0, ALL, []),
        (3, 0, ALL, []),
        (99, 0, ALL, []),
        (2, 1, ALL, [3]),
        (0, ALL, 1, [1]),
        (3, ALL, 0, [4]),
        (0, ALL, SIZES[0], [1]),
        (0, ALL, SIZES[0] + SIZES[1] - 1, [1]),
        (0, ALL, SIZES[0] + SIZES[1], [1, 2]),
        (1, ALL, SIZES[1] + SIZES[2] + SIZES[3], [2, 3, 4]),
        (1, 2, SIZES[1] + SIZES[2] + SIZES[3], [2, 3]),
    ],
)
async def test_the_log_is_read_in_pages_of_limited_size_but_never_empty_ones(
    event_log: EventLog, after: int, events_max: int, bytes_max: int, positions: list[int]
) -> None:
    await record(event_log, LOG)
    page = await event_log.read(Position(after), events_max, bytes_max)
    assert page.events == [LOG[position - 1] for position in positions]
    last = positions[-1] if positions else min(after, 5)
    assert page.end == ChainAt(Position(last), extend(CHAIN_START, LOG[:last]))


@pytest.mark.parametrize("appends", [1, 3, 400])
async def test_a_long_log_is_read_from_any_position_on_with_its_chain(event_log: EventLog, appends: int) -> None:
    """Whatever the runs are: full ones, short ones, and one for each event."""
    log = [logged(position, DEPOSIT_REJECTED) for position in range(1, 401)]
    for first in range(0, len(log), len(log) // appends):
        await record(event_log, log[first : first + len(log) // appends])
    chains = [CHAIN_START]
    for event in log:
        chains.append(extend(chains[-1], [event]))
    for after in (0, 1, 31, 127, 128, 129, 132, 133, 134, 200, 255, 256, 257, 399, 400):
        for events_max in (0, 1, 2, 127, 128, 129, ALL):
            for bytes_max in (1, len(log[0]) * 130, ALL):
                page = await event_log.read(Position(after), events_max, bytes_max)
                assert page.events == log[after : after + len(page.events)]
                assert page.end == ChainAt(Position(after + len(page.events)), chains[after + len(page.events)])
                assert len(page.events) <= events_max
                assert len(page.events) <= 1 or sum(map(len, page.events)) <= bytes_max
                assert page.events or not events_max or after == 400
    assert await stored(event_log) == log


async def test_runs_have_limits_in_events_and_bytes(event_log: EventLog) -> None:
    large = AccountCreated("x" * (RUN_BYTES_MAX // 3))
    log = [logged(position, large if position > 300 else CREATED) for position in range(1, 311)]
    await record(event_log, log)
    runs: list[Run] = []
    at = START
    while found := await event_log.runs(at.position):
        for run in found:
            assert run.position == at.position + len(run.events)
            assert run.chain == extend(at.chain, run.events)
            at = ChainAt(run.position, run.chain)
        runs += found
    assert [event for run in runs for event in run.events] == log
    assert max(len(run.events) for run in runs) == RUN_EVENTS_MAX
    assert max(sum(map(len, run.events)) for run in runs) <= RUN_BYTES_MAX


OF_ALICE: HoldKey = (ALICE, HOLD)
OF_BOB: HoldKey = (BOB, HOLD)
OTHER_OF_BOB: HoldKey = (BOB, HoldId("\"'] order"))
HOLDS = {OF_ALICE: Hold(60), OF_BOB: Hold(INT64_MAX, at(30)), OTHER_OF_BOB: Hold(1, at(20))}


async def put_holds(log: EventLog, holds: Mapping[HoldKey, Hold | None]) -> None:
    async with log.append(set(), set(), holds.keys()) as append:
        await append.commit([], append.time, {}, {}, holds)


async def listed(log: EventLog) -> dict[HoldKey, Hold]:
    holds: list[tuple[HoldKey, Hold]] = []
    while found := await log.holds(holds[-1][0] if holds else None):
        holds += found
    assert holds == sorted(holds, key=lambda hold: hold[0])
    return dict(holds)


async def test_an_append_reads_the_open_holds_asked_for(open_event_log: OpenEventLog) -> None:
    async with open_event_log() as log:
        await put_holds(log, HOLDS)
    async with open_event_log() as log:
        async with log.append({ALICE}, set(), {OF_ALICE, OTHER_OF_BOB, (ALICE, HoldId("another"))}) as append:
            assert append.holds == {OF_ALICE: HOLDS[OF_ALICE], OTHER_OF_BOB: HOLDS[OTHER_OF_BOB]}
        async with log.append({ALICE}, set()) as append:
            assert append.holds == {}
        assert await listed(log) == HOLDS


async def test_a_hold_is_replaced_by_its_next_form_or_gone(event_log: EventLog) -> None:
    await put_holds(event_log, HOLDS)
    await put_holds(event_log, {OF_ALICE: None, OF_BOB: Hold(7), (ALICE, HoldId("never")): None})
    assert await listed(event_log) == {OF_BOB: Hold(7), OTHER_OF_BOB: HOLDS[OTHER_OF_BOB]}
    assert await event_log.first_expiry() == at(20)
    await put_holds(event_log, {OTHER_OF_BOB: None, OF_ALICE: Hold(5, at(40))})
    assert await listed(event_log) == {OF_BOB: Hold(7), OF_ALICE: Hold(5, at(40))}
    assert await event_log.first_expiry() == at(40)


async def test_holds_that_are_not_committed_are_not_there(event_log: EventLog) -> None:
    await put_holds(event_log, HOLDS)
    with pytest.raises(ZeroDivisionError):
        async with event_log.append(set(), set(), HOLDS.keys()):
            raise ZeroDivisionError
    await record(event_log, [], {}, {"key": ANSWER})
    with pytest.raises(ValueError, match=r"\S"):
        async with event_log.append(set(), set(), HOLDS.keys()) as append:
            await append.commit([], append.time, {}, {"key": ANSWER}, dict.fromkeys(HOLDS))
    assert await listed(event_log) == HOLDS


async def test_an_append_takes_as_many_holds_as_a_transaction_has(event_log: EventLog) -> None:
    holds = {(AccountId(f"account-{n % 7}"), HoldId(f"{n}")): Hold(n + 1, at(n % 60)) for n in range(10_000)}
    await put_holds(event_log, holds)
    async with event_log.append(set(), set(), holds.keys()) as append:
        assert append.holds == holds
    assert await listed(event_log) == holds
    await put_holds(event_log, dict.fromkeys(holds))
    assert await listed(event_log) == {}


async def test_due_holds_are_found_earliest_first_and_those_without_expiry_never(event_log: EventLog) -> None:
    assert await event_log.first_expiry() is None
    assert await event_log.due_holds(BEFORE_ALL, at(59), 10) == []
    await put_holds(event_log, HOLDS)
    assert await event_log.first_expiry() == at(20)
    first, second = (at(20), *OTHER_OF_BOB), (at(30), *OF_BOB)
    for time, due in [(at(19), []), (at(20), [first]), (at(29), [first]), (at(30), [first, second])]:
        assert await event_log.due_holds(BEFORE_ALL, time, 10) == due
    assert await event_log.due_holds(BEFORE_ALL, at(59), 1) == [first]
    assert await event_log.due_holds(first, at(59), 1) == [second]
    assert await event_log.due_holds(second, at(59), 1) == []


async def test_one_clerk_leads_until_it_ends_or_its_lease_does(open_event_log: OpenEventLog) -> None:
    async with open_event_log() as log:
        assert await log.lead_clerk("one")
        assert await log.lead_clerk("one")
        await log.end_clerk_lease("one")
        assert await log.lead_clerk("other")
    async with open_event_log() as log, asyncio.timeout(10 * CLERK_LEASE_SECONDS):
        while not await log.lead_clerk("one"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_states_and_answers_are_listed_in_order(open_event_log: OpenEventLog) -> None:
    states = {AccountId(f"account-{number}"): state(number) for number in range(1, 2500)}
    answers = {f"key {number}": ANSWER for number in range(2500)}
    async with open_event_log() as log:
        await record(log, LOG, states, answers)
    async with open_event_log() as log:
        listed: list[tuple[AccountId, State]] = []
        while found := await log.states(listed[-1][0] if listed else AccountId("")):
            listed += found
        keys: list[str] = []
        while answered := await log.answers(keys[-1] if keys else ""):
            assert all(digest == answer.digest(key) for key, answer, digest in answered)
            keys += [key for key, _, _ in answered]
        assert listed == sorted(states.items())
        assert keys == sorted(answers)
        assert await log.states_position() == 5


async def lead(log: EventLog) -> Lease:
    lease = await log.acquire_lease()
    assert lease is not None
    return lease


async def published(log: EventLog) -> int:
    """As the next relay finds it."""
    lease = await lead(log)
    await log.end_lease(lease, lease.published)
    return lease.published


async def test_the_cursor_of_the_relay_is_kept(event_log: EventLog) -> None:
    await record(event_log, LOG)
    lease = await lead(event_log)
    await event_log.save_published(lease, Position(3))
    await event_log.save_published(lease, Position(4))
    await event_log.end_lease(lease, Position(5))
    assert await event_log.published() == 5
    assert await published(event_log) == 5
    assert await event_log.head() == 5


async def test_the_cursor_is_kept_even_if_an_append_beside_it_is_not(event_log: EventLog) -> None:
    await record(event_log, LOG)
    lease = await lead(event_log)
    async with event_log.append({ALICE}, set()):
        saving = asyncio.create_task(event_log.save_published(lease, Position(3)))
        await asyncio.wait([saving], timeout=0.1)  # a store may make it wait for the append's end
    await saving
    await event_log.end_lease(lease, Position(3))
    assert await published(event_log) == 3


async def test_all_of_it_is_there_when_the_store_is_opened_again(open_event_log: OpenEventLog) -> None:
    async with open_event_log() as log:
        source = log.source
        await record(log, LOG, STATES, {"key": ANSWER})
        await log.end_lease(await lead(log), Position(4))
    async with open_event_log() as log:
        assert log.source == source
        assert await stored(log) == LOG
        assert await published(log) == 4
        async with log.append({ALICE, BOB}, {"key"}) as append:
            assert (append.head.position, append.states, await answers_of(append)) == (5, STATES, {"key": ANSWER})
        await assert_appends_go_on(log)
