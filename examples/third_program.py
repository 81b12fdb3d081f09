"""A third program: prints every event of the ledger as it happens, and believes none that the ledger has not signed.

Nothing here is Counting House's own code. Run it with
`LEDGER_URL=http://127.0.0.1:8080 AMQP_URL=amqp://guest:guest@127.0.0.1/ python examples/third_program.py`.
"""

import asyncio
import contextlib
import hashlib
import json
import os
from collections.abc import Iterator

import aio_pika
import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

LEDGER_URL = os.environ.get("LEDGER_URL") or "http://127.0.0.1:8080"
AMQP_URL = os.environ.get("AMQP_URL") or "amqp://guest:guest@127.0.0.1/"


def split(batch: str) -> Iterator[tuple[bytes, dict[str, str]]]:
    """Each event of a batch, which has a line for each: its bytes, which the chain goes over, and what is in them."""
    for line in batch[1:-1].split(",\n"):
        yield line.encode(), json.loads(line)


async def main() -> None:
    async with await aio_pika.connect(AMQP_URL) as connection, aiohttp.ClientSession() as http:
        channel = await connection.channel()
        exchange = await channel.get_exchange("ledger.events")  # the ledger's: it is there once that has started
        # This queue goes when the program ends. With a name and durable=True it would collect in the meantime.
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(exchange)
        # Where the ledger is now. Who has been here before has its key, position and chain, and asks from there on.
        async with http.get(f"{LEDGER_URL}/events?after={2**62}&limit=0") as page:
            told = page.headers
        source, position, chain = told["Ledger-Source"], int(told["Ledger-Position"]), told["Ledger-Chain"]
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(told["Ledger-Key"]))
        key.verify(bytes.fromhex(told["Ledger-Signature"]), f"{source}\n{position}\n{chain}".encode())
        print(f"Waiting for events after position {position}. Ctrl-C ends it.", flush=True)
        async with queue.iterator() as messages:
            async for message in messages:
                async with message.process():
                    # A message is a run of CloudEvents. It can come twice, or overlap with the last one.
                    fresh = [(b, e) for b, e in split(message.body.decode()) if int(e["sequence"]) > position]
                    for encoded, _ in fresh:
                        chain = hashlib.sha256(bytes.fromhex(chain) + encoded).hexdigest()
                    position += len(fresh)
                    # Raises InvalidSignature when any event up to here is not the ledger's: what is missing, changed
                    # or forged makes another chain.
                    signature = bytes.fromhex(str(message.headers["signature"]))
                    if fresh:
                        key.verify(signature, f"{source}\n{position}\n{chain}".encode())
                    for _, event in fresh:
                        print(event["sequence"], event["type"], event["subject"], event["data"], flush=True)


with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main())
