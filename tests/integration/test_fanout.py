"""What is on the broker while all is well: the contract that a third program can rely on."""

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import aio_pika
import pytest
from aio_pika.exceptions import ChannelPreconditionFailed

from tests.bank import START_SECONDS
from tests.integration.broker import (
    EXCHANGE,
    FOLLOWING,
    encoded,
    messages_of,
    observe,
    open_channel,
    positions_in,
    publish_messages,
    queue_of,
    until_subscription,
)
from tests.integration.conftest import OpenBank
from tests.integration.load import load

QUEUE = {"x-queue-type": "quorum", "x-single-active-consumer": True, "x-delivery-limit": 2**31 - 1}
EXAMPLE = Path(__file__).parents[2] / "examples" / "third_program.py"


async def test_the_fanout_feeds_two_independent_projections(amqp_url: str, bank_on: OpenBank) -> None:
    async with bank_on(amqp_url, projections=2) as bank:
        async with load(bank) as clients:
            await clients.go_on(300)
        await until_subscription(bank, FOLLOWING)
        for projection in bank.projections:
            _, ready = await bank.query("/readyz", projection)
            assert ready["subscription"] == f"following {queue_of(projection)}"


async def test_the_services_can_be_started_in_any_order(amqp_url: str, bank_on: OpenBank) -> None:
    async with bank_on(amqp_url) as bank:
        await bank.command.stop()
        await bank.projection.kill()
        await bank.projection.start()
        await until_subscription(bank, f"at position 0: not following: {bank.command.url}/events")
        await bank.command.start()
        await bank.create("alice")
        await bank.projection.wait_for("/readyz")
        await bank.check_views()


async def test_the_exchange_is_a_durable_fanout(amqp_url: str, bank_on: OpenBank) -> None:
    async with bank_on(amqp_url), open_channel(amqp_url) as channel:
        # The broker refuses a declaration that differs from what is there.
        await channel.declare_exchange(EXCHANGE, aio_pika.ExchangeType.FANOUT, durable=True)
        with pytest.raises(ChannelPreconditionFailed):
            await channel.declare_exchange(EXCHANGE, aio_pika.ExchangeType.FANOUT, durable=False)


@pytest.mark.parametrize(
    ("arguments", "is_the_same"),
    [
        (QUEUE, True),
        ({**QUEUE, "x-single-active-consumer": False}, False),
        ({**QUEUE, "x-delivery-limit": 20}, False),
        ({"x-queue-type": "classic", "x-single-active-consumer": True}, False),
    ],
)
async def test_a_projections_queue_is_a_durable_quorum_queue_with_a_single_active_consumer_and_endless_deliveries(
    amqp_url: str, bank_on: OpenBank, arguments: dict[str, str | bool | int], is_the_same: bool
) -> None:
    async with bank_on(amqp_url) as bank, open_channel(amqp_url) as channel:
        await until_subscription(bank, FOLLOWING)
        name = queue_of(bank.projection)
        if is_the_same:
            await channel.declare_queue(name, durable=True, arguments=dict(arguments))
        else:
            with pytest.raises(ChannelPreconditionFailed):
                await channel.declare_queue(name, durable=True, arguments=dict(arguments))


async def test_a_message_has_the_properties_and_headers_of_the_contract(amqp_url: str, bank_on: OpenBank) -> None:
    started = datetime.now(UTC) - timedelta(seconds=1)
    async with bank_on(amqp_url) as bank, observe(amqp_url) as observer:
        await bank.create("alice")
        await bank.deposit("alice", 1250)
        await bank.withdraw("alice", 5000)
        await observer.reach(3)
        for message in observer.messages:
            assert message.exchange == EXCHANGE
            assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
            assert message.content_type == "application/cloudevents-batch+json"
            assert UUID(message.message_id).version == 7
            assert message.type == "ledger.events"
            assert message.app_id == "command-service"
            assert message.user_id == urlsplit(amqp_url).username
            assert message.timestamp is not None
            assert started <= message.timestamp.replace(tzinfo=UTC) <= datetime.now(UTC)
            assert message.headers.keys() == {"first_position", "last_position", "last_chain", "signature"}
        assert len({message.message_id for message in observer.messages}) == len(observer.messages)


