"""A projection between its feed and its views, which another replica may move meanwhile; over every view store."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry
from starlette.types import Message

from projection_service import head_watch
from projection_service import projection as projection_module
from projection_service.api import create_api, reacher
from projection_service.batch import Batch, Unproven
from projection_service.feed import PAGE_EVENTS_MAX, Feed, FeedUnavailable, Page
from projection_service.live import STREAMS_MAX, Tail
from projection_service.pipeline import Pipeline
from projection_service.projection import BrokenLedger, ForeignLedger, Projection
from projection_service.subscription import Subscription
from projection_service.view_store import Checkpoint, ViewStore
from projection_service.views import VIEWS
from projection_service.views.history.past import past as past_of
from shared.chain import CHAIN_START, ChainAt, extend
from shared.errors import NotReady, StoreUnavailable
from shared.events import AccountCreated, AmountDeposited, AmountWithdrawn, Event, Position, RecordedEvent
from shared.platform.gate import Gate
from shared.witness import Signer, new_key
from tests.contract.conftest import ChangeViews, OpenViewStore
from tests.examples import CREATED, DEPOSITED, INT64_MAX, SIGNER, SOURCE, WITHDRAWN, recorded
from tests.integration.broker import eventually

LOG = [recorded(1, CREATED), *(recorded(position, DEPOSITED) for position in range(2, 10))]


def end_of(log: Sequence[RecordedEvent]) -> ChainAt:
    return ChainAt(Position(len(log)), extend(CHAIN_START, [event.encoded for event in log]))


class Ledger(Feed):
    """A feed over a list of events, whose answers can be held back after they were made, and changed on their way."""

    def __init__(self, log: Sequence[RecordedEvent] = LOG, signer: Signer = SIGNER) -> None:
        self.name = "the feed"
        self.log = list(log)
        self.signer = signer
        self.answers = asyncio.Event()
        self.answers.set()
        self.asked: asyncio.Queue[Position] = asyncio.Queue()
        self.is_away = False
        self.change: Callable[[Page], Page] = lambda page: page

    async def read(self, after: Position, wait_seconds: float = 0, events_max: int = PAGE_EVENTS_MAX) -> Page:
        if self.is_away:
            raise FeedUnavailable("the feed is away")
        events = self.log[after : after + events_max]
        head = Position(len(self.log))
        end = end_of(self.log[: min(after + len(events), head)])
        page = self.change(Page(Batch(events, end), head, SOURCE, self.signer.public_key, self.signer.sign(end)))
        self.asked.put_nowait(after)
        await self.answers.wait()
        if not events:
            await asyncio.sleep(min(wait_seconds, 0.05))
        return page


async def projection_on(store: ViewStore) -> Projection:
    return Projection(store, list(VIEWS.values()), await store.checkpoint(), CollectorRegistry())


async def fold(projection: Projection, events: Sequence[RecordedEvent]) -> None:
    await projection.apply(list(events), extend(projection.at.chain, [event.encoded for event in events]))


@asynccontextmanager
async def following(projection: Projection, ledger: Ledger, amqp_url: str | None = None) -> AsyncIterator[Subscription]:
    subscription = Subscription(projection, ledger, amqp_url, "guest", "test", CollectorRegistry())
    running = asyncio.create_task(subscription.run())
    try:
        yield subscription
    finally:
        running.cancel()
        await asyncio.wait([running])
        # aiormq closes a connection that was given up half-way when it is collected, in a task: while there is a loop.
        gc.collect()
        await asyncio.sleep(0.01)


async def reach(projection: Projection, position: int) -> None:
    assert await projection.watermark.reach(Position(position), 30)


async def until_not_ready(subscription: Subscription, reason: str) -> str:
    async def said() -> str:
        try:
            return subscription.check_ready()
        except NotReady as error:
            return f"not ready: {error}"

    return await eventually(said, lambda said: said.startswith("not ready") and reason in said, reason)


async def test_an_answer_of_before_another_replica_moved_the_views_is_no_reason_to_stop(
    open_view_store: OpenViewStore,
) -> None:
    """The head of the log as it was asked for is behind where the views are by now."""
    async with open_view_store() as one, open_view_store() as other:
        ledger, projection, replica = Ledger(LOG[:5]), await projection_on(one), await projection_on(other)
        async with following(projection, ledger) as subscription:
            await reach(projection, 5)
            ledger.answers.clear()
            ledger.asked = asyncio.Queue()
            await ledger.asked.get()
            # An answer, with 5 as its head, is on its way.
            ledger.log = list(LOG)
            await replica.refresh()
            await fold(replica, LOG[5:8])
            await projection.refresh()
            assert projection.position == 8
            ledger.answers.set()
            await reach(projection, 9)
            assert subscription.check_ready().startswith("following")


@pytest.mark.parametrize("amqp_url", [None, "amqp://127.0.0.1:1/"], ids=["no broker", "a broker that is away"])
@pytest.mark.parametrize("events", [7, 9], ids=["at its end", "further on"])
@pytest.mark.parametrize("changed", [0, 3, 6])
async def test_a_ledger_with_another_past_than_the_views_stops_the_projection(
    view_store: ViewStore, changed: int, events: int, amqp_url: str | None
) -> None:
    """It was restored from an older copy, or lost commits, and went on: its key is right, its head not behind."""
    log = list(LOG)
    log[changed] = (
        recorded(changed + 1, AmountDeposited(1_000_000, "salary"))
        if changed
        else recorded(1, AccountCreated("Malice"))
    )
    await fold(await projection_on(view_store), log[:7])
    projection = await projection_on(view_store)
    async with following(projection, Ledger(LOG[:events]), amqp_url) as subscription:
        said = await until_not_ready(subscription, "stopped: ")
        assert "the views are at 7, and what the ledger has up to there is not what they were built from" in said
        assert "PROJECTION_NAME" in said
        await asyncio.sleep(0.1)
        assert projection.position == 7


STRANGER = Signer(SOURCE, new_key())


def other_amount(page: Page) -> Page:
    events = [
        *page.batch.events[:-1],
        *(recorded(event.position, AmountDeposited(7, "")) for event in page.batch.events[-1:]),
    ]
    return replace(page, batch=replace(page.batch, events=events))


CHANGES: dict[str, Callable[[Page], Page]] = {
    "another amount": other_amount,
    "cut": lambda page: replace(page, batch=replace(page.batch, events=page.batch.events[:-1])),
    "in another order": lambda page: replace(page, batch=replace(page.batch, events=page.batch.events[::-1])),
    "spliced": lambda page: replace(page, batch=replace(page.batch, events=page.batch.events[1:])),
    "no signature": lambda page: replace(page, signature=bytes(64)),
    "another's signature": lambda page: replace(page, signature=STRANGER.sign(page.batch.end)),
    "another's key and signature": lambda page: replace(
        page, key=STRANGER.public_key, signature=STRANGER.sign(page.batch.end)
    ),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_page_that_was_changed_on_its_way_is_not_folded_and_the_next_good_one_is(
    view_store: ViewStore, change: str
) -> None:
    ledger, projection = Ledger(LOG[:3]), await projection_on(view_store)
    async with following(projection, ledger) as subscription:
        await reach(projection, 3)
        ledger.change = CHANGES[change]
        ledger.log = list(LOG)
        await until_not_ready_or_behind(subscription)
        assert projection.position == 3
        ledger.change = lambda page: page
        await reach(projection, 9)
        assert projection.at == end_of(LOG)
        await until_ready(subscription)


async def until_not_ready_or_behind(subscription: Subscription) -> None:
    async def trouble() -> str:
        return subscription._status

    await eventually(trouble, lambda said: said.startswith("not following: "), "the page to be refused")


async def test_the_first_key_is_kept_with_the_views(open_view_store: OpenViewStore) -> None:
    async with open_view_store() as store:
        projection = await projection_on(store)
        async with following(projection, Ledger(LOG[:5])):
            await reach(projection, 5)
        assert (await store.checkpoint()).key == SIGNER.public_key
    async with open_view_store() as store:
        projection = await projection_on(store)
        async with following(projection, Ledger(signer=STRANGER)) as subscription:
            assert "LEDGER_KEY" in await until_not_ready(subscription, STRANGER.public_key.hex())
            assert projection.position == 5


async def test_a_key_that_was_given_is_the_only_one(view_store: ViewStore) -> None:
    checkpoint = await view_store.checkpoint()
    projection = Projection(view_store, list(VIEWS.values()), checkpoint, CollectorRegistry(), STRANGER.public_key)
    async with following(projection, Ledger(LOG[:5])) as subscription:
        await until_not_ready(subscription, "not following: ")
        assert projection.position == 0
    await fold(await keyed(view_store), LOG[:5])
    with pytest.raises(ForeignLedger, match="LEDGER_KEY"):
        Projection(
            view_store, list(VIEWS.values()), await view_store.checkpoint(), CollectorRegistry(), STRANGER.public_key
        )


async def keyed(store: ViewStore) -> Projection:
    return Projection(store, list(VIEWS.values()), await store.checkpoint(), CollectorRegistry(), SIGNER.public_key)


async def test_views_beyond_the_end_of_the_log_stop_the_projection(view_store: ViewStore) -> None:
    await fold(await projection_on(view_store), LOG)
    async with following(await projection_on(view_store), Ledger(LOG[:5])) as subscription:
        said = await until_not_ready(subscription, "stopped: ")
        assert "the views are at 9, but the log ends at 5" in said


async def test_a_head_before_the_views_is_another_ledgers(view_store: ViewStore) -> None:
    projection, page = await projection_on(view_store), await Ledger(LOG[:4]).read(Position(4))
    await fold(projection, LOG[:5])
    projection.check_ledger(page, Position(4))
    with pytest.raises(ForeignLedger, match="the log ends at 4"):
        projection.check_ledger(page, Position(5))


@pytest.mark.parametrize(
    "impossible",
    [[AmountDeposited(INT64_MAX, ""), DEPOSITED], [AmountWithdrawn(101, "")], [AmountDeposited(-(2**63), "")]],
    ids=["over 64 bits", "overdrawn", "a negative deposit"],
)
async def test_a_balance_that_no_ledger_lets_be_is_not_written(
    open_view_store: OpenViewStore, impossible: list[Event]
) -> None:
    events = [recorded(position, event) for position, event in enumerate([CREATED, DEPOSITED, *impossible], 1)]
    async with open_view_store() as one, open_view_store() as other:
        projection, replica = await projection_on(one), await projection_on(other)
        await fold(projection, events[:2])
        with pytest.raises(BrokenLedger):
            await fold(projection, events[2:])
        assert (await one.checkpoint()).position == 2
        # Accounts that were read after another replica's commit say nothing.
        await replica.refresh()
        await fold(replica, [recorded(3, WITHDRAWN), recorded(4, WITHDRAWN), recorded(5, WITHDRAWN)])
        await fold(projection, [recorded(3, AmountWithdrawn(90, ""))])
        assert projection.position == 5


def values(subscription: Subscription) -> tuple[float, float, float]:
    head = subscription.head
    return head.lag_events(), head.lag_seconds(), head.age_seconds()


async def test_readiness_and_lag_fall_back_while_the_head_is_out_of_sight_and_recover(
    view_store: ViewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_watch, "IN_SIGHT_SECONDS_MAX", 1)
    ledger, projection = Ledger(LOG[:5]), await projection_on(view_store)
    async with following(projection, ledger) as subscription:
        await reach(projection, 5)
        await until_ready(subscription)
        assert values(subscription)[:2] == (0, 0)
        ledger.is_away = True
        said = await until_not_ready(subscription, "last seen")
        assert "the feed is away" in said
        events, seconds, age = values(subscription)
        assert events != events  # not a number
        assert age >= seconds >= 1
        await asyncio.sleep(0.2)
        assert values(subscription)[1] >= seconds + 0.1
        ledger.is_away = False
        await until_ready(subscription)
        assert values(subscription)[:2] == (0, 0)


async def test_what_cannot_be_written_is_behind_though_the_head_is_in_sight(
    view_store: ViewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise StoreUnavailable("the disk is full")

    ledger, projection = Ledger(LOG[:3]), await projection_on(view_store)
    async with following(projection, ledger) as subscription:
        await reach(projection, 3)
        await until_ready(subscription)
        with monkeypatch.context() as patch:
            patch.setattr(view_store, "commit", refuse)
            ledger.log = LOG[:5]

            async def lag() -> float:
                return values(subscription)[0]

            await eventually(lag, lambda events: events == 2, "two events behind")
            assert values(subscription)[1] > 0
        await reach(projection, 5)
        assert values(subscription)[:2] == (0, 0)


async def until_ready(subscription: Subscription) -> None:
    async def is_ready() -> bool:
        try:
            return bool(subscription.check_ready())
        except NotReady:
            return False

    await eventually(is_ready, bool, "the subscription to be ready")


async def test_a_stopped_projection_does_not_say_that_it_is_level(view_store: ViewStore) -> None:
    ledger, projection = Ledger(LOG[:5]), await projection_on(view_store)
    async with following(projection, ledger) as subscription:
        await reach(projection, 5)
        ledger.log = LOG[:3]
        await until_not_ready(subscription, "stopped")
        events, seconds, _ = values(subscription)
        assert events != events
        await asyncio.sleep(0.1)
        assert values(subscription)[1] > seconds


RESERVE = [VIEWS["reserve"]]


async def put_back(operator: ViewStore) -> None:
    """To position 3 of `LOG`; without the reserve's amount, which nobody looks at here."""
    before = end_of(LOG[:3])
    checkpoint = Checkpoint(before.position, SOURCE, before.chain, SIGNER.public_key)
    await operator.commit(await operator.checkpoint(), checkpoint, [])


