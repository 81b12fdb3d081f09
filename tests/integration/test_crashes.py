"""SIGKILL of either service at any moment of a load, on a real RabbitMQ."""

import asyncio

from tests.bank import Bank, Service
from tests.integration.conftest import OpenBank
from tests.integration.load import load, seeded

KILLS = 6
UPTIME_SECONDS_MAX = 0.8


async def kill_again_and_again(service: Service) -> None:
    random = seeded()
    for _ in range(KILLS):
        await asyncio.sleep(random.uniform(0, UPTIME_SECONDS_MAX))
        await service.kill()
        await service.start()


async def test_a_killed_command_service_loses_and_doubles_nothing(amqp_url: str, bank_on: OpenBank) -> None:
    async with bank_on(amqp_url, projections=2) as bank, load(bank) as clients:
        await kill_again_and_again(bank.command)
        await clients.go_on(50)
        assert clients.acknowledged


async def test_a_killed_projection_loses_and_doubles_nothing(amqp_url: str, bank_on: OpenBank) -> None:
    async with bank_on(amqp_url, projections=2) as bank, load(bank) as clients:
        await kill_again_and_again(bank.projection)
        await clients.go_on(50)


async def test_both_services_killed_at_once_lose_and_double_nothing(amqp_url: str, bank_on: OpenBank) -> None:
    async with bank_on(amqp_url) as bank, load(bank) as clients:
        await asyncio.gather(kill_again_and_again(bank.command), kill_again_and_again(bank.projection))
        await clients.go_on(50)


async def test_services_started_again_after_both_were_killed_agree_without_any_new_command(
    amqp_url: str, bank_on: OpenBank
) -> None:
    async with bank_on(amqp_url) as bank:
        await bank.create("alice")
        deposits = [bank.deposit("alice", 1) for _ in range(200)]
        killing = asyncio.create_task(kill_after(bank, 0.05))
        answers = await asyncio.gather(*deposits, return_exceptions=True)
        await killing
        await bank.command.start()
        await bank.projection.start()
        events = await bank.check_views()
        acknowledged = [answer[1]["event_id"] for answer in answers if isinstance(answer, tuple)]
        assert set(acknowledged) <= {event["id"] for event in events}
        assert len(events) <= 201


async def kill_after(bank: Bank, seconds: float) -> None:
    await asyncio.sleep(seconds)
    await asyncio.gather(bank.command.kill(), bank.projection.kill())
