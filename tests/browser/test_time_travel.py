"""The page as of a moment: every figure is what it was then, to the cent."""

import uuid
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.bank import Bank, open_bank
from tests.browser.conftest import Open

MINUS = "\u2212"
PLACES = ["/", "/account/alice", "/account/bob", "/accounts", "/accounts?prefix=B&order=desc&sort=name"]


async def story(bank: Bank, chapter: int) -> int:
    """Changes every figure that the page has; the log's head after it."""
    if chapter == 1:
        for account_id, name in (("alice", "Alice"), ("bob", "Bob")):
            await bank.create(account_id, name)
    else:
        await bank.post(f"/account/c{chapter}", {"name": f"B{chapter}", "asset": f"EUR{chapter}/2"})
    await bank.deposit("alice", 100_000 * chapter)
    rent = {"to": "bob", "amount": 2550 * chapter, "description": f"Rent {chapter}"}
    await bank.post("/account/transfer/alice", rent)
    await bank.post("/account/hold/alice", {"amount": 100 * chapter, "hold_id": f"hold-{chapter}"})
    await bank.post("/account/overdraft/bob", {"limit": 1000 * chapter})
    await bank.post(f"/account/{'un' * (chapter % 2 == 0)}freeze/bob", {})
    _, rejection = await bank.withdraw("bob", 10**15)
    position: int = rejection["position"]
    return position


async def figures(page: Page, bank: Bank, place: str, head: int) -> list[str]:
    """All lines that the page says there, once it knows of `head`, without what is of now and of the time control."""
    await page.goto(f"{bank.projection.url}/#{place}")
    # Charts follow what is new in their own time.
    await page.reload()
    await expect(page.locator(".panel[aria-busy=true]")).to_have_count(0)
    await expect(page.locator("#now .position")).to_have_text(f"{head:,}")
    await expect(page.locator(".quiet", has_text="Loading")).to_have_count(0)
    # Assets of accounts are asked for once their events are there.
    await expect(page.locator(".amount.quiet")).to_have_count(0)
    texts: list[str] = await page.locator("#main .panel:not(.pipeline)").all_inner_texts()
    return [line for text in texts for line in text.split("\n") if line != "Pause"]


async def test_every_figure_is_as_of_then_and_comes_back(tmp_path: Path, open_page: Open) -> None:
    async with open_bank(tmp_path) as bank, open_page(bank) as page:
        moments: dict[int, dict[str, list[str]]] = {}
        for chapter in range(1, 4):
            head = await story(bank, chapter)
            await expect(page.locator("#now .position")).to_have_text(str(head))
            moments[head] = {place: await figures(page, bank, place, head) for place in PLACES}
        for place in PLACES:
            shown = [moment[place] for moment in moments.values()]
            assert shown[0] != shown[1] != shown[2]
        for at, moment in moments.items():
            for place in PLACES:
                there = place + ("&" if "?" in place else "?") + f"at={at}"
                assert await figures(page, bank, there, head) == moment[place], there


async def test_a_moment_is_chosen_by_position_by_time_and_step_by_step(tmp_path: Path, open_page: Open) -> None:
    async with open_bank(tmp_path) as bank:
        first = await story(bank, 1)
        await story(bank, 2)
        time = (await bank.log())[first - 1]["time"]
        async with open_page(bank, "/account/alice", may_fail=True) as page:
            balance = page.locator(".amounts .amount").first
            moment = page.locator(".moment")
            await expect(balance).to_have_text("2,974.50 USD")

            await page.get_by_role("button", name="Go back in time").click()
            await page.get_by_label("Position", exact=True).and_(page.locator("[type=text]")).fill(str(first))
            await page.keyboard.press("Enter")
            await expect(balance).to_have_text("974.50 USD")
            await expect(moment).to_contain_text(f"As of position {first}, {time[:10]} {time[11:19]}")
            await expect(page.get_by_role("status")).to_have_text("In the past")
            assert page.url.endswith(f"#/account/alice?at={first}")

            for _ in range(5):
                await page.get_by_role("button", name="The event before").click()
            await expect(moment).to_contain_text(f"As of position {first - 5}")
            await expect(balance).to_have_text("1,000.00 USD")

            await page.get_by_role("button", name="Back to live").click()
            await expect(balance).to_have_text("2,974.50 USD")
            assert page.url.endswith("#/account/alice")

            await page.get_by_role("button", name="Go back in time").click()
            await page.get_by_role("slider").focus()
            await page.keyboard.press("Home")
            await expect(page.get_by_role("heading", name="No such account")).to_be_visible()
            await page.get_by_role("slider").focus()
            await page.keyboard.press("End")
            await expect(balance).to_have_text("2,974.50 USD")

            await page.get_by_label("Time, UTC").fill("2001-01-01T00:00:00.000")
            await page.get_by_role("button", name="Show this moment").click()
            await expect(moment).to_contain_text("before the first event")
            await page.get_by_label("Time, UTC").fill("2999-01-01T00:00:00.000")
            await page.get_by_role("button", name="Show this moment").click()
            await expect(page.get_by_role("alert")).to_contain_text("future")


