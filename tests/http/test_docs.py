"""`/docs` in a real browser that reaches nothing but the service."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page

from tests.bank import Bank

VENDORED = Path(__file__).parents[2] / "shared" / "platform" / "docs" / "swagger-ui"
SHOWN_MILLISECONDS_MAX = 60_000
SERVICES = ["command", "projection"]


@asynccontextmanager
async def opened(browser: Browser, url: str, **options: object) -> AsyncIterator[Page]:
    """The page at `url` with its operations shown. Nothing may go elsewhere, and nothing may be complained of."""
    complaints: list[str] = []
    requests: list[str] = []
    context = await browser.new_context(**options)  # type: ignore[arg-type]
    page = await context.new_page()
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    await page.goto(url)
    await page.wait_for_selector(".opblock", timeout=SHOWN_MILLISECONDS_MAX)
    yield page
    await context.close()
    assert complaints == []
    origin = url.removesuffix("/docs")
    assert [asked for asked in requests if not asked.startswith((origin + "/", "data:"))] == []


@pytest.mark.parametrize("name", SERVICES)
async def test_the_page_shows_every_operation_and_asks_nobody_but_the_service(
    bank: Bank, browser: Browser, name: str
) -> None:
    service = getattr(bank, name)
    async with bank.http.get(f"{service.url}/openapi.json") as response:
        paths = (await response.json())["paths"]
    async with opened(browser, f"{service.url}/docs") as page:
        shown = await page.locator(".opblock-summary-path").all_inner_texts()
        # Long paths may be broken, with spaces of no width.
        assert sorted(path.replace("\u200b", "") for path in shown) == sorted(p for p in paths for _ in paths[p])


async def test_a_command_that_is_tried_out_on_the_page_is_recorded(bank: Bank, browser: Browser, account: str) -> None:
    async with opened(browser, f"{bank.command.url}/docs") as page:
        deposit = page.locator(".opblock", has=page.locator("[data-path='/account/deposit/{account_id}']"))
        await deposit.locator(".opblock-summary-control").click()
        await deposit.get_by_role("button", name="Try it out").click()
        await deposit.get_by_placeholder("account_id").fill(account)
        await deposit.locator("textarea").fill('{"amount": 11}')
        await deposit.get_by_role("button", name="Execute").click()
        await deposit.locator(".live-responses-table .response-col_status", has_text="200").wait_for()
    assert (await bank.deposit(account, 1))[1]["balance"] == 112


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_page_fits_a_phone_and_follows_the_systems_colours(bank: Bank, browser: Browser, scheme: str) -> None:
    size = {"width": 390, "height": 844}
    async with opened(browser, f"{bank.command.url}/docs", viewport=size, color_scheme=scheme) as page:
        assert await page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        background = await page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert (max(int(part) for part in background[4:-1].split(",")) < 64) == (scheme == "dark")


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize("path", ["/docs", "/docs/", "/docs/page.js", "/docs/swagger-ui-bundle.js"])
async def test_the_page_may_run_its_own_scripts_only_and_be_shown_in_no_frame(bank: Bank, name: str, path: str) -> None:
    async with bank.http.get(getattr(bank, name).url + path) as response:
        assert response.status == 200
        policy = dict(
            directive.strip().split(" ", 1) for directive in response.headers["Content-Security-Policy"].split(";")
        )
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        text = await response.text()
    assert (policy["default-src"], policy["script-src"], policy["frame-ancestors"]) == ("'none'", "'self'", "'none'")
    assert response.content_type == ("text/javascript" if path.endswith(".js") else "text/html")
    assert "http://" not in text or path.endswith("bundle.js")


async def test_the_command_services_root_leads_to_the_page(bank: Bank) -> None:
    async with bank.http.get(f"{bank.command.url}/", allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (307, "/docs")


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize("path", ["/redoc", "/docs/LICENSE"])
async def test_there_is_no_other_page(bank: Bank, name: str, path: str) -> None:
    async with bank.http.get(getattr(bank, name).url + path) as response:
        assert response.status == 404


def test_what_is_vendored_is_what_was_published() -> None:
    recorded = dict(line.split()[::-1] for line in (VENDORED / "SHA256SUMS").read_text().splitlines())
    found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in VENDORED.iterdir()}
    assert {name: digest for name, digest in found.items() if name not in ("SHA256SUMS", "README.md")} == recorded
