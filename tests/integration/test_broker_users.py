"""Who may do what at the broker, and what a projection believes of one who may write to the exchange."""

import asyncio
import json
import re
import shlex
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import ChannelPreconditionFailed
from aiormq.exceptions import ChannelAccessRefused

from scripts.rabbitmq import COMMAND_USER, DEFINITIONS, PROJECTION_USER, RabbitMQNode
from tests.bank import START_SECONDS, Bank
from tests.integration.broker import (
    CONTENT_TYPE,
    EXCHANGE,
    FOLLOWING,
    PARKED,
    metric,
    open_channel,
    publish,
    publish_messages,
    queue_of,
    take_parked,
    until_relay,
    until_subscription,
)
from tests.integration.conftest import OpenBank

UrlOf = Callable[[str], str]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def url_of(node: RabbitMQNode, vhost_url: str, tmp_path: Path) -> UrlOf:
    """The URL of each user in a virtual host with all that the definitions have."""
    import_definitions(node, vhost_url, tmp_path)
    return lambda user: node.user_url(user) + urlsplit(vhost_url).path[1:]


def import_definitions(node: RabbitMQNode, vhost_url: str, folder: Path) -> None:
    definitions = folder / "definitions.json"
    vhost = urlsplit(vhost_url).path[1:]
    definitions.write_text(DEFINITIONS.read_text().replace('"vhost": "/"', f'"vhost": "{vhost}"'))
    node.import_definitions(definitions)


@pytest.fixture
async def bank(vhost_url: str, url_of: UrlOf, bank_on: OpenBank) -> AsyncIterator[Bank]:
    """Its services log in as `make run-rabbitmq` has it, the projection first."""
    async with bank_on(vhost_url) as bank:
        for service in (bank.command, bank.projection):
            await service.stop()
        bank.command.environment["AMQP_URL"] = url_of(COMMAND_USER)
        bank.projection.environment |= {"AMQP_URL": url_of(PROJECTION_USER), "AMQP_PUBLISHER": COMMAND_USER}
        async with open_channel(vhost_url) as channel:
            await channel.queue_delete(queue_of(bank.projection))
        await bank.projection.start()
        await bank.command.start()
        await bank.create("alice")
        await until_subscription(bank, FOLLOWING)
        await until_relay(bank, "publishing")
        yield bank


async def refused(amqp_url: str, what: Callable[[AbstractChannel], object]) -> bool:
    async with open_channel(amqp_url) as channel:
        try:
            await what(channel)  # type: ignore[misc]
        except ChannelAccessRefused:
            return True
    return False


async def test_each_service_may_do_what_it_does_and_nothing_else(bank: Bank, url_of: UrlOf) -> None:
    async def write(channel: AbstractChannel, exchange: str, routing_key: str = "") -> None:
        await (await channel.get_exchange(exchange, ensure=False)).publish(aio_pika.Message(b""), routing_key)

    async def ignore(_: object) -> None: ...

    queue = queue_of(bank.projection)
    relay, projection = url_of(COMMAND_USER), url_of(PROJECTION_USER)
    assert await refused(projection, lambda channel: write(channel, EXCHANGE))
    assert await refused(projection, lambda channel: write(channel, "", queue))
    assert await refused(projection, lambda channel: channel.declare_queue("another"))
    assert await refused(relay, lambda channel: write(channel, PARKED))
    assert await refused(relay, lambda channel: write(channel, "", queue))
    for read in (queue, PARKED):

        async def consume(channel: AbstractChannel, read: str = read) -> None:
            await (await channel.get_queue(read, ensure=False)).consume(ignore)

        assert await refused(relay, consume)
    assert not await refused(relay, lambda channel: write(channel, EXCHANGE))
    for user in (relay, projection):
        for name in (EXCHANGE, PARKED):

            async def declare(channel: AbstractChannel, name: str = name) -> None:
                await channel.declare_exchange(name, aio_pika.ExchangeType.FANOUT, durable=True)

            async def delete(channel: AbstractChannel, name: str = name) -> None:
                await channel.exchange_delete(name)

            assert await refused(user, declare)
            assert await refused(user, delete)
        assert await refused(user, lambda channel: channel.queue_delete(PARKED))