async def test_views_that_were_put_back_under_a_running_projection_are_brought_up_to_date(
    open_view_store: OpenViewStore,
) -> None:
    """By a restore, or a standby that did not have all of it; and the ledger has nothing new to say."""
    async with open_view_store("reserve") as store, open_view_store("reserve") as operator:
        projection = Projection(store, RESERVE, await store.checkpoint(), CollectorRegistry())
        ledger = Ledger(LOG[:5])
        async with following(projection, ledger) as subscription:
            await reach(projection, 5)
            await until_ready(subscription)
            ledger.answers.clear()
            await put_back(operator)
            assert await projection.refresh() == 3
            assert projection.watermark.position == 3
            with pytest.raises(NotReady, match="at position 3: the views were put back"):
                subscription.check_ready()
            ledger.answers.set()
            await reach(projection, 5)
            assert (await store.checkpoint()).position == 5
            await until_ready(subscription)


@pytest.mark.parametrize(
    ("torn", "said"),
    [("UPDATE accounts SET version = version - 1", 2), ("DELETE FROM accounts", 0)],
)
async def test_views_that_are_not_of_one_moment_stop_the_projection(
    view_store: ViewStore, change_views: ChangeViews, torn: str, said: int
) -> None:
    """A copy of a file whose newer pages are in a -wal of their own, say."""
    projection, ledger = await projection_on(view_store), Ledger(LOG[:3])
    async with following(projection, ledger) as subscription:
        await reach(projection, 3)
        await change_views(torn)
        ledger.log = list(LOG)
        await until_not_ready(subscription, f"stopped: the view has 'alice' at version {said}, and position 4 is its ")
        assert projection.position == 3


