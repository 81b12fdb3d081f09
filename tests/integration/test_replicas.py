"""Several command services on one database, and several projections on one set of views, with a real RabbitMQ."""

import asyncio
import signal
from collections import Counter

from tests.bank import Bank, Service
from tests.faults.link import Link
from tests.integration.broker import FOLLOWING, eventually, first_seen, get_json, metric, observe, until_subscription
from tests.integration.conftest import OpenBank
from tests.integration.load import load, seeded

LEADS, STANDS_BY = "publishing", "standing by"


async def relay_of(bank: Bank, replica: Service) -> str:
    _, answer = await get_json(bank, f"{replica.url}/readyz")
    return str(answer["relay"])


async def leader(bank: Bank, replicas: list[Service]) -> Service:
    """The one of `replicas` that publishes, once there is one."""

    async def leading() -> list[Service]:
        statuses = [await relay_of(bank, replica) for replica in replicas]
        return [replica for replica, status in zip(replicas, statuses, strict=True) if status == LEADS]

    (found,) = await eventually(leading, lambda found: len(found) == 1, "one relay to lead")
    return found


async def test_any_replica_takes_any_command_and_none_overdraws(
    amqp_url: str, database_url: str, bank_on: OpenBank
) -> None:
    async with bank_on(amqp_url, 2, database_url, replicas=3) as bank, load(bank) as clients:
        await clients.go_on(500)


async def test_the_last_cent_is_paid_out_by_one_replica_only(
    amqp_url: str, database_url: str, bank_on: OpenBank
) -> None:
    async with bank_on(amqp_url, 1, database_url, replicas=3) as bank:
        await bank.create("alice")
        await bank.deposit("alice", 10)
        answers = await asyncio.gather(
            *(bank.post("/account/withdraw/alice", {"amount": 1}, None, bank.commands[n % 3]) for n in range(60))
        )
        assert Counter(status for status, _ in answers) == {200: 10, 400: 50}
        assert sorted(answer["balance"] for status, answer in answers if status == 200) == list(range(10))
        await bank.check_views()


async def test_transfers_there_and_back_on_all_replicas_leave_the_sum_as_it_is(
    amqp_url: str, database_url: str, bank_on: OpenBank
) -> None:
    """10,000 of them: neither a deadlock nor a lost update."""
    async with bank_on(amqp_url, 2, database_url, replicas=2) as bank:
        for name in ("alice", "bob"):
            await bank.create(name)
            await bank.deposit(name, 1000)
        there = {"type": "transfer", "account_id": "alice", "to": "bob", "amount": 7}
        back = {"type": "transfer", "account_id": "bob", "to": "alice", "amount": 11}
        answers = await asyncio.gather(
            *(
                bank.post("/commands", [there, back][:: 1 - 2 * (n % 2)] * 50, None, bank.commands[n % 2])
                for n in range(100)
            )
        )
        results = [result for _, results in answers for result in results]
        assert len(results) == 10_000
        for result in results:
            if result["status"] == 200:
                assert result["balance"] + result["counterpart"]["balance"] == 2000
            else:
                assert result["reason"] == "insufficient-funds"
        assert min(Counter(result["account_id"] for result in results if result["status"] == 200).values()) > 1000
        await bank.check_views()


async def test_an_account_is_closed_or_paid_into_whichever_comes_first(
    amqp_url: str, database_url: str, bank_on: OpenBank
) -> None:
    async with bank_on(amqp_url, 1, database_url, replicas=2) as bank:
        await bank.create("alice")
        await bank.deposit("alice", 1000)
        one, other = bank.commands
        outcomes = set()
        for number in range(60):
            await bank.create(payee := f"payee-{number}")
            transfer = bank.post("/account/transfer/alice", {"to": payee, "amount": 1}, None, one)
            close = bank.post(f"/account/close/{payee}", {}, None, other)
            asked = [transfer, close] if number % 2 else [close, transfer]
            answers = {answer["type"].rpartition(":")[2]: status for status, answer in await asyncio.gather(*asked)}
            outcomes.add(tuple(sorted(answers.items())))
        paid = ("balance-not-zero", 400), ("money-transferred", 200)
        closed = ("account-closed", 200), ("counterpart-closed", 400)
        assert outcomes <= {paid, closed}
        await bank.check_views()


