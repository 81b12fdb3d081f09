"""The pictures in the README: taken in every run, and kept by `make screenshots`."""

import os
from pathlib import Path

from playwright.async_api import expect

from tests.bank import Bank, open_bank
from tests.browser.conftest import Open

PICTURE_BYTES_MAX = 150_000
DESKTOP = {"width": 1200, "height": 860}
PICTURES = {
    "overview": ("/?asset=USD%2F2", DESKTOP, "light"),
    "account": ("/account/alice?at=131", DESKTOP, "dark"),
    "phone": ("/account/alice", {"width": 375, "height": 780}, "light"),
}


async def fill(bank: Bank) -> None:
    """Some weeks of a small bank, in as many seconds as it takes."""
    for account_id, name, asset in (
        ("alice", "Alice Liddell", "USD/2"),
        ("bob", "Bob Cratchit", "USD/2"),
        ("bookshop", "Bookshop on the Corner", "USD/2"),
        ("fees", "Fees", "USD/2"),
        ("martin", "Martin Chuzzlewit", "EUR/2"),
        ("hanako", "Hanako Yamada", "JPY/0"),
    ):
        await bank.post(f"/account/{account_id}", {"name": name, "asset": asset})
        await bank.post(f"/account/deposit/{account_id}", {"amount": 250_000, "description": "Opening deposit"})
    await bank.post("/account/overdraft/alice", {"limit": 50_000})
    for week in range(14):
        for account_id in ("alice", "bob"):
            salary = {"amount": 120_000 + 1_000 * week, "description": "Salary"}
            await bank.post(f"/account/deposit/{account_id}", salary)
        rent = {"amount": 95_000, "description": "Rent", "metadata": {"week": f"2026-W{week + 30}"}}
        await bank.post("/account/withdraw/alice", rent)
        books = {"to": "bookshop", "amount": 1_895 + 730 * (week % 5), "description": "Books"}
        await bank.post("/account/transfer/alice", books)
        await bank.post("/account/transfer/bob", {**books, "amount": 3_120})
        await bank.post("/account/transfer/bookshop", {"to": "fees", "amount": 50, "description": "Fee"})
        await bank.post("/account/withdraw/bob", {"amount": 84_000 + 9_000 * (week % 4), "description": "Living"})
        await bank.post("/account/deposit/martin", {"amount": 4_250, "description": "Interest"})
        if week % 4 == 1:
            await bank.post("/account/withdraw/bob", {"amount": 90_000_000, "description": "A yacht"})
    hold = {"amount": 3_000, "hold_id": "order-7", "expires_at": "2030-01-01T12:00:00Z", "description": "Three books"}
    await bank.post("/account/hold/alice", hold)
    await bank.post("/account/hold/alice", {"amount": 12_500, "hold_id": "hotel", "description": "Hotel, deposit"})
    await bank.post("/account/freeze/bob", {"description": "Lost card"})
    _, last = await bank.post("/account/withdraw/bob", {"amount": 2_500, "description": "Groceries"})
    await bank.query("/reserve", min_position=last["position"], wait=30)


async def test_the_pictures_are_taken(tmp_path: Path, open_page: Open) -> None:
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
    async with open_bank(tmp_path) as bank:
        await fill(bank)
        for name, (place, size, scheme) in PICTURES.items():
            async with open_page(bank, place, viewport=size, color_scheme=scheme) as page:
                await expect(page.locator("canvas")).to_be_visible()
                await expect(page.get_by_role("status")).to_have_text("In the past" if "at=" in place else "Live")
                await expect(page.locator(".panel[aria-busy=true]")).to_have_count(0)
                await expect(page.locator(".amount.quiet")).to_have_count(0)
                await page.screenshot(path=folder / f"{name}.png")
            assert (folder / f"{name}.png").stat().st_size < PICTURE_BYTES_MAX