async def test_headers_tell_the_first_and_the_last_position_of_the_run(amqp_url: str, bank_on: OpenBank) -> None:
    async with bank_on(amqp_url) as bank, observe(amqp_url) as observer:
        await bank.post("/commands", [{"type": "create-account", "name": "Alice"}] * 500)
        await bank.create("alice")
        await observer.reach(501)
        following = 1
        for message in observer.messages:
            first, last = message.headers["first_position"], message.headers["last_position"]
            run = positions_in(message)
            assert run == list(range(following, following + len(run)))
            assert (first, last) == (run[0], run[-1])
            following = run[-1] + 1


async def test_commands_that_are_recorded_together_are_published_together(amqp_url: str, bank_on: OpenBank) -> None:
    async with bank_on(amqp_url) as bank, observe(amqp_url) as observer:
        await bank.create("alice")
        await observer.reach(1)
        deposit = {"type": "deposit", "account_id": "alice", "amount": 1}
        for commands, messages_max in [(1, 1), (500, 1), (5_000, 10)]:
            before = len(observer.messages)
            _, outcomes = await bank.post("/commands", [deposit] * commands)
            await observer.reach(outcomes[-1]["position"])
            assert len(observer.messages) - before <= messages_max


async def test_messages_carry_the_feeds_cloudevents_byte_for_byte(amqp_url: str, bank_on: OpenBank) -> None:
    async with bank_on(amqp_url) as bank, observe(amqp_url) as observer:
        await bank.create("alice", 'Alice "the first" Лидделл')
        await bank.post("/commands", [{"type": "deposit", "account_id": "alice", "amount": 1}] * 200)
        await bank.withdraw("alice", 5000)
        await observer.reach(202)
        async with bank.http.get(f"{bank.command.url}/events") as feed:
            body = await feed.read()
        assert b"[" + b",\n".join(message.body[1:-1] for message in observer.messages) + b"]" == body


async def test_a_third_program_receives_every_event(amqp_url: str, bank_on: OpenBank, tmp_path: Path) -> None:
    async with bank_on(amqp_url) as bank:
        program = await asyncio.create_subprocess_exec(
            sys.executable,
            str(EXAMPLE),
            env={**bank.command.environment, "AMQP_URL": amqp_url, "LEDGER_URL": bank.command.url},
            stdout=asyncio.subprocess.PIPE,
        )
        assert program.stdout is not None
        try:
            async with asyncio.timeout(START_SECONDS):
                assert (await program.stdout.readline()).startswith(b"Waiting")
            async with load(bank) as clients:
                await clients.go_on(200)
            expected = [
                f"{event['sequence']} {event['type']} {event['subject']} {event['data']}" for event in await bank.log()
            ]
            async with asyncio.timeout(START_SECONDS):
                lines = [(await program.stdout.readline()).decode().rstrip("\n") for _ in expected]
            assert lines == expected
        finally:
            program.kill()
            await program.wait()


async def test_a_third_program_ends_at_what_the_ledger_has_not_signed(amqp_url: str, bank_on: OpenBank) -> None:
    async with bank_on(amqp_url) as bank:
        await bank.create("alice")
        program = await asyncio.create_subprocess_exec(
            sys.executable,
            str(EXAMPLE),
            env={**bank.command.environment, "AMQP_URL": amqp_url, "LEDGER_URL": bank.command.url},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert program.stdout is not None
        try:
            async with asyncio.timeout(START_SECONDS):
                assert (await program.stdout.readline()).startswith(b"Waiting")
                (event,) = await bank.log()
                (message,) = await messages_of(bank, amqp_url)
                message.body = encoded([{**event, "sequence": f"{2:020d}"}])
                await publish_messages(amqp_url, [message])
                told, complaint = await program.communicate()
            assert told == b""
            assert b"InvalidSignature" in complaint
        finally:
            if program.returncode is None:
                program.kill()
                await program.wait()
