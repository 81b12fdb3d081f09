"""A real RabbitMQ for every test: its own virtual host on one node, since the exchange's name is fixed."""

import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from scripts.rabbitmq import RabbitMQNode
from tests.bank import Bank, open_bank
from tests.integration.broker import open_channel, queue_of

OpenBank = Callable[..., AbstractAsyncContextManager[Bank]]


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQNode]:
    """Shared by the tests that don't stop it."""
    node = RabbitMQNode(tmp_path_factory.mktemp("rabbitmq"))
    try:
        node.start()
        yield node
    finally:
        node.close()


@pytest.fixture
def private_node(tmp_path: Path) -> Iterator[RabbitMQNode]:
    """For a test that stops it."""
    node = RabbitMQNode(tmp_path / "rabbitmq")
    try:
        node.start()
        yield node
    finally:
        node.close()


@pytest.fixture
def vhost_url(node: RabbitMQNode) -> Iterator[str]:
    """A broker where nothing else is bound to the exchange."""
    vhost = f"test-{uuid.uuid4().hex[:8]}"
    node.ctl("add_vhost", vhost)
    node.ctl("set_permissions", "--vhost", vhost, "guest", ".*", ".*", ".*")
    yield node.amqp_url + vhost
    node.ctl("delete_vhost", vhost)


@pytest.fixture
def amqp_url(request: pytest.FixtureRequest) -> str:
    """The broker that AMQP_URL names, otherwise a virtual host of our own."""
    url: str = os.environ.get("AMQP_URL") or request.getfixturevalue("vhost_url")
    return url


@pytest.fixture
def bank_on(tmp_path: Path) -> OpenBank:
    """Opens a bank on a broker, and leaves no queue of it behind there."""

    @asynccontextmanager
    async def open_(
        amqp_url: str, projections: int = 1, database_url: str | None = None, replicas: int = 1
    ) -> AsyncIterator[Bank]:
        async with open_bank(tmp_path, amqp_url, projections, database_url, replicas) as bank:
            yield bank
        if amqp_url == os.environ.get("AMQP_URL"):
            async with open_channel(amqp_url) as channel:
                for projection in bank.projections:
                    await channel.queue_delete(queue_of(projection))

    return open_
