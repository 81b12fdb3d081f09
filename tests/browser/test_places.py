"""Places that somebody has typed: of what is none, no other path is asked, and what would be one is said."""

import pytest
from playwright.async_api import expect

from shared.events import ACCOUNT_ID_PATTERN, ACCOUNT_ID_RULE
from tests.bank import Bank
from tests.browser.conftest import Open

NO_IDS = ["..", ".", "%2E%2e", "a%20b", "%C3%A9", "a" * 65]


@pytest.mark.parametrize(
    "place", ["/account", *(f"/account/{it}" for it in NO_IDS), *(f"/why/account/{it}/balance" for it in NO_IDS)]
)
async def test_what_is_no_accounts_id_is_said_to_be_none(bank: Bank, open_page: Open, place: str) -> None:
    async with open_page(bank, place) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        await page.reload()
        await expect(page.get_by_role("heading", name="This is no account\u2019s id")).to_be_visible()
        await expect(page.get_by_text(ACCOUNT_ID_RULE)).to_be_visible()
        await expect(page.get_by_role("status")).to_have_text("Live")
        # The page itself, what it is made of, and what it asks at every place.
        everywhere = ("/", "/pipeline", "/reserves?limit=1")
        paths = [url.removeprefix(bank.projection.url) for url in asked]
        assert [
            path for path in paths if path not in everywhere and not path.startswith(("/dashboard/", "/stream"))
        ] == []


@pytest.mark.parametrize("account_id", ["...", "..a", ".a", "a.", "0", "a:b_c-d", "a" * 64])
async def test_what_looks_strange_and_is_an_accounts_id_leads_to_it(
    bank: Bank, open_page: Open, account_id: str
) -> None:
    await bank.create(account_id, f"Of {account_id}")
    async with open_page(bank, "/accounts") as page:
        await page.get_by_label("Go to an account").fill(account_id)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name=f"Of {account_id}", exact=True)).to_be_visible()
        await expect(page.locator(".statement tbody tr")).to_have_count(1)


async def test_the_page_and_the_service_have_the_same_rule_for_ids(bank: Bank, open_page: Open) -> None:
    async with open_page(bank) as page:
        module = "import('/dashboard/account_id.js').then((it) => [it.PATTERN.source, it.RULE])"
        assert await page.evaluate(module) == [ACCOUNT_ID_PATTERN, ACCOUNT_ID_RULE]


@pytest.mark.parametrize("written", ["..", "0", "-1", "1e3", ""])
async def test_what_is_no_position_is_said_to_be_none(bank: Bank, open_page: Open, written: str) -> None:
    async with open_page(bank, f"/event/{written}") as page:
        await expect(page.get_by_role("heading", name="This is no event\u2019s position")).to_be_visible()
