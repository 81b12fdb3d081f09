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


async def cents(page: Page) -> list[int]:
    """The balances on the page, the newest first."""
    shown = await page.locator(".statement tbody tr td:nth-child(5)").all_inner_texts()
    return [int(balance.replace(",", "").replace(".", "")) for balance in shown]


async def test_it_is_gone_through_from_the_newest_entry_to_as_far_as_one_likes(
    long_bank: Bank, open_page: Open
) -> None:
    async with open_page(long_bank, "/account/alice") as page:
        rows = page.locator(".statement tbody tr")
        await expect(rows).to_have_count(100)
        assert await cents(page) == list(range(ENTRIES, ENTRIES - 100, -1))
        await page.mouse.move(600, 500)
        while (shown := await cents(page))[-1] > ENTRIES - 1500:
            assert len(shown) <= ON_THE_PAGE_MAX
            await page.mouse.wheel(0, 10_000)
        while (shown := await cents(page))[-1] > ENTRIES - 3000:
            assert len(shown) <= ON_THE_PAGE_MAX
            await page.get_by_role("button", name="Older entries").click()
        assert shown == list(range(shown[0], shown[0] - ON_THE_PAGE_MAX, -1))

        # What is new does not move what is looked at, far back.
        await long_bank.deposit("alice", 1)
        await expect(page.locator(".amounts .amount").first).to_contain_text(f"{(ENTRIES + 1) / 100:,.2f}")
        assert ENTRIES + 1 not in await cents(page)
        await page.get_by_role("button", name="Back to the newest entries").click()
        await expect(rows).to_have_count(100)
        assert await cents(page) == list(range(ENTRIES + 1, ENTRIES - 99, -1))
