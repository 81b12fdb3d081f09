"""Somebody else publishes, with all that the ledger's messages have but its key; or the ledger is not what it was."""

import asyncio
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import pytest
from aio_pika.abc import HeadersType
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from scripts.postgres import PostgresCluster
from tests.bank import Bank, Service
from tests.contract.test_postgres import sql, until
from tests.integration.broker import (
    CONTENT_TYPE,
    EXCHANGE,
    FOLLOWING,
    encoded,
    eventually,
    get_json,
    messages_of,
    metric,
    open_channel,
    proof,
    publish_messages,
    queue_of,
    take_parked,
    until_subscription,
)
from tests.integration.conftest import OpenBank

FORTUNE = 10**12


class Forger:
    """Knows the feed, and with it the chain and the form of everything. His key is not the ledger's."""

    def __init__(self, amqp_url: str, log: list[dict[str, Any]], messages: list[aio_pika.Message]) -> None:
        self.user = urlsplit(amqp_url).username
        self.position = len(log) + 1
        self.event = encoded(
            {
                **log[-1],
                "sequence": f"{self.position:020d}",
                "accountversion": log[-1]["accountversion"] + 1,
                "data": {"amount": FORTUNE, "description": ""},
            }
        )
        self.last = messages[-1].headers
        chain = bytes.fromhex(str(self.last["last_chain"]))
        self.chain = hashlib.sha256(chain + self.event).hexdigest()
        self.source = log[-1]["source"]

    def message(self, headers: HeadersType) -> aio_pika.Message:
        return aio_pika.Message(b"[" + self.event + b"]", content_type=CONTENT_TYPE, user_id=self.user, headers=headers)

    def signed(self) -> str:
        key = Ed25519PrivateKey.generate()
        return key.sign(f"{self.source}\n{self.position}\n{self.chain}".encode()).hex()


FORGERIES: dict[str, Callable[[Forger], HeadersType]] = {
    "nothing said": lambda _: {},
    "positions alone": lambda forger: {"first_position": forger.position, "last_position": forger.position},
    "no signature": lambda forger: proof(forger.position, forger.chain, ""),
    "an empty signature": lambda forger: proof(forger.position, forger.chain, "00" * 64),
    "signed with another key": lambda forger: proof(forger.position, forger.chain, forger.signed()),
    "under the last signature": lambda forger: dict(forger.last),
    "under the last signature, at its own position": lambda forger: {**forger.last, "last_position": forger.position},
    "under the last signature, with its own chain": lambda forger: {**forger.last, "last_chain": forger.chain},
    "words": lambda _: proof(2**62, "chain", "signature"),
    "other types": lambda _: {"last_position": [1], "last_chain": {"a": 1}, "signature": 1.5},
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_forged_event_at_the_next_position_is_parked_or_dropped_and_never_folded(
    amqp_url: str, bank_on: OpenBank, forgery: str
) -> None:
    async with bank_on(amqp_url) as bank:
        await bank.create("alice")
        await bank.deposit("alice", 100)
        await until_subscription(bank, FOLLOWING)
        log = await bank.check_views()
        forger = Forger(amqp_url, log, await messages_of(bank, amqp_url))
        queue = queue_of(bank.projection)
        await publish_messages(amqp_url, [forger.message(FORGERIES[forgery](forger))], queue)
        # Behind it in the queue, so once this one is parked the forged one is done with.
        await publish_messages(amqp_url, [aio_pika.Message(b"the end", user_id=forger.user)], queue)
        parked = [message.body for message in await take_parked(amqp_url, 1)]
        while b"the end" not in parked:
            parked += [message.body for message in await take_parked(amqp_url, 1)]
        assert (await bank.query("/account/alice"))[1]["balance"] == 100
        _, receipt = await bank.deposit("alice", 7)
        assert receipt["position"] == forger.position
        await bank.check_views()
        assert (await bank.query("/account/alice"))[1]["balance"] == 107
        await until_subscription(bank, FOLLOWING)


CHANGED: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "cut at its end": lambda events: events[:-1],
    "cut at its beginning": lambda events: events[1:],
    "with a hole": lambda events: [events[0], *events[2:]],
    "in another order": lambda events: events[::-1],
    "with one twice": lambda events: [events[0], *events],
    "with another amount": lambda events: [events[0].replace(b'"amount":1', b'"amount":9'), *events[1:]],
    "written another way": lambda events: [event.replace(b'":', b'" :') for event in events],
    "with more in it": lambda events: [event.replace(b'{"spec', b'{"more":1,"spec') for event in events],
    "with a member twice": lambda events: [
        event.replace(b'"data":', b'"data":{"amount":9},"data":') for event in events
    ],
    "with an event of later": lambda events: [*events, events[-1].replace(b"0000011", b"0000012")],
    "empty": lambda _: [],
}


