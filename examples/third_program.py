"""A third program: prints every event of the ledger as it happens. Nothing here is Counting House's own code.

Run it with `AMQP_URL=amqp://guest:guest@127.0.0.1/ python examples/third_program.py`.
"""

import asyncio
import contextlib
import json
import os

import aio_pika


async def main() -> None:
    async with await aio_pika.connect(os.environ.get("AMQP_URL") or "amqp://guest:guest@127.0.0.1/") as connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange("ledger.events")  # the ledger's: it is there once that has started
        # This queue goes when the program ends. With a name and durable=True it would collect in the meantime.
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(exchange)
        print("Waiting for events. Ctrl-C ends it.", flush=True)
        async with queue.iterator() as messages:
            async for message in messages:
                async with message.process():
                    # A message is a run of CloudEvents. It can come twice: whoever counts remembers the sequence.
                    for event in json.loads(message.body):
                        print(event["sequence"], event["type"], event["subject"], event["data"], flush=True)


with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main())
