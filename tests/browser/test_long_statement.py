"""A statement of any length: so many of its entries are on the page, and the others a page away."""

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page, expect

from tests.bank import Bank, open_bank
from tests.browser.conftest import Open

ENTRIES = 100_000
"""By commands, 10,000 in a batch: what a page costs does not depend on how many there are."""
ON_THE_PAGE_MAX = 1_000
"""Of one statement's entries."""


@pytest.fixture(scope="module")
async def long_bank(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bank]:
    async with open_bank(tmp_path_factory.mktemp("long")) as bank:
        await bank.create("alice")
        deposits = [{"type": "deposit", "account_id": "alice", "amount": 1}] * 10_000
        for _ in range(ENTRIES // 10_000):
            status, _ = await bank.post("/commands", deposits)
            assert status == 200
        for _ in range(10):
            status, _ = await bank.query("/reserve", min_position=ENTRIES + 1, wait=60)
        assert status == 200
        yield bank


async def balances(page: Page) -> list[str]:
    shown: list[str] = await page.locator(".statement tbody tr td:nth-child(5)").all_inner_texts()
    return shown


def money(cents: int) -> str:
    return f"{cents / 100:,.2f}"


async def test_it_is_gone_through_from_the_newest_entry_to_as_far_as_one_likes(
    long_bank: Bank, open_page: Open
) -> None:
    async with open_page(long_bank, "/account/alice") as page:
        rows = page.locator(".statement tbody tr")
        await expect(rows).to_have_count(100)
        assert await balances(page) == [money(ENTRIES - number) for number in range(100)]
        # By scrolling, and by the button.
        await page.mouse.move(600, 500)
        for number in range(2, 25):
            last = money(ENTRIES - 100 * number + 1)
            if number % 2:
                await page.get_by_role("button", name="Older entries").click()
            while await rows.last.locator("td:nth-child(5)").inner_text() not in (
                last,
                money(ENTRIES - 100 * number - 99),
            ):
                await page.mouse.wheel(0, 10_000)
                await page.wait_for_timeout(20)
            assert await rows.count() <= ON_THE_PAGE_MAX
        shown = await balances(page)
        assert shown == [money(round(float(shown[0].replace(",", "")) * 100) - number) for number in range(len(shown))]
        assert len(shown) == ON_THE_PAGE_MAX
        # New entries do not move what is looked at, far back.
        await long_bank.deposit("alice", 1)
        await expect(page.locator(".amounts .amount").first).to_contain_text(money(ENTRIES + 1))
        assert await balances(page) == shown
        await page.get_by_role("button", name="Back to the newest entries").click()
        await expect(rows.first).to_contain_text(money(ENTRIES + 1))
        await expect(rows).to_have_count(100)