@pytest.mark.parametrize("change", CHANGED)
async def test_a_message_that_was_changed_under_its_true_signature_is_not_folded(
    amqp_url: str, bank_on: OpenBank, change: str
) -> None:
    async with bank_on(amqp_url) as bank:
        await bank.create("alice")
        await until_subscription(bank, FOLLOWING)
        queue = queue_of(bank.projection)
        async with open_channel(amqp_url) as channel:
            await (await channel.get_queue(queue)).unbind(EXCHANGE)
        # The projection looks at the head every few seconds: what comes before that is from the queue.
        await bank.post("/commands", [{"type": "deposit", "account_id": "alice", "amount": 1}] * 10)
        (message,) = await messages_of(bank, amqp_url, events=100, after=1)
        events = CHANGED[change]([encoded(event) for event in json.loads(message.body)])
        message.body = b"[" + b",".join(events) + b"]"
        await publish_messages(amqp_url, [message], queue)
        assert len(await bank.check_views()) == 11
        assert (await bank.query("/account/alice"))[1]["balance"] == 10
        async with open_channel(amqp_url) as channel:
            await (await channel.get_queue(queue)).bind(EXCHANGE)
        await until_subscription(bank, FOLLOWING)


async def until_stopped(bank: Bank, projection: Service) -> str:
    async def problem() -> dict[str, Any]:
        return (await get_json(bank, f"{projection.url}/readyz"))[1]

    stopped = await eventually(problem, lambda said: "stopped: " in str(said), "the projection to stop")
    return str(stopped["detail"])


@pytest.mark.parametrize("while_away", [False, True])
async def test_a_ledger_that_went_on_from_an_older_backup_is_told_from_its_old_self_by_name(
    amqp_url: str, bank_on: OpenBank, while_away: bool
) -> None:
    """Its key, its name and its positions are right, and its head is past that of the views."""
    async with bank_on(amqp_url, projections=2) as bank:
        await bank.create("alice")
        await bank.deposit("alice", 100)
        await bank.command.stop()
        (ledger,) = Path(bank.command.environment["DATA_DIR"]).glob("ledger.sqlite3")
        backup = ledger.read_bytes()
        await bank.command.start()
        await bank.deposit("alice", 5)
        await bank.check_views()
        for projection in bank.projections if while_away else ():
            await projection.stop()
        await bank.command.stop()
        ledger.write_bytes(backup)
        await bank.command.start()
        for amount in (7, 8, 9):
            await bank.deposit("alice", amount)
        for projection in bank.projections:
            if while_away:
                await projection.start()
            detail = await until_stopped(bank, projection)
            assert "the views are at 3, " in detail
            assert "older copy" in detail
            assert "PROJECTION_NAME" in detail
            assert await metric(bank, projection, "projection_stopped") == 1
            assert await metric(bank, projection, "projection_following") == 0
        # It stays so, until the operator does what the message says.
        await bank.projection.kill()
        await bank.projection.start()
        assert "PROJECTION_NAME" in await until_stopped(bank, bank.projection)
        for projection in bank.projections:
            await projection.stop()
            async with open_channel(amqp_url) as channel:
                await channel.queue_delete(queue_of(projection))
            projection.environment["PROJECTION_NAME"] += "-anew"
            await projection.start()
        await bank.check_views()
        assert (await bank.query("/account/alice"))[1]["balance"] == 124


async def test_a_database_that_lost_commits_in_a_fail_over_is_told_from_its_old_self(
    amqp_url: str, bank_on: OpenBank, tmp_path: Path, primary: PostgresCluster, standby: PostgresCluster
) -> None:
    """An asynchronous standby takes the place of a primary of which it did not have everything."""
    database = primary.create_database()
    address, _, _ = primary.url(database).rpartition("/")
    url = f"{address},127.0.0.1:{standby.port}/{database}?target_session_attrs=read-write"
    async with bank_on(amqp_url, projections=0, database_url=url) as bank:
        projection = Service(
            "projection_service",
            tmp_path / "projection.log",
            DATA_DIR=str(tmp_path),
            AMQP_URL=amqp_url,
            LEDGER_URL=bank.command.url,
            PROJECTION_NAME=f"lost-{tmp_path.name}",
        )
        await projection.start()
        bank.projections.append(projection)
        await bank.create("alice")
        await until(
            primary.url(database), "SELECT bool_and(replay_lsn = pg_current_wal_lsn()) FROM pg_stat_replication"
        )
        await sql(standby.url(database), "ALTER SYSTEM SET primary_conninfo = ''")
        await sql(standby.url(database), "SELECT pg_reload_conf()")
        await until(primary.url(database), "SELECT count(*) = 0 FROM pg_stat_replication")
        await bank.deposit("alice", 5)
        await bank.check_views()
        primary.kill()
        await asyncio.to_thread(standby.sql, "postgres", "SELECT pg_promote()")
        written = 0
        async with asyncio.timeout(60):
            while written < 3:
                status, _ = await bank.deposit("alice", 7)
                written += status == 200
        assert "the views are at 2, " in await until_stopped(bank, projection)
        await projection.kill()