async def test_the_definitions_make_what_the_services_make_by_themselves(
    node: RabbitMQNode, vhost_url: str, bank_on: OpenBank, tmp_path: Path
) -> None:
    columns = {
        "list_exchanges": ["name", "type", "durable", "auto_delete", "arguments"],
        "list_queues": ["name", "durable", "auto_delete", "arguments"],
        "list_bindings": ["source_name", "destination_name", "routing_key", "arguments"],
    }

    def listed() -> list[dict[str, Any]]:
        """Without what every virtual host has, and what JSON can't say: how many bytes a number takes."""
        arguments = ["--vhost", urlsplit(vhost_url).path[1:], "--formatter", "json"]
        found = [entry for what in columns for entry in json.loads(node.ctl(what, *arguments, *columns[what]))]
        return [
            {**entry, "arguments": {name: value for name, _, value in entry["arguments"]}}
            for entry in found
            if str(entry.get("name", entry.get("source_name"))).startswith("ledger.")
        ]

    async with bank_on(vhost_url) as bank, open_channel(vhost_url) as channel:
        await until_subscription(bank, FOLLOWING)
        await bank.command.stop()
        await bank.projection.stop()
        await channel.queue_delete(queue_of(bank.projection))
        made = listed()
        await channel.queue_delete(PARKED)
        await channel.exchange_delete(PARKED)
        await channel.exchange_delete(EXCHANGE)
        import_definitions(node, vhost_url, tmp_path)
        assert listed() == made
        assert len(made) == 4
        # Nor does the broker see a difference: with one of them missing, all are declared.
        await channel.exchange_delete(PARKED)
        await bank.command.start()
        await bank.projection.start()
        await until_subscription(bank, FOLLOWING)


async def test_what_the_services_may_not_make_and_somebody_removed_an_import_brings_back(
    bank: Bank, node: RabbitMQNode, vhost_url: str, tmp_path: Path
) -> None:
    async with open_channel(vhost_url) as channel:
        await channel.exchange_delete(EXCHANGE)
        await channel.queue_delete(PARKED)
    await bank.deposit("alice", 1)
    assert EXCHANGE in await until_relay(bank, "not publishing: ACCESS_REFUSED")
    await bank.check_views()
    import_definitions(node, vhost_url, tmp_path)
    # It binds its queue when it begins to follow.
    await bank.projection.stop()
    await bank.projection.start()
    await until_relay(bank, "publishing")
    await bank.deposit("alice", 1)
    await bank.check_views()
    await publish(vhost_url, [b"not by the relay"])
    assert len(await take_parked(vhost_url, 1)) == 1


