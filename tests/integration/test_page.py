"""The page's pipeline with a broker, which goes and comes back; the rest of the page is in tests/browser."""

import asyncio

from playwright.async_api import Browser, expect

from scripts.rabbitmq import RabbitMQNode
from tests.integration.broker import FOLLOWING, until_subscription
from tests.integration.conftest import OpenBank

SHOWN_MILLISECONDS_MAX = 90_000


async def test_the_page_shows_the_way_over_the_broker_and_says_when_it_is_gone(
    private_node: RabbitMQNode, bank_on: OpenBank, browser: Browser
) -> None:
    expect.set_options(timeout=SHOWN_MILLISECONDS_MAX)
    async with bank_on(private_node.amqp_url) as bank:
        await until_subscription(bank, FOLLOWING)
        await bank.create("alice")
        page = await browser.new_page()
        await page.goto(bank.projection.url)
        steps, verdict = page.locator(".steps > div"), page.locator(".verdict")
        await expect(steps).to_contain_text(["In the log", "Published", "In the queue", "In these views", "Behind"])
        await expect(steps).to_contain_text(["1", "1", "0", "1", "0"])
        await expect(page.get_by_role("status")).to_have_text("Live")
        # RabbitMQ 3.10 forgets a quorum queue that was declared half a second before it is killed.
        await asyncio.sleep(2)
        await asyncio.to_thread(private_node.kill)
        await expect(page.get_by_role("status")).to_have_text("Trouble")
        await bank.deposit("alice", 1)
        await expect(steps).to_contain_text(["2", "1", "—", "2", "0"])
        await expect(verdict).to_contain_text("following the feed")
        await expect(page.locator(".tail tbody tr")).to_have_count(2)
        await asyncio.to_thread(private_node.start)
        await expect(steps).to_contain_text(["2", "2", "0", "2", "0"])
        await expect(verdict).to_have_text("Every event of the log is in these views.")
        await expect(page.get_by_role("status")).to_have_text("Live")
        await page.close()
