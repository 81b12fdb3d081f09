"""The page for everybody: on a phone, in the dark, with a screen reader, and when there is nothing to show."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.bank import Bank, open_bank
from tests.browser.conftest import Open

AXE = Path(__file__).parent / "axe-core" / "axe.min.js"
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 375, "height": 812}
PLACES = ["/", "/account/alice", "/accounts", "/event/5", "/?at=2", "/account/alice?at=3", "/account/nobody", "/no"]


@pytest.fixture(scope="module")
async def old_bank(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bank]:
    """With the longest of everything that there may be."""
    async with open_bank(tmp_path_factory.mktemp("looks")) as bank:
        await bank.post("/account/alice", {"name": "W" * 200})
        await bank.post(f"/account/{'b' * 64}", {"name": "Bob"})
        await bank.post("/account/fiat", {"name": "Fiat", "asset": "ABCDEFGHIJKLMNOP/12"})
        await bank.post("/account/deposit/alice", {"amount": 2**62, "description": "x" * 1000})
        metadata = {"k" * 64: "v" * 200}
        await bank.post("/account/transfer/alice", {"to": "b" * 64, "amount": 2**61, "metadata": metadata})
        await bank.post("/account/hold/alice", {"amount": 2**60, "hold_id": "h" * 64, "description": "y" * 1000})
        await bank.deposit("fiat", 2**62)
        await bank.post("/account/freeze/alice", {})
        _, receipt = await bank.withdraw("alice", 1)
        await bank.query("/reserve", min_position=receipt["position"], wait=30)
        yield bank


async def settled(page: Page) -> None:
    await expect(page.get_by_role("status")).not_to_have_text("Connecting")
    await expect(page.locator("h1")).to_have_count(1)
    await expect(page.locator(".panel[aria-busy=true]")).to_have_count(0)


@pytest.mark.parametrize(("scheme", "size"), [("light", DESKTOP), ("dark", PHONE)])
@pytest.mark.parametrize("place", PLACES)
async def test_axe_finds_nothing(
    old_bank: Bank, open_page: Open, place: str, scheme: str, size: dict[str, int]
) -> None:
    options = {"color_scheme": scheme, "viewport": size}
    async with open_page(old_bank, place, may_fail="no" in place, **options) as page:
        await settled(page)
        for summary in await page.locator("main details:not([open]) > summary").all():
            await summary.click()
        if "at=" not in place:
            await page.get_by_role("button", name="Go back in time").click()
        await page.evaluate(AXE.read_text())
        found: dict[str, Any] = await page.evaluate("axe.run({resultTypes: ['violations']})")
        assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found["violations"]] == []


@pytest.mark.parametrize("place", PLACES)
async def test_it_fits_a_phone(old_bank: Bank, open_page: Open, place: str) -> None:
    async with open_page(old_bank, place, may_fail="no" in place, viewport=PHONE) as page:
        await settled(page)
        assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        cut = """[...document.querySelectorAll('.panel *')].filter(one => {
            const {right, width} = one.getBoundingClientRect();
            const panel = one.closest('.panel').getBoundingClientRect().right;
            return width && right > panel + 0.5 && !one.closest('.uplot, .unseen, pre');
        }).map(one => one.outerHTML.slice(0, 200))"""
        assert await page.evaluate(cut) == []


async def test_a_chart_of_one_moment_is_of_a_second(tmp_path: Path, open_page: Open) -> None:
    """uPlot by itself shows the next years then, and no line."""
    keep = "void (window.uPlot = class extends uPlot { constructor(...given) { window.plot = super(...given); } })"
    async with open_bank(tmp_path) as bank, open_page(bank) as page:
        await bank.create("alice")
        await expect(page.locator("canvas")).to_be_visible()
        await page.evaluate(keep)
        await page.evaluate("location.hash = '#/account/alice'")
        await expect(page.get_by_role("heading", name="Balance over time")).to_be_visible()
        await expect(page.locator("canvas")).to_be_visible()
        assert await page.evaluate("plot.scales.x.max - plot.scales.x.min") == pytest.approx(1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_follows_the_systems_colours(old_bank: Bank, open_page: Open, scheme: str) -> None:
    async with open_page(old_bank, color_scheme=scheme) as page:
        background = await page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert (max(int(part) for part in background[4:-1].split(",")) < 64) == (scheme == "dark")


async def test_it_is_used_with_the_keyboard_alone(old_bank: Bank, open_page: Open) -> None:
    async with open_page(old_bank) as page:
        await settled(page)
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("button", name="Skip to the content")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.locator("main")).to_be_focused()
        await page.get_by_role("link", name="Accounts", exact=True).focus()
        await page.keyboard.press("Enter")
        await expect(page.locator("main")).to_be_focused()
        await expect(page.get_by_role("heading", name="Accounts")).to_be_visible()
        await page.get_by_label("Name").focus()
        await page.keyboard.type("Bo")
        await expect(page.locator("tbody tr")).to_have_count(1)
        await page.keyboard.press("Tab")
        await page.get_by_role("link", name="b" * 64).focus()
        await old_bank.deposit("b" * 64, 1)
        # The row is another one then, and its link still has the focus.
        await expect(page.locator("tbody tr .amount").first).to_contain_text("23,058,430,092,136,939.53")
        await expect(page.get_by_role("link", name="b" * 64)).to_be_focused()
        await page.keyboard.press("Enter")
        await page.locator(".amounts a").nth(2).focus()
        await old_bank.deposit("b" * 64, 1)
        await expect(page.locator(".amounts a").first).to_contain_text("23,058,430,092,136,939.54")
        await expect(page.locator(".amounts a").nth(2)).to_be_focused()


async def test_the_focus_stays_on_the_same_account_and_the_page_where_it_was(tmp_path: Path, open_page: Open) -> None:
    async with open_bank(tmp_path) as bank:
        for name in "abcdef":
            await bank.create(name)
        async with open_page(bank, "/accounts?sort=last_updated&order=asc") as page:
            await page.get_by_role("link", name="e", exact=True).focus()
            for name, number in (("b", 5), ("e", 5)):
                await bank.deposit(name, 1)
                await expect(page.locator("tbody tr").nth(number)).to_contain_text("0.01")
                await expect(page.get_by_role("link", name="e", exact=True)).to_be_focused()
        await bank.post("/commands", [{"type": "deposit", "account_id": "a", "amount": 1}] * 60)
        async with open_page(bank, "/account/a", viewport={"width": 900, "height": 500}) as page:
            await page.locator(".amounts a").first.focus()
            await page.mouse.move(450, 400)
            await page.mouse.wheel(0, 1000)
            await expect(page.locator(".amounts a").first).not_to_be_in_viewport()
            await bank.deposit("a", 1)
            await expect(page.locator(".amounts a").first).to_have_text("0.61 USD")
            await expect(page.locator(".amounts a").first).to_be_focused()
            await expect(page.locator(".amounts a").first).not_to_be_in_viewport()


async def test_an_empty_bank_says_so(tmp_path: Path, open_page: Open) -> None:
    async with open_bank(tmp_path) as bank, open_page(bank) as page:
        await expect(page.get_by_text("No event yet")).to_be_visible()
        await expect(page.get_by_text("Nothing has been paid in yet.")).to_be_visible()
        await page.get_by_role("link", name="Accounts", exact=True).click()
        await expect(page.get_by_text("There are no accounts yet.")).to_be_visible()
        await bank.create("alice")
        await expect(page.get_by_role("link", name="alice")).to_be_visible()


async def test_what_a_projection_does_not_keep_is_said_where_it_would_be(tmp_path: Path, open_page: Open) -> None:
    async with open_bank(tmp_path) as bank:
        await bank.projection.stop()
        bank.projection.environment |= {"PROJECTION_VIEWS": "accounts,reserve", "PROJECTION_NAME": "small"}
        await bank.projection.start()
        await bank.create("alice")
        await bank.deposit("alice", 100)
        async with open_page(bank, "/account/alice", may_fail=True) as page:
            await expect(page.locator(".amounts .amount").first).to_have_text("1.00 USD")
            await expect(page.locator(".statement .note")).to_contain_text("PROJECTION_VIEWS")
            holds = page.locator(".panel", has_text="Open holds")
            await expect(holds.locator(".note")).to_contain_text("does not keep the view holds")
            # There is no stream of events: the figures are asked for now and then.
            await bank.deposit("alice", 100)
            await expect(page.locator(".amounts .amount").first).to_have_text("2.00 USD")
