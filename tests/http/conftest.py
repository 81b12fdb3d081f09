"""One bank without a broker for all tests of the HTTP contract: each test uses accounts of its own."""

import shutil
import uuid
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, async_playwright

from tests.bank import Bank, open_bank


@pytest.fixture(scope="session")
async def bank(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bank]:
    async with open_bank(tmp_path_factory.mktemp("bank")) as bank:
        yield bank


@pytest.fixture
def account_id() -> str:
    """An id that no other test uses."""
    return f"account-{uuid.uuid4()}"


@pytest.fixture
async def account(bank: Bank, account_id: str) -> str:
    """An account with 100 cents, at version 2."""
    await bank.create(account_id)
    await bank.deposit(account_id, 100)
    return account_id


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    program = shutil.which("chromium") or "/Applications/Chromium.app/Contents/MacOS/Chromium"
    async with async_playwright() as playwright:
        # As root it takes no sandbox of its own; names other than addresses lead nowhere.
        flags = ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        browser = await playwright.chromium.launch(executable_path=program, args=flags)
        yield browser
        await browser.close()