async def test_a_projection_with_a_user_of_its_own_may_not_touch_the_queue_of_another(
    bank: Bank, node: RabbitMQNode, vhost_url: str
) -> None:
    other = queue_of(bank.projection)
    vhost = urlsplit(vhost_url).path[1:]
    name = f"audit-{uuid.uuid4().hex[:8]}"
    lines = re.findall(r"^rabbitmqctl (.*audit.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert [line.split()[0] for line in lines] == ["add_user", "set_permissions"]
    for line in lines:
        command, *arguments = shlex.split(line.replace("audit", name))
        node.ctl(command, *(["--vhost", vhost] if command == "set_permissions" else []), *arguments)
    bank.projection.environment |= {"AMQP_URL": node.user_url(name) + vhost, "PROJECTION_NAME": name}
    own = queue_of(bank.projection)
    await bank.projection.stop()
    await bank.projection.start()
    await until_subscription(bank, f"following {own}")
    await bank.deposit("alice", 1)
    await bank.check_views()
    await publish(vhost_url, [b"not by the relay"])
    await take_parked(vhost_url, 1)

    async def purge(channel: AbstractChannel, queue: str) -> None:
        await (await channel.get_queue(queue, ensure=False)).purge()

    url = node.user_url(name) + vhost
    assert await refused(url, lambda channel: purge(channel, other))
    assert await refused(url, lambda channel: channel.queue_delete(other))
    assert await refused(url, lambda channel: channel.declare_queue(other, durable=True))
    assert await refused(url, lambda channel: channel.declare_queue(f"{own}2"))
    assert not await refused(url, lambda channel: purge(channel, own))
    node.ctl("delete_user", name)


async def test_a_third_program_needs_no_right_to_configure_the_exchange(
    bank: Bank, node: RabbitMQNode, vhost_url: str
) -> None:
    user = f"third-{uuid.uuid4().hex[:8]}"
    vhost = urlsplit(vhost_url).path[1:]
    node.ctl("add_user", user, user)
    node.ctl("set_permissions", "--vhost", vhost, user, r"^amq\.gen", r"^amq\.gen", r"^(amq\.gen.*|ledger\.events)$")
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "examples" / "third_program.py"),
        env={**bank.command.environment, "AMQP_URL": node.user_url(user) + vhost, "LEDGER_URL": bank.command.url},
        stdout=asyncio.subprocess.PIPE,
    )
    assert program.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            assert (await program.stdout.readline()).startswith(b"Waiting")
            await bank.deposit("alice", 1)
            assert b"amount-deposited" in await program.stdout.readline()
    finally:
        program.kill()
        await program.wait()
    node.ctl("delete_user", user)


async def test_the_broker_refuses_a_message_that_could_fill_the_memory_of_a_projection(
    bank: Bank, url_of: UrlOf
) -> None:
    relay = url_of(COMMAND_USER)
    size_max = 1024 * 1024
    await publish(relay, [b" " * size_max])
    with pytest.raises(ChannelPreconditionFailed, match="larger than"):
        await publish(relay, [b" " * (size_max + 1)])


async def test_the_broker_lets_nobody_use_the_relays_name(bank: Bank, url_of: UrlOf, vhost_url: str) -> None:
    message = aio_pika.Message(b"[]", content_type=CONTENT_TYPE, user_id=COMMAND_USER)
    with pytest.raises(ChannelPreconditionFailed):
        await publish_messages(vhost_url, [message])


async def test_a_forged_event_of_one_who_may_write_is_parked_and_never_folded(
    bank: Bank, node: RabbitMQNode, vhost_url: str
) -> None:
    intruder = f"intruder-{uuid.uuid4().hex[:8]}"
    vhost = urlsplit(vhost_url).path[1:]
    node.ctl("add_user", intruder, intruder)
    node.ctl("set_permissions", "--vhost", vhost, intruder, "^$", r"^ledger\.events$", "^$")
    await bank.deposit("alice", 107)
    events = await bank.check_views()
    forged = {**events[-1], "sequence": f"{3:020d}", "accountversion": 3, "data": {"amount": 10**12, "description": ""}}
    body = json.dumps([forged]).encode()
    intruder_url = node.user_url(intruder) + vhost
    await publish(intruder_url, [body])
    await publish_messages(intruder_url, [aio_pika.Message(body, content_type=CONTENT_TYPE)])
    parked = await take_parked(vhost_url, 2)
    assert [message.body for message in parked] == [body, body]
    assert f"its user is {intruder!r}" in str(parked[0].headers["parked-reason"])
    assert await metric(bank, bank.projection, "projection_parked_messages_total") == 2
    assert (await bank.query("/account/alice"))[1]["balance"] == 107
    # The real event with this position is folded when it comes.
    await bank.deposit("alice", 1)
    await bank.check_views()
    assert (await bank.query("/account/alice"))[1]["balance"] == 108
    node.ctl("delete_user", intruder)
