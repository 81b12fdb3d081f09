"""How the page reads and writes figures, in the browser that does it."""

import pytest

from tests.bank import Bank
from tests.browser.conftest import Open

MINUS = "\u2212"


async def evaluated(bank: Bank, open_page: Open, module: str, expression: str) -> object:
    async with open_page(bank, "/accounts") as page:
        return await page.evaluate(f"import('/dashboard/{module}').then((it) => {expression})")


@pytest.mark.parametrize(
    ("amount", "asset", "written"),
    [
        (0, "USD/2", "0.00"),
        (5, "USD/2", "0.05"),
        (-5, "USD/2", f"{MINUS}0.05"),
        (1250, "USD/2", "12.50"),
        (125_000, "USD/2", "1,250.00"),
        (-100_000, "USD/2", f"{MINUS}1,000.00"),
        (2**53 + 1, "USD/2", "90,071,992,547,409.93"),
        (10**30 + 1, "USD/2", "10,000,000,000,000,000,000,000,000,000.01"),
        (1234, "JPY/0", "1,234"),
        (1, "BTC/8", "0.00000001"),
        (123_456_789, "BTC/8", "1.23456789"),
        (-(2**63), "X/99", MINUS + "0." + "9223372036854775808".zfill(99)),
    ],
)
async def test_an_amount_is_written_exactly(bank: Bank, open_page: Open, amount: int, asset: str, written: str) -> None:
    assert await evaluated(bank, open_page, "words.js", f"it.money({amount}n, '{asset}')") == written


@pytest.mark.parametrize(
    ("json", "read"),
    [
        ("9007199254740993", "bigint 9007199254740993"),
        ("-1", "bigint -1"),
        ("0.5", "number 0.5"),
        ("1e3", "number 1000"),
        ('"9007199254740993"', "string 9007199254740993"),
        ('{"__proto__": 7}', "object 7"),
    ],
)
async def test_integers_are_read_exactly(bank: Bank, open_page: Open, json: str, read: str) -> None:
    told = "typeof one + ' ' + (typeof one === 'object' ? Object.values(one)[0] : one)"
    expression = f"(one => {told})(it.parse({json!r}))"
    assert await evaluated(bank, open_page, "api.js", expression) == read


@pytest.mark.parametrize(
    "place", ["#/account/alice?at=12&from=2026-10", "#/", "#/account/a%3Ab", "#/accounts?prefix=%C3%A9%26%23"]
)
async def test_a_place_is_read_and_written_alike(bank: Bank, open_page: Open, place: str) -> None:
    same = f"it.link(it.read({place!r}))"
    written = await evaluated(bank, open_page, "route.js", same)
    assert written == place.replace("?at=12&from=2026-10", "?from=2026-10&at=12")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2026-10-05 14:30", "2026-10-05T14:30:00Z"),
        ("2026-10-05 14:30:05", "2026-10-05T14:30:05Z"),
        ("2026-10-05T14:30:05.123456Z", "2026-10-05T14:30:05.123456Z"),
        ("  2026-10-05  14:30 utc ", "2026-10-05T14:30:00Z"),
        ("2026-10-05 14:30+02:00", "2026-10-05T14:30:00+02:00"),
        ("2026-10-05 14:30:05.5 -09:30", "2026-10-05T14:30:05.5-09:30"),
        ("2026-10-05", None),
        ("14:30", None),
        ("2026-10-05 2:30", None),
        ("2026-10-05 14:30 or so", None),
        ("", None),
    ],
)
async def test_a_moment_is_read_as_it_is_written(bank: Bank, open_page: Open, written: str, read: str | None) -> None:
    assert await evaluated(bank, open_page, "words.js", f"it.moment({written!r})") == read