async def test_a_replica_decides_on_what_another_has_recorded(
    amqp_url: str, database_url: str, bank_on: OpenBank
) -> None:
    async with bank_on(amqp_url, 1, database_url, replicas=2) as bank:
        one, other = bank.commands
        await bank.post("/account/alice", {"name": "Alice"}, None, one)
        assert (await bank.post("/account/deposit/alice", {"amount": 5}, None, other))[1]["balance"] == 5
        assert (await bank.post("/account/withdraw/alice", {"amount": 5}, None, one))[1]["balance"] == 0
        assert (await bank.post("/account/withdraw/alice", {"amount": 1}, None, other))[0] == 400
        assert (await bank.post("/account/alice", {"name": "Alice"}, None, other))[0] == 400


async def test_a_key_holds_on_every_replica(amqp_url: str, database_url: str, bank_on: OpenBank) -> None:
    async with bank_on(amqp_url, 1, database_url, replicas=3) as bank:
        await bank.create("alice")
        for number in range(10):
            answers = await asyncio.gather(
                *(
                    bank.post("/account/deposit/alice", {"amount": 1}, f"key-{number}", replica)
                    for replica in bank.commands * 2
                )
            )
            assert all(answer == answers[0] for answer in answers)
        await bank.commands[2].kill()
        again = await bank.post("/account/deposit/alice", {"amount": 1}, "key-9", bank.commands[1])
        assert again == answers[0]
        other = await bank.post("/account/deposit/alice", {"amount": 2}, "key-9", bank.commands[1])
        assert other[0] == 422
        assert len(await bank.log()) == 11


async def test_the_feed_of_one_replica_is_woken_by_a_commit_of_another(
    amqp_url: str, database_url: str, bank_on: OpenBank
) -> None:
    async with bank_on(amqp_url, 1, database_url, replicas=2) as bank:
        one, other = bank.commands
        polling = asyncio.create_task(get_json(bank, f"{other.url}/events?after=0&wait=60"))
        await asyncio.sleep(0.2)
        await bank.post("/account/alice", {"name": "Alice"}, None, one)
        async with asyncio.timeout(30):
            status, events = await polling
        assert (status, len(events)) == (200, 1)


async def test_a_relay_that_stands_by_reports_how_far_the_ledger_is_published(
    amqp_url: str, database_url: str, bank_on: OpenBank
) -> None:
    async with bank_on(amqp_url, 1, database_url, replicas=2) as bank:
        first = await leader(bank, bank.commands)
        (other,) = (replica for replica in bank.commands if replica is not first)
        await bank.create("alice")
        for replica, publishing in (first, 1), (other, 0):
            await eventually(
                lambda replica=replica: metric(bank, replica, "ledger_relay_confirmed_position"),  # type: ignore[misc]
                lambda position: position == 1,
                "the relay's cursor",
            )
            assert await metric(bank, replica, "relay_publishing") == publishing


async def test_another_relay_takes_over_from_one_that_is_killed(
    amqp_url: str, database_url: str, bank_on: OpenBank
) -> None:
    async with observe(amqp_url) as observer, bank_on(amqp_url, 1, database_url, replicas=3) as bank:
        replicas = list(bank.commands)
        first = await leader(bank, replicas)
        replicas.remove(first)
        async with load(bank) as clients:
            await first.kill()
            second = await leader(bank, replicas)
            assert second is not first
            await clients.go_on(100)
            await first.start()
        events = await bank.log()
        await observer.reach(len(events))
        assert first_seen(observer.positions) == list(range(1, len(events) + 1))


