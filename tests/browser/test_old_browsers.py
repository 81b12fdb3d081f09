"""What is seen in a browser that cannot run the page."""

import pytest
from playwright.async_api import Browser, Page, Route, expect

from tests.bank import Bank

CANNOT_BEGIN = "This page cannot begin."
NEEDS_JAVASCRIPT = "This page needs JavaScript"


async def check_shown(page: Page, bank: Bank, words: str) -> None:
    await page.goto(bank.projection.url)
    await expect(page.locator("p", has_text=words)).to_be_visible()
    await expect(page.get_by_text("Loading")).to_be_hidden()


async def test_without_javascript_that_is_said(bank: Bank, browser: Browser) -> None:
    async with await browser.new_context(java_script_enabled=False) as context:
        await check_shown(await context.new_page(), bank, NEEDS_JAVASCRIPT)


@pytest.mark.parametrize("feature", ["JSON.rawJSON", "AbortSignal.any"])
async def test_without_what_the_page_needs_that_is_said(bank: Bank, browser: Browser, feature: str) -> None:
    async with await browser.new_context() as context:
        page = await context.new_page()
        await page.add_init_script(f"delete {feature}")
        await check_shown(page, bank, CANNOT_BEGIN)


async def test_without_modules_that_is_said(bank: Bank, browser: Browser) -> None:
    """Nothing of them runs there: neither does it when one of them cannot be read."""

    async def unreadable(route: Route) -> None:
        await route.fulfill(content_type="text/javascript", body="class { new syntax }")

    async with await browser.new_context() as context:
        page = await context.new_page()
        await page.route("**/dashboard/dom.js", unreadable)
        await check_shown(page, bank, CANNOT_BEGIN)


async def test_in_a_browser_that_can_nothing_of_that_is_seen(bank: Bank, browser: Browser) -> None:
    async with await browser.new_context() as context:
        page = await context.new_page()
        await page.goto(bank.projection.url, wait_until="load")
        await expect(page.get_by_role("status")).to_have_text("Live")
        await expect(page.get_by_text(CANNOT_BEGIN)).to_have_count(0)
        await expect(page.get_by_text(NEEDS_JAVASCRIPT)).to_be_hidden()
