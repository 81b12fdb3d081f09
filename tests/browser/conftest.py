"""A bank whose page is looked at, and the page with what it complained of."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from playwright.async_api import Browser, Page, expect

from tests.bank import Bank, open_bank

SHOWN_MILLISECONDS_MAX = 60_000
"""What a test waits for comes at once; this is for machines that have other things to do."""
expect.set_options(timeout=SHOWN_MILLISECONDS_MAX)

Open = Callable[..., AbstractAsyncContextManager[Page]]


@pytest.fixture(scope="session")
async def bank(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bank]:
    async with open_bank(tmp_path_factory.mktemp("bank")) as bank:
        yield bank


@pytest.fixture
def open_page(browser: Browser) -> Open:
    """Opens `place` on the page of `bank`. Nothing may be asked for elsewhere, and nothing complained of.

    With `may_fail` a request may be answered with an error, of which the browser itself complains.
    """

    @asynccontextmanager
    async def opened(bank: Bank, place: str = "/", may_fail: bool = False, **options: object) -> AsyncIterator[Page]:
        complaints: list[str] = []
        requests: list[str] = []
        context = await browser.new_context(**options)  # type: ignore[arg-type]
        context.set_default_timeout(SHOWN_MILLISECONDS_MAX)
        page = await context.new_page()
        page.on(
            "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        await page.goto(f"{bank.projection.url}/#{place}")
        yield page
        await context.close()
        expected = "Failed to load resource" if may_fail else "\0"
        assert [complaint for complaint in complaints if expected not in complaint] == []
        assert [url for url in requests if not url.startswith(bank.projection.url)] == []

    return opened
