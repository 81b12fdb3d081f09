"""The page while it is open: what happens in the bank is seen there, once, without a reload."""

import uuid
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, expect

from tests.bank import Bank, open_bank
from tests.browser.conftest import Open

MINUS = "\u2212"
ROWS_MAX = 100
"""Of the list of events."""


@pytest.fixture
def asset() -> str:
    """One that no other test uses."""
    return f"T{uuid.uuid4().hex[:12].upper()}/2"


def figure(page: Page, name: str) -> Locator:
    """An account's, by its name."""
    return page.locator(".amounts div", has=page.get_by_text(name, exact=True)).locator(".amount")


def events(page: Page) -> Locator:
    return page.locator(".tail tbody tr")


async def positions(page: Page) -> list[int]:
    """Those in the list of events, the newest first."""
    shown = await page.locator(".tail tbody tr td:first-child").all_inner_texts()
    return [int(position.replace(",", "")) for position in shown]


async def test_an_open_page_shows_what_commands_do(bank: Bank, open_page: Open, asset: str) -> None:
    code = asset.removesuffix("/2")
    payer, payee = f"payer-{code}", f"payee-{code}"
    async with open_page(bank, f"/account/{payer}", may_fail=True) as account, open_page(bank) as overview:
        await expect(account.get_by_role("heading", name="No such account")).to_be_visible()
        for account_id, name in ((payer, "Alice Liddell"), (payee, "Bob")):
            await bank.post(f"/account/{account_id}", {"name": name, "asset": asset})
        await expect(account.get_by_role("heading", name="Alice Liddell")).to_be_visible()
        await expect(figure(account, "Balance")).to_have_text(f"0.00 {code}")

        await bank.post(f"/account/deposit/{payer}", {"amount": 1_000_000, "description": "Salary"})
        await bank.post(f"/account/transfer/{payer}", {"to": payee, "amount": 1250, "description": "Books"})
        await bank.post(f"/account/hold/{payer}", {"amount": 2000, "hold_id": "order-7", "description": "Three books"})
        _, last = await bank.post(f"/account/withdraw/{payer}", {"amount": 10**12})

        await expect(figure(account, "Balance")).to_have_text(f"9,987.50 {code}")
        await expect(figure(account, "Held")).to_have_text("20.00")
        await expect(figure(account, "Available")).to_have_text("9,967.50")
        await expect(account.locator(".panel", has_text="Open holds").locator("tbody tr")).to_contain_text("order-7")
        await expect(account.locator(".readout")).to_contain_text(f"Balance 9,987.50 {code}")
        entries = account.locator(".statement tbody tr")
        await expect(entries).to_have_count(4)
        assert [" ".join((await entry.inner_text()).split()).split(" ", 3)[3] for entry in await entries.all()] == [
            "Hold placed hold order-7 Three books held +20.00 9,987.50 9,967.50",
            f"Money transferred to {payee} Books {MINUS}12.50 9,987.50 9,987.50",
            "Amount deposited Salary +10,000.00 10,000.00 10,000.00",
            "Account created 0.00 0.00",
        ]

        await expect(events(overview).first).to_contain_text("Withdrawal rejected")
        await expect(events(overview).first).to_contain_text("Insufficient funds")
        await expect(events(overview).first).to_contain_text(f"10,000,000,000.00 {code}")
        await expect(events(overview).nth(2)).to_contain_text(f"{payer} → {payee}")
        await expect(overview.locator("tr", has_text=asset).locator(".amount")).to_have_text("10,000.00")
        await expect(overview.locator(".steps")).to_contain_text(f"{last['position']:,}")
        await expect(overview.locator(".verdict")).to_have_text("Every event of the log is in these views.")
        await overview.get_by_role("link", name=asset, exact=True).click()
        await expect(overview.locator(".readout")).to_contain_text(f"Reserve 10,000.00 {code}")


async def test_amounts_over_2_to_the_53_are_exact(bank: Bank, open_page: Open, asset: str) -> None:
    """Which floats are not: 2^53 + 1 is none."""
    exact = f"90,071,992,547,409.93 {asset.removesuffix('/2')}"
    await bank.post("/account/rich", {"name": "Rich", "asset": asset})
    _, receipt = await bank.post("/account/deposit/rich", {"amount": 2**53 + 1})
    async with open_page(bank, "/account/rich") as page:
        await expect(figure(page, "Balance")).to_have_text(exact)
        await expect(page.locator(".readout .amount").first).to_have_text(exact)
        await page.goto(f"{bank.projection.url}/#/event/{receipt['position']}")
        await expect(page.locator(".facts", has_text=exact)).to_be_visible()
        await page.get_by_text("The event as it was recorded").click()
        await expect(page.locator("pre")).to_contain_text('"amount": 9007199254740993')
        await page.goto(f"{bank.projection.url}/#/")
        await expect(events(page).first).to_contain_text(exact)


