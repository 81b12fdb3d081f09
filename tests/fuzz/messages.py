"""Messages that are none, or not from the ledger, between those that are: the projection goes on with the log alone."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import aio_pika
from aio_pika.abc import AbstractExchange, DateType, FieldValue, HeadersType

from tests.bank import Bank, open_bank
from tests.fuzz.mutation import Json, encode, mutate, mutate_bytes
from tests.fuzz.oracle import read_log_files
from tests.fuzz.requests import ACCOUNTS
from tests.fuzz.run import memory_mib
from tests.integration.broker import EXCHANGE, FOLLOWING, messages_of, open_channel, queue_of, until_subscription

PUBLISHER = "guest"
"""He may publish as the ledger does, and knows all that the feed tells: everything but the ledger's key."""
TRUE_COMMANDS = 50
CONTENT_TYPES = ("application/cloudevents-batch+json", "text/plain", "", "application/json", "x" * 200)


def nested_table(depth: int) -> dict[str, FieldValue]:
    return {"a": nested_table(depth - 1)} if depth else {}


HEADERS: Sequence[HeadersType] = (
    {},
    {"first_position": "1", "last_position": None},
    {"first_position": -1, "last_position": 2**62},
    {"first_position": [1, {"a": True}]},
    {f"h{number}": "x" * 100 for number in range(100)},
    {"deep": nested_table(100)},
    {"x-death": [{"count": 5, "reason": "rejected"}]},
)
LARGE_BYTES = 512 * 1024
BROKER_BYTES_MAX = 1024 * 1024
"""It takes no larger message: scripts/rabbitmq-limits.conf."""
MEMORY_GROWTH_MAX_MIB = 128


async def fuzz_messages(folder: Path, amqp_url: str, seed: int, enough: Callable[[int], bool]) -> list[str]:
    """Publish the messages of `seed` until `enough` of them; what is wrong afterwards."""
    number = 0
    async with open_bank(folder, amqp_url) as bank, open_channel(amqp_url) as channel:
        for account in ACCOUNTS:
            await bank.create(account)
        await until_subscription(bank, FOLLOWING)
        exchange = await channel.get_exchange(EXCHANGE)
        before = memory_mib(bank.projection)
        while not enough(number):
            if number % TRUE_COMMANDS == 0:
                await bank.deposit(ACCOUNTS[number % len(ACCOUNTS)], 5)
                log = await bank.log()
                signed = [message.headers for message in await messages_of(bank, amqp_url, len(log) // 5 + 1)]
            random = Random(f"{seed}-m-{number}")
            await publish(exchange, channel.default_exchange, queue_of(bank.projection), log, signed, random)
            number += 1
        return [f"seed {seed}, {number} messages: {found}" for found in await check(bank, before)]


async def publish(
    fanout: AbstractExchange,
    direct: AbstractExchange,
    queue: str,
    log: list[dict[str, Any]],
    signed: Sequence[HeadersType],
    random: Random,
) -> None:
    body = make_body(log, random)[:BROKER_BYTES_MAX]
    odd = random.random() < 0.4
    message = aio_pika.Message(
        body,
        user_id=PUBLISHER if random.random() < 0.9 else None,
        delivery_mode=random.choice(list(aio_pika.DeliveryMode)),
        content_type=random.choice(CONTENT_TYPES) if odd else CONTENT_TYPES[0],
        content_encoding=random.choice([None, "gzip", "utf-16"]) if odd else None,
        headers=random.choice(HEADERS) if odd else random.choice(signed),
        type=random.choice([None, "", "ledger.events", "x" * 200]) if odd else "ledger.events",
        app_id=random.choice([None, "command-service", "\ud7ff"]) if odd else "command-service",
        priority=random.choice([None, 0, 255]) if odd else None,
        correlation_id=random.choice([None, "x"]) if odd else None,
        timestamp=random.choice(TIMESTAMPS) if odd else None,
    )
    if random.random() < 0.5:
        await fanout.publish(message, routing_key="")
    else:
        await direct.publish(message, routing_key=queue)


TIMESTAMPS: Sequence[DateType] = (None, 0, 2**33)


def make_body(log: list[dict[str, Any]], random: Random) -> bytes:
    """A good batch, and what becomes of it."""
    start = random.randrange(len(log))
    events: Json = log[start : start + random.choice([0, 1, 1, 3, 50])]
    match random.randrange(8):
        case 0:
            random.shuffle(shuffled := list(events))  # type: ignore[call-overload]
            return encode(shuffled, random)
        case 1:
            return mutate_bytes(json.dumps(events).encode(), random)
        case 2:
            foreign = [{**event, "source": "/ledgers/another"} for event in log[start : start + 5]]
            return encode(mutate(foreign, random) if random.random() < 0.5 else foreign, random)
        case 3 if random.random() < 0.1:
            return random.randbytes(10) * (LARGE_BYTES // 10)
        case 4:
            # The next one, one of long ago, one far ahead.
            position = random.choice([len(log) + 1, 1, len(log) + 1000, 10**18, 10**19, 0, -1])
            return json.dumps([{**log[start], "sequence": f"{position:020d}"}]).encode()
    return encode(mutate(events, random), random)


async def check(bank: Bank, before: float) -> list[str]:
    """What is wrong with the projection, once all messages have come to it."""
    projection = bank.projection
    assert projection.process is not None
    if projection.process.poll() is not None:
        return [f"the projection has ended with {projection.process.returncode}"]
    wrong = []
    try:
        await until_subscription(bank, FOLLOWING)
        await bank.deposit(ACCOUNTS[0], 5)
        await bank.check_views()
        await until_subscription(bank, FOLLOWING)
    except AssertionError as error:
        wrong.append(str(error))
    if memory_mib(projection) > before + MEMORY_GROWTH_MAX_MIB:
        wrong.append(f"its memory grew from {before:.0f} to {memory_mib(projection):.0f} MiB")
    return wrong + read_log_files(projection.log)
