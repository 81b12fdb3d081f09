"""Somebody else publishes, with all that a message of the ledger's has: the views are not wrong for long."""

import json
from typing import Any

import pytest

from tests.bank import Bank
from tests.integration.broker import (
    FOLLOWING,
    encoded,
    eventually,
    get_json,
    open_channel,
    publish,
    queue_of,
    until_subscription,
    value_of,
)
from tests.integration.conftest import OpenBank

FORTUNE = 10**12


async def forge(bank: Bank, amqp_url: str) -> int:
    """Publish a deposit that never was, as the next event after the last, and then record one; its position."""
    log = await bank.log()
    position = len(log) + 1
    forged = {
        **log[-1],
        "sequence": f"{position:020d}",
        "accountversion": log[-1]["accountversion"] + 1,
        "data": {"amount": FORTUNE, "description": ""},
    }
    await publish(amqp_url, [encoded([forged])])

    async def balance() -> int:
        return int((await bank.query("/reserve"))[1]["amount"])

    await eventually(balance, lambda amount: amount > FORTUNE, "the forged event in the view")
    _, receipt = await bank.deposit("alice", 7)
    assert receipt["position"] == position
    return position


async def until_stopped(bank: Bank) -> str:
    async def problem() -> dict[str, Any]:
        return (await get_json(bank, f"{bank.projection.url}/readyz"))[1]

    stopped = await eventually(problem, lambda said: "stopped: " in str(said), "the projection to stop")
    return str(stopped["detail"])


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_a_forged_event_stops_the_projection_at_the_next_comparison_with_the_ledger(
    amqp_url: str, bank_on: OpenBank, is_restarted: bool
) -> None:
    async with bank_on(amqp_url) as bank:
        await bank.create("alice")
        await bank.deposit("alice", 100)
        await until_subscription(bank, FOLLOWING)
        position = await forge(bank, amqp_url)
        if is_restarted:
            await bank.projection.kill()
            await bank.projection.start()
        detail = await until_stopped(bank)
        assert "PROJECTION_NAME" in detail
        assert f" to {position} " in detail or f"views are at {position}" in detail
        async with bank.http.get(f"{bank.projection.url}/metrics") as response:
            metrics = await response.text()
        assert value_of("projection_stopped", metrics) == 1
        assert value_of("projection_following", metrics) == 0
        last = json.loads(bank.projection.log.read_text().splitlines()[-1])
        assert (last["event"], last["level"]) == ("subscription stopped", "error")
        # It stays so, until the operator does what the message says.
        await bank.projection.kill()
        await bank.projection.start()
        assert "PROJECTION_NAME" in await until_stopped(bank)
        await bank.projection.stop()
        async with open_channel(amqp_url) as channel:
            await channel.queue_delete(queue_of(bank.projection))
        bank.projection.environment["PROJECTION_NAME"] += "-anew"
        await bank.projection.start()
        await bank.check_views()
        await bank.projection.wait_for("/readyz")


async def test_messages_of_the_ledger_are_compared_with_it_while_they_come(amqp_url: str, bank_on: OpenBank) -> None:
    async with bank_on(amqp_url) as bank:
        await bank.create("alice")
        await until_subscription(bank, FOLLOWING)

        async def unverified() -> float:
            async with bank.http.get(f"{bank.projection.url}/metrics") as response:
                return value_of("projection_unverified_events", await response.text())

        for _ in range(2):
            await bank.post("/commands", [{"type": "deposit", "account_id": "alice", "amount": 1}] * 3_000)
            await eventually(unverified, lambda events: events > 0, "messages to be folded")
            await eventually(unverified, lambda events: events == 0, "messages to be verified")
        await bank.check_views()
        assert FOLLOWING in str(await get_json(bank, f"{bank.projection.url}/readyz"))