async def test_an_answer_is_never_of_a_position_before_the_one_asked_for(open_view_store: OpenViewStore) -> None:
    """Views that were put back are noticed a little later."""
    async with open_view_store() as store, open_view_store() as operator:
        projection = await projection_on(store)
        await fold(projection, LOG[:5])
        registry, reach = CollectorRegistry(), reacher(projection.watermark)
        subscription = Subscription(projection, Ledger(LOG[:5]), None, "", "test", registry)
        tail = Tail()
        past, pipeline = past_of(store, reach), Pipeline(projection, subscription)
        app = create_api(
            store, VIEWS, projection, reach, past, projection.watermark, tail, subscription, pipeline, registry
        )
        gate = Gate(
            app, {path: one for view in VIEWS.values() for path, one in view.endpoints(store, reach, past).items()}, "*"
        )
        paths = ["/account/alice", "/account/alice/events", "/account/nobody", "/account/nobody/events", "/reserve"]
        assert {(await ask(gate, path, 5))[1] for path in paths} == {b"5"}
        await put_back(operator)
        for path in paths:
            assert await ask(gate, path, 5) == (503, b"3")
            assert (await ask(gate, path, 3))[1] == b"3"
        tail.readers = STREAMS_MAX
        assert await ask(gate, "/stream", 0) == (503, b"")


