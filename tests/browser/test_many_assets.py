"""More assets than the service tells of at a time."""

from pathlib import Path

from playwright.async_api import expect

from tests.bank import Bank, open_bank
from tests.browser.conftest import Open

ASSETS = 1_200
ON_A_PAGE = 500


async def fill(bank: Bank) -> None:
    creations = [
        {"type": "create-account", "account_id": f"of-{number}", "name": "Of it", "asset": f"A{number:04}/2"}
        for number in range(ASSETS)
    ]
    status, receipts = await bank.post("/commands", creations)
    assert status == 200
    await bank.query("/reserve", min_position=receipts[-1]["position"], wait=30)


async def test_all_of_them_are_found_page_by_page_and_lead_to_their_accounts(tmp_path: Path, open_page: Open) -> None:
    async with open_bank(tmp_path) as bank:
        await fill(bank)
        async with open_page(bank) as page:
            rows = page.locator(".panel", has_text="Reserves").locator("tbody tr")
            onward = page.get_by_role("button", name="Next")
            found: list[str] = []
            for number in range(1, 4):
                await expect(page.get_by_text(f"Page {number}", exact=True)).to_be_visible()
                await expect(rows.first).to_contain_text(f"A{(number - 1) * ON_A_PAGE:04}/2")
                found += [text.split("\t")[0] for text in await rows.all_inner_texts()]
                if number < 3:
                    await onward.click()
            await expect(onward).to_be_disabled()
            # That of USD/2 is there without an account.
            assert found == [f"A{number:04}/2" for number in range(ASSETS)] + ["USD/2"]

            last = f"A{ASSETS - 1:04}/2"
            await page.get_by_role("link", name=last, exact=True).click()
            await expect(rows.first).to_contain_text(f"A{2 * ON_A_PAGE:04}/2")
            await expect(page.get_by_role("heading", name=f"{last.removesuffix('/2')} over time")).to_be_visible()
            await page.get_by_role("link", name=f"Accounts in {last}").click()
            # And not the overview's region, the reserves of all assets.
            choice = page.get_by_role("combobox", name="Asset")
            await expect(choice).to_have_value(last)
            await expect(page.get_by_role("link", name=f"of-{ASSETS - 1}")).to_be_visible()
            await expect(choice.locator("option:disabled")).to_have_text("Others: choose them on the overview")