async def test_names_and_descriptions_are_text_whatever_is_in_them(bank: Bank, open_page: Open) -> None:
    evil = "<script>hacked=1</script><img src=x onerror='hacked=1'>\u202e"
    await bank.create("evil", evil)
    deposit = {"amount": 1, "description": evil, "metadata": {evil[:60]: evil, "__proto__": "p"}}
    _, receipt = await bank.post("/account/deposit/evil", deposit)
    await bank.post("/account/hold/evil", {"amount": 1, "hold_id": "h", "description": evil})
    places = {"/": 2, "/account/evil": 4, f"/event/{receipt['position']}": 3, "/accounts?prefix=%3Cscript": 1}
    for place, times in places.items():
        async with open_page(bank, place) as page:
            await expect(page.locator("#main").get_by_text(evil).nth(times - 1)).to_be_visible()
            made = "[typeof hacked, document.querySelectorAll('main img, main script').length]"
            assert await page.evaluate(made) == ["undefined", 0]
            if "event" in place:
                await expect(page.locator(".facts")).to_contain_text("__proto__")


async def test_nothing_is_lost_while_the_service_is_gone(tmp_path: Path, open_page: Open) -> None:
    async with open_bank(tmp_path) as bank:
        await bank.create("alice")
        await bank.deposit("alice", 100)
        async with open_page(bank, may_fail=True) as page:
            await expect(events(page)).to_have_count(2)
            for number in range(1, 4):
                await bank.projection.kill()
                await expect(page.get_by_role("status")).to_have_text("Disconnected")
                for _ in range(5):
                    await bank.deposit("alice", 100)
                await bank.projection.start()
                await expect(page.get_by_role("status")).to_have_text("Live")
                await expect(events(page)).to_have_count(2 + 5 * number)
                assert await positions(page) == list(range(2 + 5 * number, 0, -1))
                await expect(page.locator(".panel", has_text="Reserves").locator("tbody .amount")).to_have_text(
                    f"{1 + 5 * number}.00"
                )


async def test_a_busy_stream_is_shown_to_its_end_and_no_more_of_it_than_fits(bank: Bank, open_page: Open) -> None:
    await bank.create("busy")
    deposits = [{"type": "deposit", "account_id": "busy", "amount": 1}] * 1000
    async with open_page(bank) as page:
        await expect(events(page).first).to_be_visible()
        for _ in range(10):
            _, receipts = await bank.post("/commands", deposits)
        last = receipts[-1]["position"]
        await expect(events(page).first).to_contain_text(f"{last:,}")
        assert await positions(page) == list(range(last, last - ROWS_MAX, -1))


async def test_what_moves_can_be_stopped(tmp_path: Path, open_page: Open) -> None:
    async with open_bank(tmp_path) as bank, open_page(bank) as page:
        await bank.create("slow")
        await expect(events(page).first).to_contain_text("slow")
        await page.get_by_role("button", name="Pause").click()
        await bank.deposit("slow", 1)
        await bank.withdraw("slow", 100)
        button = page.get_by_role("button", name="Go on (2 new)")
        await expect(button).to_be_visible()
        await expect(events(page).first).to_contain_text("Account created")
        await page.get_by_label("Rejections only").check()
        await expect(page.locator(".tail")).to_contain_text("No command was rejected among the last events.")
        await button.click()
        await expect(events(page).first).to_contain_text("Withdrawal rejected")
        await expect(events(page).first).to_contain_text("Insufficient funds")
        await expect(events(page)).to_have_count(1)


async def test_what_is_wrong_is_said_in_words(tmp_path: Path, open_page: Open) -> None:
    async with open_bank(tmp_path) as bank:
        await bank.create("alice")
        async with open_page(bank) as page:
            await expect(page.get_by_role("status")).to_have_text("Live")
            await bank.command.stop()
            await expect(page.get_by_role("status")).to_have_text("Trouble")
            await expect(page.locator(".verdict")).to_contain_text("cannot connect")
            await page.get_by_role("link", name="Accounts", exact=True).click()
            await page.get_by_role("link", name="Trouble").click()
            await expect(page.locator(".verdict")).to_contain_text("cannot connect")
            await bank.command.start()
            await expect(page.get_by_role("status")).to_have_text("Live")
            await expect(page.locator(".verdict")).to_have_text("Every event of the log is in these views.")
