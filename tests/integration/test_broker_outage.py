"""The broker goes away and comes back: commands and views go on, and then everything is published."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from scripts.rabbitmq import RabbitMQNode
from tests.bank import Bank
from tests.integration.broker import (
    FOLLOWING,
    bind,
    first_seen,
    frozen,
    observe,
    until_confirmed,
    until_relay,
    until_subscription,
)
from tests.integration.conftest import OpenBank
from tests.integration.load import Load, load

COLLECTOR = "collector"


async def views_follow(bank: Bank, clients: Load) -> None:
    """Assert that what is recorded from now on becomes visible in every projection."""
    await clients.go_on(50)
    position = max(answer["position"] for answer in clients.acknowledged.values())
    for projection in bank.projections:
        status, reserve = await bank.query("/reserve", projection, min_position=position, wait=30)
        assert status == 200, reserve


async def check_that_everything_was_published_in_order(bank: Bank, amqp_url: str) -> None:
    head = len(await bank.log())
    await until_confirmed(bank, head)
    async with observe(amqp_url, COLLECTOR) as observer:
        await observer.reach(head)
        assert first_seen(observer.positions) == list(range(1, head + 1))


@pytest.mark.parametrize("end", [RabbitMQNode.stop, RabbitMQNode.kill])
async def test_a_broker_that_is_down_refuses_no_command_and_holds_up_no_view(
    private_node: RabbitMQNode, bank_on: OpenBank, end: Callable[[RabbitMQNode], None]
) -> None:
    await bind(private_node.amqp_url, COLLECTOR)
    async with bank_on(private_node.amqp_url, projections=2) as bank:
        async with load(bank) as clients:
            # RabbitMQ 3.10 forgets a quorum queue that was declared half a second before it is killed.
            await asyncio.sleep(2)
            await asyncio.to_thread(end, private_node)
            await until_relay(bank, "not publishing")
            await until_subscription(bank, "following the feed: ")
            await views_follow(bank, clients)
            await asyncio.to_thread(private_node.start)
            await until_relay(bank, "publishing")
            await until_subscription(bank, FOLLOWING)
            await views_follow(bank, clients)
        assert clients.unanswered == set()
        await check_that_everything_was_published_in_order(bank, private_node.amqp_url)


async def test_a_broker_that_falls_silent_refuses_no_command_and_holds_up_no_view(
    private_node: RabbitMQNode, bank_on: OpenBank
) -> None:
    await bind(private_node.amqp_url, COLLECTOR)
    async with bank_on(private_node.amqp_url) as bank:
        async with load(bank) as clients:
            async with frozen(private_node):
                await views_follow(bank, clients)
                # Nobody closes the connections: only missing heartbeats and time-outs tell.
                await until_relay(bank, "not publishing")
                await until_subscription(bank, "following the feed: ")
                await views_follow(bank, clients)
            await until_relay(bank, "publishing")
            await until_subscription(bank, FOLLOWING)
            await views_follow(bank, clients)
        assert clients.unanswered == set()
        await check_that_everything_was_published_in_order(bank, private_node.amqp_url)


async def test_services_that_start_while_the_broker_is_down_serve_and_publish_later(
    private_node: RabbitMQNode, bank_on: OpenBank
) -> None:
    await bind(private_node.amqp_url, COLLECTOR)
    await asyncio.to_thread(private_node.stop)
    async with bank_on(private_node.amqp_url) as bank:
        assert (await bank.create("alice"))[0] == 201
        assert (await bank.deposit("alice", 1250))[0] == 200
        await bank.check_views()
        await bank.projection.wait_for("/readyz")
        await asyncio.to_thread(private_node.start)
        await until_subscription(bank, FOLLOWING)
        await check_that_everything_was_published_in_order(bank, private_node.amqp_url)


@pytest.mark.parametrize("greeting", [b"", b"AMQP\x00\x00\x09\x01", b"HTTP/1.1 502 Bad Gateway\r\n\r\n"])
async def test_a_proxy_that_hangs_up_is_like_a_broker_that_is_down(bank_on: OpenBank, greeting: bytes) -> None:
    calls = asyncio.Semaphore(0)

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        writer.close()
        calls.release()

    async with AsyncExitStack() as stack:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        await stack.enter_async_context(await asyncio.start_server(hang_up, sock=listener))
        bank = await stack.enter_async_context(bank_on(f"amqp://127.0.0.1:{port}/"))
        for _ in range(10):
            await calls.acquire()
        assert (await bank.create("alice"))[0] == 201
        await until_relay(bank, "not publishing")
        await bank.check_views()
        await bank.projection.wait_for("/readyz")