async def ask(gate: Gate, path: str, min_position: int) -> tuple[int, bytes]:
    """The answer's status and Ledger-Position, as the server is given them."""
    answers: list[tuple[int, dict[bytes, bytes]]] = []

    body: list[Message] = [{"type": "http.request"}]

    async def receive() -> Message:
        if not body:
            await asyncio.Event().wait()
        return body.pop()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answers.append((message["status"], dict(message["headers"])))

    async def answer(status: int, head: bytes, body: bytes) -> None:
        answers.append((status, dict(line.split(b": ", 1) for line in head.splitlines())))

    scope: dict[str, object] = {
        "type": "http",
        "method": "GET",
        "raw_path": path.encode(),
        "query_string": b"min_position=%d" % min_position,
        "headers": [(b"host", b"here")],
        "state": {"answer": answer},
    }
    await gate(scope, receive, send)
    ((status, headers),) = answers
    return status, headers.get(b"ledger-position", b"")


async def test_nothing_is_folded_onto_views_of_another_history_at_the_same_position(
    open_view_store: OpenViewStore,
) -> None:
    async with open_view_store() as store, open_view_store() as operator:
        projection = await projection_on(store)
        await fold(projection, LOG[:5])
        put_there = replace(await operator.checkpoint(), chain=bytes(32))
        await operator.commit(await operator.checkpoint(), put_there, [])
        await fold(projection, LOG[5:6])
        assert projection.at == ChainAt(Position(5), bytes(32))
        assert await store.checkpoint() == put_there


