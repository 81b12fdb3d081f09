"""A statement of any length: so many of its entries are on the page, and the others a page away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.async_api import Error, Page, Route, expect

from tests.bank import Bank, open_bank
from tests.browser.conftest import Open
from tests.http.test_commands import head

ENTRIES = 100_000
"""By commands, 10,000 in a batch: what a page costs does not depend on how many there are."""
ON_THE_PAGE_MAX = 1_000
"""Of one statement's entries."""


@pytest.fixture(scope="module")
async def long_bank(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bank]:
    async with open_bank(tmp_path_factory.mktemp("long")) as bank:
        await bank.create("alice")
        deposits = [{"type": "deposit", "account_id": "alice", "amount": 1}] * 10_000
        for number in range(ENTRIES // 10_000):
            status, _ = await bank.post("/commands", deposits)
            assert status == 200
            if number == 0:
                await bank.post("/account/hold/alice", {"amount": 1})
        await bank.create("ice", "Ice")
        await bank.deposit("ice", 1)
        frozen = [{"type": "freeze", "account_id": "ice"}, {"type": "unfreeze", "account_id": "ice"}]
        await bank.post("/commands", frozen * 2_600)
        position = await head(bank)
        for _ in range(10):
            status, _ = await bank.query("/reserve", min_position=position, wait=60)
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


async def test_what_made_a_figure_is_found_far_back_or_is_said_to_be_further(long_bank: Bank, open_page: Open) -> None:
    async with open_page(long_bank, "/why/account/alice/held") as page:
        await expect(page.get_by_role("heading", level=1)).to_contain_text("Hold placed")
    async with open_page(long_bank, "/why/account/ice/balance") as page:
        await expect(page.get_by_role("heading", level=1)).to_have_text("Further back than this page looks")
        await page.get_by_role("main").get_by_role("link", name="ice").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Ice")


async def test_a_hold_is_among_those_open_at_a_moment_however_far_back_it_was_placed(
    long_bank: Bank, open_page: Open
) -> None:
    for at, shown in ((ENTRIES, 1), (ENTRIES // 10, 0)):
        async with open_page(long_bank, f"/account/alice?at={at}") as page:
            holds = page.locator(".panel", has_text="Open holds")
            await expect(holds.locator("tbody tr")).to_have_count(shown)
            await expect(holds.get_by_text("Nothing is held.")).to_have_count(1 - shown)
            await expect(holds.get_by_text("There are more than these.").locator("visible=true")).to_have_count(0)


async def test_entries_that_come_while_older_ones_are_on_their_way_leave_no_gap(
    tmp_path: Path, open_page: Open
) -> None:
    async with open_bank(tmp_path) as bank:
        await bank.create("alice")
        deposits = [{"type": "deposit", "account_id": "alice", "amount": 1}] * 600
        await bank.post("/commands", deposits)
        async with open_page(bank, "/account/alice") as page:
            rows, go_on = page.locator(".statement tbody tr"), asyncio.Event()

            async def hold_back(route: Route) -> None:
                await go_on.wait()
                with suppress(Error):  # nobody may want it any more
                    await route.continue_()

            await expect(rows).to_have_count(100)
            await page.route("**/statement?*cursor=*", hold_back)
            async with page.expect_request("**/statement?*cursor=*"):
                await page.get_by_role("button", name="Older entries").click()
            await bank.post("/commands", deposits[:150])
            await expect(page.locator(".amounts a").first).to_have_text("7.50 USD")
            await expect(rows.first).to_contain_text("7.50")
            go_on.set()
            await page.get_by_role("button", name="Older entries").click()
            await expect(rows).not_to_have_count(100)
            shown = await cents(page)
            assert shown == list(range(750, 750 - len(shown), -1))