async def test_another_relay_takes_over_from_one_that_is_frozen_and_the_old_one_stands_by(
    amqp_url: str, database_url: str, bank_on: OpenBank
) -> None:
    async with observe(amqp_url) as observer, bank_on(amqp_url, 1, database_url, replicas=2) as bank:
        first = await leader(bank, bank.commands)
        (other,) = (replica for replica in bank.commands if replica is not first)
        assert first.process is not None
        await bank.post("/account/alice", {"name": "Alice"}, None, other)
        first.process.send_signal(signal.SIGSTOP)
        assert await leader(bank, [other]) is other
        for _ in range(20):
            await bank.post("/account/deposit/alice", {"amount": 1}, None, other)
        first.process.send_signal(signal.SIGCONT)
        await eventually(
            lambda: relay_of(bank, first), lambda status: status.startswith(STANDS_BY), "the old relay to stand by"
        )
        assert await relay_of(bank, other) == LEADS
        await observer.reach(21)
        assert first_seen(observer.positions) == list(range(1, 22))
        await bank.check_views()


async def test_another_relay_takes_over_from_one_that_is_cut_off_from_the_database(
    amqp_url: str, database_url: str, bank_on: OpenBank
) -> None:
    async with observe(amqp_url) as observer, bank_on(amqp_url, 1, database_url, replicas=2) as bank:
        cut_off, other = bank.commands
        await asyncio.gather(cut_off.stop(), other.stop())
        address, _, name = database_url.rpartition("/")
        user, _, port = address.rpartition(":")
        link = Link(int(port))
        await link.open()
        cut_off.environment["DATABASE_URL"] = f"{user}:{link.port}/{name}"
        await cut_off.start()
        assert await leader(bank, [cut_off]) is cut_off
        await other.start()
        with link.stalled():
            assert await leader(bank, [other]) is other
            for number in range(10):
                await bank.post(f"/account/{number}", {"name": "Alice"}, None, other)
            await observer.reach(10)
        await eventually(
            lambda: relay_of(bank, cut_off), lambda status: status.startswith(STANDS_BY), "the old relay to stand by"
        )
        await bank.check_views()
        await asyncio.gather(cut_off.stop(), other.stop())
        await link.close()


async def test_replicas_are_restarted_one_after_the_other_without_a_refusal(
    amqp_url: str, database_url: str, bank_on: OpenBank
) -> None:
    async with bank_on(amqp_url, 1, database_url, replicas=2) as bank, load(bank) as clients:
        for replica in bank.commands * 2:
            await clients.go_on(50)
            assert await replica.stop() == 0
            await clients.go_on(20)
            await replica.start()


async def share_views(bank: Bank) -> None:
    """All projections of `bank` under one name: replicas with one queue and one set of views."""
    await asyncio.gather(*(projection.stop() for projection in bank.projections))
    for projection in bank.projections:
        projection.environment["PROJECTION_NAME"] = "shared"
        await projection.start()
    await until_subscription(bank, FOLLOWING)


async def test_projections_that_share_their_views_take_turns_and_count_once(
    amqp_url: str, database_url: str, bank_on: OpenBank
) -> None:
    async with bank_on(amqp_url, 2, database_url, replicas=2) as bank:
        await share_views(bank)
        random = seeded()
        async with load(bank) as clients:
            for _ in range(4):
                projection = random.choice(bank.projections)
                await projection.kill()
                await clients.go_on(50)
                await projection.start()


async def test_a_projection_that_stands_by_answers_and_lets_clients_read_their_own_writes(
    amqp_url: str, database_url: str, bank_on: OpenBank
) -> None:
    async with bank_on(amqp_url, 2, database_url) as bank:
        await share_views(bank)
        await bank.create("alice")
        for number in range(1, 31):
            _, receipt = await bank.deposit("alice", 1)
            for projection in bank.projections:
                query = {"min_position": receipt["position"], "wait": 30}
                status, account = await bank.query("/account/alice", projection, **query)
                assert (status, account["balance"]) == (200, number)