async def test_views_of_another_history_at_the_same_position_stop_the_projection(
    open_view_store: OpenViewStore,
) -> None:
    async with open_view_store() as store, open_view_store() as operator:
        projection = await projection_on(store)
        async with following(projection, Ledger(LOG[:5])) as subscription:
            await reach(projection, 5)
            put_there = replace(await operator.checkpoint(), chain=bytes(32))
            await operator.commit(await operator.checkpoint(), put_there, [])
            await projection.refresh()
            await until_not_ready(subscription, "stopped: the views are at 5, and what the ledger has up to there")


async def test_views_that_another_process_built_under_another_key_are_not_taken_up(
    open_view_store: OpenViewStore,
) -> None:
    async with open_view_store() as one, open_view_store() as other:
        projection = await keyed(one)
        stranger = Projection(
            other, list(VIEWS.values()), await other.checkpoint(), CollectorRegistry(), STRANGER.public_key
        )
        await fold(stranger, LOG[:2])
        for take_up in (projection.refresh, projection.reload):
            with pytest.raises(ForeignLedger, match="LEDGER_KEY"):
                await take_up()
        assert projection.position == 0


async def test_a_lower_head_that_comes_once_is_no_reason_to_stop(view_store: ViewStore) -> None:
    """From a cache, say: what it was is signed, and that it is still so is not."""
    ledger, projection = Ledger(LOG[:5]), await projection_on(view_store)
    old = await Ledger(LOG[:3]).read(Position(5))

    def once(page: Page) -> Page:
        ledger.change = lambda page: page
        return old

    async with following(projection, ledger) as subscription:
        await reach(projection, 5)
        ledger.change = once
        ledger.log = list(LOG)
        await reach(projection, 9)
        assert subscription.check_ready().startswith("following")


async def test_a_lower_head_that_comes_once_after_a_changed_page_is_no_reason_to_stop(view_store: ViewStore) -> None:
    ledger, projection = Ledger(LOG[:5]), await projection_on(view_store)
    old = await Ledger(LOG[:3]).read(Position(5))
    lies = iter([other_amount, lambda _: old])

    async with following(projection, ledger) as subscription:
        await reach(projection, 5)
        ledger.change = lambda page: next(lies, lambda page: page)(page)
        ledger.log = list(LOG)
        await reach(projection, 9)
        assert subscription.check_ready().startswith("following")


@pytest.mark.parametrize("events", [4, 5, 7], ids=["before them", "where they were", "further on"])
async def test_views_that_were_put_back_together_with_the_ledger_are_no_reason_to_stop(
    open_view_store: OpenViewStore, events: int
) -> None:
    """The ledger went on differently before the projection saw that its views are others."""
    async with open_view_store("reserve") as store, open_view_store("reserve") as operator:
        projection = Projection(store, RESERVE, await store.checkpoint(), CollectorRegistry())
        ledger = Ledger(LOG[:5])
        async with following(projection, ledger) as subscription:
            await reach(projection, 5)
            ledger.answers.clear()
            before = end_of(LOG[:3])
            put_back = Checkpoint(before.position, SOURCE, before.chain, SIGNER.public_key)
            await operator.commit(await operator.checkpoint(), put_back, [])
            ledger.log = [*LOG[:3], *(recorded(position, AmountDeposited(7, "")) for position in range(4, events + 1))]
            ledger.answers.set()
            await eventually(at_of(projection), lambda at: at == end_of(ledger.log), "the views to be the ledger's")
            await until_ready(subscription)


def at_of(projection: Projection) -> Callable[[], Awaitable[ChainAt]]:
    async def at() -> ChainAt:
        return projection.at

    return at


async def test_a_key_that_an_empty_log_gave_is_not_kept(view_store: ViewStore) -> None:
    """Nothing was folded under it: somebody else may have answered before the command service was there."""
    ledger, projection = Ledger([], STRANGER), await projection_on(view_store)
    async with following(projection, ledger) as subscription:
        await until_ready(subscription)
        assert projection.key == STRANGER.public_key
        ledger.signer, ledger.log = SIGNER, list(LOG)
        await reach(projection, 9)
        assert (await view_store.checkpoint()).key == projection.key == SIGNER.public_key


