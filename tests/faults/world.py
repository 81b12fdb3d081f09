"""The whole bank, twice over: two command services, two projections (one of them as two processes that share their
views), RabbitMQ and PostgreSQL, with a link that can break between any two of them."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from scripts.postgres import PostgresCluster
from scripts.rabbitmq import RabbitMQNode
from tests.bank import Service
from tests.faults.link import Link
from tests.integration.broker import eventually, value_of

RESTART_SECONDS = 120


@dataclass(frozen=True)
class Process:
    """Something that can be killed and stopped, however it is started."""

    name: str
    send: Callable[[signal.Signals], None]
    kill: Callable[[], Awaitable[None]]
    start: Callable[[], Awaitable[None]]
    check: Callable[[], str | None]
    """Says so when it has ended by itself."""


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.links: dict[str, Link] = {}
        self.processes: list[Process] = []
        self.commands: list[Service] = []
        self.projections: list[Service] = []
        self.command_urls: list[str] = []
        """Where clients find the command services: through links."""
        self.projection_urls: dict[str, str] = {}
        """Where they find the projections, and the name of each: those of one name share their views."""

    async def link(self, name: str, target_port: int) -> int:
        """A new link to `target_port`; the port to use instead."""
        self.links[name] = link = Link(target_port)
        await link.open()
        return link.port

    async def add_service(self, name: str, module: str, **environment: str) -> Service:
        service = Service(module, self.folder / f"{name}.log", DATA_DIR=str(self.folder / name), **environment)

        def ended() -> str | None:
            if service.process is None or service.process.poll() is None:
                return None
            return f"{name} ended by itself with {service.process.returncode}"

        def send(signal_number: signal.Signals) -> None:
            assert service.process is not None
            service.process.send_signal(signal_number)

        self.processes.append(Process(name, send, service.kill, lambda: start_again(service), ended))
        return service


async def start_again(service: Service) -> None:
    """Like whoever supervises it: as often as it takes, since what it needs may be away."""
    async with asyncio.timeout(RESTART_SECONDS):
        while True:
            try:
                await service.start()
                return
            except (RuntimeError, TimeoutError):
                await service.kill()
                await asyncio.sleep(0.2)


@asynccontextmanager
async def open_world(folder: Path) -> AsyncIterator[World]:
    world = World(folder)
    async with AsyncExitStack() as stack:
        cluster = PostgresCluster()
        stack.callback(cluster.close)
        node = RabbitMQNode(folder / "rabbitmq")
        stack.callback(node.close)
        await asyncio.gather(asyncio.to_thread(cluster.start), asyncio.to_thread(node.start))
        database = cluster.create_database()
        world.processes += [server("postgres", cluster), server("rabbitmq", node)]

        async def database_url(user: str) -> str:
            return cluster.url(database, await world.link(f"{user}-postgres", cluster.port))

        async def amqp_url(user: str) -> str:
            return f"amqp://guest:guest@127.0.0.1:{await world.link(f'{user}-rabbitmq', node.port)}/"

        for number in range(2):
            name = f"command-{number}"
            command = await world.add_service(
                name, "command_service", DATABASE_URL=await database_url(name), AMQP_URL=await amqp_url(name)
            )
            world.commands.append(command)
            world.command_urls.append(f"http://127.0.0.1:{await world.link(f'client-{name}', command.port)}")
        for number, views in enumerate(("postgres", "sqlite", "postgres")):
            name, projection_name = f"projection-{number}", f"projection-on-{views}"
            projection = await world.add_service(
                name,
                "projection_service",
                PROJECTION_NAME=projection_name,
                AMQP_URL=await amqp_url(name),
                LEDGER_URL=f"http://127.0.0.1:{await world.link(f'{name}-feed', world.commands[number % 2].port)}",
                **({"DATABASE_URL": await database_url(name)} if views == "postgres" else {}),
            )
            world.projections.append(projection)
            url = f"http://127.0.0.1:{await world.link(f'client-{name}', projection.port)}"
            world.projection_urls[url] = projection_name
        for link in world.links.values():
            stack.push_async_callback(link.close)
        services = [*world.commands, *world.projections]
        for service in services:
            stack.push_async_callback(service.kill)
        await asyncio.gather(*(service.start() for service in services))
        assert await trouble(world) is None
        # RabbitMQ 3.10 forgets a quorum queue that it made less than about half a second before it is killed.
        await asyncio.sleep(2)
        yield world


def server(name: str, server: PostgresCluster | RabbitMQNode) -> Process:
    async def kill() -> None:
        await asyncio.to_thread(server.kill)

    async def start() -> None:
        await asyncio.to_thread(server.start)

    return Process(name, server.send, kill, start, lambda: None)


async def trouble(world: World) -> str | None:
    """What does not work again; None when all projections follow their queues, and a relay has published all."""
    if all_ended := [ended for process in world.processes if (ended := process.check())]:
        return "; ".join(all_ended)

    async def ask(service: Service, path: str) -> str:
        async with http.get(service.url + path) as response:
            return await response.text()

    async def unpublished() -> float:
        metrics = [await ask(command, "/metrics") for command in world.commands]
        heads, confirmed = (
            [value_of(metric, text) for text in metrics]
            for metric in ("ledger_head_position", "ledger_relay_confirmed_position")
        )
        return max(heads) - max(confirmed)

    async with aiohttp.ClientSession() as http:
        try:
            for projection in world.projections:
                await eventually(
                    lambda projection=projection: ask(projection, "/readyz"),  # type: ignore[misc]
                    lambda answer: "following ledger.projection." in answer,
                    "a projection to follow its queue",
                )
            await eventually(unpublished, lambda events: events == 0, "the relay to publish all events")
        except (AssertionError, aiohttp.ClientError) as error:
            return str(error)
    return None
