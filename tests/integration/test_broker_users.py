"""Who may do what at the broker, and what a projection believes of one who may write to the exchange."""

import json
import uuid
from collections.abc import AsyncIterator, Callable
from urllib.parse import urlsplit

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import ChannelPreconditionFailed
from aiormq.exceptions import ChannelAccessRefused

from scripts.rabbitmq import COMMAND_USER, DEFINITIONS, PROJECTION_USER, RabbitMQNode
from tests.bank import Bank
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


@pytest.fixture
def url_of(node: RabbitMQNode, vhost_url: str) -> UrlOf:
    """The URL of each user in a virtual host where they have their rights."""
    vhost = urlsplit(vhost_url).path[1:]
    node.import_users()
    for rights in json.loads(DEFINITIONS.read_text())["permissions"]:
        permissions = (rights["user"], rights["configure"], rights["write"], rights["read"])
        node.ctl("set_permissions", "--vhost", vhost, *permissions)
    return lambda user: node.user_url(user) + vhost


@pytest.fixture
async def bank(vhost_url: str, url_of: UrlOf, bank_on: OpenBank) -> AsyncIterator[Bank]:
    """Its services log in as `make run-rabbitmq` has it, the projection first."""
    async with bank_on(vhost_url) as bank:
        for service in (bank.command, bank.projection):
            await service.stop()
        bank.command.environment["AMQP_URL"] = url_of(COMMAND_USER)
        bank.projection.environment |= {"AMQP_URL": url_of(PROJECTION_USER), "AMQP_PUBLISHER": COMMAND_USER}
        async with open_channel(vhost_url) as channel:
            await channel.exchange_delete(EXCHANGE)
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