async def test_a_head_before_what_the_ledger_has_signed_is_an_old_one(view_store: ViewStore) -> None:
    """A message was lost, the next one came, and a cache gives the feed's answers from before."""
    ledger, projection = Ledger(LOG[:5]), await projection_on(view_store)
    subscription = Subscription(projection, ledger, None, "guest", "test", CollectorRegistry())
    await subscription._catch_up()
    assert values(subscription)[:2] == (0, 0)
    await asyncio.sleep(0.1)
    for _ in range(2):
        with pytest.raises(FeedUnavailable, match="nothing after position 5, and the ledger's messages go to 7"):
            await subscription._advance([(None, Batch(LOG[6:7], end_of(LOG[:7])))])  # type: ignore[list-item]
        await subscription._catch_up()
        assert projection.position == 5
        events, seconds, age = values(subscription)
        assert events == 2
        assert min(seconds, age) >= 0.1
    ledger.log = list(LOG)
    assert await subscription._advance([(None, Batch(LOG[6:7], end_of(LOG[:7])))]) == []  # type: ignore[list-item]
    assert values(subscription)[:2] == (0, 0)


async def test_a_hole_is_filled_from_the_feed_and_the_messages_behind_it_are_folded(view_store: ViewStore) -> None:
    """However little a page has."""
    ledger, projection = Ledger(LOG[:9]), await keyed(view_store)
    await fold(projection, LOG[:5])
    page = await Ledger(LOG[:6]).read(Position(5))
    ledger.change = lambda _: replace(page, head=Position(9))
    subscription = Subscription(projection, ledger, None, "guest", "test", CollectorRegistry())
    batches = [Batch(LOG[7:9], end_of(LOG[:9])), Batch(LOG[6:7], end_of(LOG[:7]))]
    assert await subscription._advance([(None, batch) for batch in batches]) == []  # type: ignore[misc]
    assert projection.position == 9


async def test_a_feed_that_lies_is_asked_less_and_less_often_while_the_broker_is_away(view_store: ViewStore) -> None:
    ledger, projection = Ledger(LOG[:5]), await projection_on(view_store)
    ledger.change = CHANGES["no signature"]
    async with following(projection, ledger, "amqp://127.0.0.1:1/"):
        await asyncio.sleep(6)
        assert 1 < ledger.asked.qsize() < 10


async def test_views_that_are_away_are_not_ready(view_store: ViewStore, change_views: ChangeViews) -> None:
    """The subscription does not ask them while the ledger has nothing new."""
    projection = await projection_on(view_store)
    async with following(projection, Ledger(LOG[:5])) as subscription:
        await reach(projection, 5)
        await until_ready(subscription)
        await projection.check_store()
        await change_views("ALTER TABLE checkpoint RENAME TO away")
        with pytest.raises(StoreUnavailable):
            await projection.check_store()
        await change_views("ALTER TABLE away RENAME TO checkpoint")
        await projection.check_store()


async def test_views_that_do_not_answer_are_not_ready(view_store: ViewStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection_module, "STORE_SECONDS", 0.1)
    projection = await projection_on(view_store)
    monkeypatch.setattr(view_store, "checkpoint", asyncio.Event().wait)
    with pytest.raises(StoreUnavailable, match="within"):
        await projection.check_store()


async def test_a_feed_that_promises_more_and_gives_nothing_holds_up_nobody(view_store: ViewStore) -> None:
    ledger, projection = Ledger(LOG[:5]), await projection_on(view_store)
    ledger.change = lambda page: replace(page, head=Position(10**17))
    subscription = Subscription(projection, ledger, None, "guest", "test", CollectorRegistry())
    async with asyncio.timeout(10):
        with pytest.raises(FeedUnavailable, match="gives nothing new after position 5"):
            await subscription._catch_up()
    assert projection.position == 5


@pytest.mark.parametrize("after", [0, 3, 8])
@pytest.mark.parametrize("events", [LOG[:7], LOG[4:7], LOG, [*LOG[:8], recorded(999, DEPOSITED)]])
def test_events_that_end_elsewhere_than_the_signature_says_prove_nothing(
    events: list[RecordedEvent], after: int
) -> None:
    with pytest.raises(Unproven, match="its signature is for 8"):
        Batch(events, end_of(LOG[:8])).following(end_of(LOG[:after]))
