"""A projection between its feed and its views, which another replica may move meanwhile; over every view store."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry

from projection_service import head_watch
from projection_service.feed import Chain, Feed, FeedUnavailable, Page
from projection_service.projection import ForeignLedger, ForgedEvents, Projection
from projection_service.subscription import Subscription
from projection_service.view_store import ViewStore
from projection_service.views import VIEWS
from shared.chain import ChainAt, extend
from shared.events import AmountDeposited, AmountWithdrawn, Event, Position, RecordedEvent
from shared.problems import NotReady
from tests.contract.conftest import OpenViewStore
from tests.examples import CREATED, DEPOSITED, INT64_MAX, SOURCE, WITHDRAWN, recorded
from tests.integration.broker import eventually

LOG = [recorded(1, CREATED), *(recorded(position, DEPOSITED) for position in range(2, 10))]


class Ledger(Feed):
    """A feed over a list of events, whose answers can be held back after they were made."""

    def __init__(self, log: Sequence[RecordedEvent] = LOG) -> None:
        self.name = "the feed"
        self.log = list(log)
        self.answers = asyncio.Event()
        self.answers.set()
        self.asked: asyncio.Queue[str] = asyncio.Queue()
        self.is_away = False

    @property
    def head(self) -> Position:
        return Position(len(self.log))

    async def read(self, after: Position, wait_seconds: float = 0) -> Page:
        page = Page(self.log[after:], self.head, SOURCE)
        await self._answer("page")
        if not page.events:
            await asyncio.sleep(min(wait_seconds, 0.05))
        return page

    async def chain(self, after: ChainAt, up_to: Position) -> Chain:
        reached = Position(min(up_to, after.position + 2, self.head))
        events = [event.encoded for event in self.log[after.position : reached]]
        answer = Chain(ChainAt(reached, extend(after.chain, events)), self.head, SOURCE)
        await self._answer("chain")
        return answer

    async def _answer(self, what: str) -> None:
        if self.is_away:
            raise FeedUnavailable("the feed is away")
        self.asked.put_nowait(what)
        await self.answers.wait()


async def projection_on(store: ViewStore) -> Projection:
    return Projection(store, list(VIEWS.values()), await store.checkpoint(), CollectorRegistry())


@asynccontextmanager
async def following(projection: Projection, ledger: Ledger, amqp_url: str | None = None) -> AsyncIterator[Subscription]:
    subscription = Subscription(projection, ledger, amqp_url, "guest", "test", CollectorRegistry())
    running = asyncio.create_task(subscription.run())
    try:
        yield subscription
    finally:
        running.cancel()
        await asyncio.wait([running])


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
            await replica.apply(LOG[5:8])
            await projection.refresh()
            assert projection.position == 8
            ledger.answers.set()
            await reach(projection, 9)
            assert subscription.check_ready().startswith("following")


async def test_a_comparison_of_before_another_replica_moved_the_views_holds_for_what_was_compared(
    open_view_store: OpenViewStore,
) -> None:
    async with open_view_store() as one, open_view_store() as other:
        await (await projection_on(one)).apply(LOG[:5])
        ledger, projection, replica = Ledger(), await projection_on(one), await projection_on(other)
        ledger.answers.clear()
        async with following(projection, ledger) as subscription:
            assert await ledger.asked.get() == "chain"
            await replica.apply(LOG[5:8])
            await projection.refresh()
            ledger.answers.set()
            await reach(projection, 9)
            assert subscription.check_ready().startswith("following")
        stored = await one.checkpoint()
        assert stored.chain == extend(bytes(32), [event.encoded for event in LOG])


async def test_what_came_from_the_feed_is_verified_and_what_came_from_messages_is_not(
    open_view_store: OpenViewStore,
) -> None:
    async with open_view_store() as store:
        projection = await projection_on(store)
        await projection.apply_page(LOG[:3])
        assert projection.unverified_events == 0
        await projection.apply(LOG[3:5])
        assert projection.unverified_events == 2
        # The feed goes on from what nobody has compared yet.
        await projection.apply_page(LOG[5:8])
        assert projection.unverified_events == 5
        assert (await store.checkpoint()) == projection.checkpoint
        assert projection.checkpoint.verified == ChainAt(
            Position(3), extend(bytes(32), [event.encoded for event in LOG[:3]])
        )


@pytest.mark.parametrize("amqp_url", [None, "amqp://127.0.0.1:1/"], ids=["no broker", "a broker that is away"])
@pytest.mark.parametrize("forged", [0, 3, 6])
async def test_forged_events_are_found_before_a_restarted_projection_is_ready(
    view_store: ViewStore, forged: int, amqp_url: str | None
) -> None:
    """They are right in all but the amount, or the version."""
    log = list(LOG)
    event = recorded(forged + 1, AmountDeposited(1_000_000, "salary"))
    log[forged] = event if forged else recorded(1, CREATED, version=70)
    await (await projection_on(view_store)).apply(log[:7])
    projection, ledger = await projection_on(view_store), Ledger()
    async with following(projection, ledger, amqp_url) as subscription:
        said = await until_not_ready(subscription, "stopped: ")
        assert "from position 1 to 7" in said
        assert "PROJECTION_NAME" in said
        await asyncio.sleep(0.1)
        assert projection.position == 7


async def test_views_beyond_the_end_of_the_log_stop_the_projection(view_store: ViewStore) -> None:
    await (await projection_on(view_store)).apply(LOG)
    async with following(await projection_on(view_store), Ledger(LOG[:5])) as subscription:
        said = await until_not_ready(subscription, "stopped: ")
        assert "the views are at 9, but the log ends at 5" in said


async def test_a_head_before_the_views_is_another_ledgers(view_store: ViewStore) -> None:
    projection = await projection_on(view_store)
    await projection.apply(LOG[:5])
    projection.check_ledger(SOURCE, Position(4), Position(4))
    with pytest.raises(ForeignLedger, match="the log ends at 4"):
        projection.check_ledger(SOURCE, Position(4), Position(5))


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
        await projection.apply(events[:2])
        with pytest.raises(ForgedEvents):
            await projection.apply(events)
        assert (await one.checkpoint()).position == 2
        # Accounts that were read after another replica's commit say nothing.
        await replica.refresh()
        await replica.apply([*events[:2], recorded(3, WITHDRAWN), recorded(4, WITHDRAWN), recorded(5, WITHDRAWN)])
        await projection.apply([*events[:2], recorded(3, AmountWithdrawn(90, ""))])
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