async def test_a_time_is_taken_as_people_write_it_and_the_moment_of_an_event_to_the_microsecond(
    tmp_path: Path, open_page: Open
) -> None:
    async with open_bank(tmp_path) as bank:
        first = await story(bank, 1)
        batch = [{"type": "deposit", "account_id": "alice", "amount": 1}] * 3
        await bank.post("/commands", batch)
        times = [event["time"] for event in await bank.log()]
        exact = times[first - 1].replace("T", " ").removesuffix("Z")
        async with open_page(bank, f"/account/alice?at={first}", may_fail=True) as page:
            moment, written = page.locator(".moment"), page.get_by_label("Time, UTC")
            await expect(written).to_have_value(exact)
            for text in (exact, times[first - 1], f" {exact} UTC", f"{exact}+00:00".replace(" ", "T")):
                await page.get_by_role("button", name="Back to live").click()
                await page.get_by_role("button", name="Go back in time").click()
                await written.fill(text)
                await page.keyboard.press("Enter")
                await expect(moment).to_contain_text(f"As of position {first},")
                await expect(written).to_have_value(exact)

            # The three of a batch may have one time: to show again what is shown leads to no other of them.
            await page.goto(f"{bank.projection.url}/#/account/alice?at={first + 1}")
            await expect(moment).to_contain_text(f"As of position {first + 1},")
            await expect(written).not_to_have_value("")
            await page.get_by_role("button", name="Show this moment").click()
            await page.get_by_role("button", name="The event before").click()
            await expect(moment).to_contain_text(f"As of position {first},")

            # To the minute.
            await written.fill("2001-01-01 00:00")
            await page.keyboard.press("Enter")
            await expect(moment).to_contain_text("before the first event")
            for text in ("yesterday", "2026-10-05", "14:30"):
                await written.fill(text)
                await page.keyboard.press("Enter")
                await expect(page.get_by_role("alert")).to_contain_text("to the minute at least")
                await expect(moment).to_contain_text("before the first event")


async def test_the_past_stays_as_it_was_while_the_bank_goes_on(bank: Bank, open_page: Open) -> None:
    account = f"past-{uuid.uuid4()}"
    await bank.create(account)
    _, receipt = await bank.deposit(account, 100)
    async with open_page(bank, f"/account/{account}?at={receipt['position']}") as page:
        await expect(page.locator(".amounts .amount").first).to_have_text("1.00 USD")
        _, receipt = await bank.deposit(account, 100)
        await expect(page.locator("#now .position")).to_have_text(f"{receipt['position']:,}")
        await expect(page.locator(".amounts .amount").first).to_have_text("1.00 USD")
        await expect(page.locator(".statement tbody tr")).to_have_count(2)
        await page.get_by_role("button", name="Back to live").click()
        await expect(page.locator(".amounts .amount").first).to_have_text("2.00 USD")
        await expect(page.locator(".statement tbody tr")).to_have_count(3)


async def test_what_is_drawn_again_while_a_figure_is_pressed_takes_no_click_away(bank: Bank, open_page: Open) -> None:
    account = f"pressed-{uuid.uuid4()}"
    await bank.create(account)
    async with open_page(bank, f"/account/{account}") as page:
        balance = page.locator(".amounts a.amount").first
        await balance.hover()
        await page.mouse.down()
        async with page.expect_response(lambda response: response.url.partition("?")[0].endswith(account)) as answer:
            await bank.deposit(account, 100)
        await (await answer.value).finished()
        await page.evaluate("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
        await page.mouse.up()
        await expect(page.get_by_role("heading", level=1)).to_contain_text("Amount deposited")

        # Whoever keeps it pressed sees it go on.
        await page.go_back()
        await expect(balance).to_have_text("1.00 USD")
        await balance.hover()
        await page.mouse.down()
        await bank.deposit(account, 100)
        await expect(balance).to_have_text("2.00 USD")
        await page.mouse.up()


@pytest.mark.parametrize(
    ("figure", "told"),
    [
        ("Balance", "Money transferred"),
        ("Held", "Hold placed"),
        ("Available", "Hold placed"),
        ("Overdraft limit", "Overdraft limit set"),
    ],
)
async def test_a_click_on_a_figure_leads_to_the_event_that_made_it(
    tmp_path: Path, open_page: Open, figure: str, told: str
) -> None:
    async with open_bank(tmp_path) as bank:
        await bank.create("alice")
        await bank.create("bob", "Bob")
        await bank.deposit("alice", 5000)
        await bank.post("/account/overdraft/alice", {"limit": 700})
        await bank.post("/account/transfer/alice", {"to": "bob", "amount": 1200})
        await bank.post("/account/hold/alice", {"amount": 300, "hold_id": "h"})
        await bank.withdraw("alice", 10**9)
        async with open_page(bank, "/account/alice") as page:
            await page.locator(".amounts div", has_text=figure).locator("a.amount").click()
            await expect(page.get_by_role("heading", level=1)).to_contain_text(told)
            if told == "Money transferred":
                await expect(page.locator(".effect")).to_have_count(2)
                for number, row in enumerate((f"50.00 38.00 {MINUS}12.00", "0.00 12.00 +12.00")):
                    balance = page.locator(".effect").nth(number).locator("tr", has_text="Balance")
                    await expect(balance).to_have_text(f"Balance\t{row.replace(' ', chr(9))}", use_inner_text=True)
                async with bank.http.get(f"{bank.command.url}/events?after=0&limit=5") as response:
                    await expect(page.locator(".facts")).to_contain_text(response.headers["Ledger-Chain"])
                await page.locator(".effect").first.get_by_role("link", name="just before").click()
                await expect(page.locator(".amounts .amount").first).to_have_text("50.00 USD")
                await page.go_back()
            await page.go_back()
            await expect(page.get_by_role("heading", level=1)).to_have_text("Alice")
