"""What the page is made of, and what it may do."""

import hashlib
from pathlib import Path

import pytest

from tests.bank import Bank

ROOT = Path(__file__).parents[2]
FILES = ["/", "/dashboard/app.js", "/dashboard/views/account.js", "/dashboard/style.css", "/dashboard/icon.svg"]


@pytest.mark.parametrize("path", FILES)
async def test_the_page_may_run_its_own_scripts_only_and_be_shown_in_no_frame(bank: Bank, path: str) -> None:
    async with bank.http.get(bank.projection.url + path) as response:
        assert response.status == 200
        said = response.headers["Content-Security-Policy"].split(";")
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
    policy = dict(directive.strip().split(" ", 1) for directive in said)
    assert (policy["default-src"], policy["script-src"], policy["style-src"]) == ("'none'", "'self'", "'self'")
    assert (policy["frame-ancestors"], policy["require-trusted-types-for"]) == ("'none'", "'script'")


@pytest.mark.parametrize("path", FILES)
async def test_a_file_that_the_browser_has_is_not_sent_again(bank: Bank, path: str) -> None:
    async with bank.http.get(bank.projection.url + path) as response:
        assert response.headers["Cache-Control"] == "no-cache"
        tag = response.headers["ETag"]
    async with bank.http.get(bank.projection.url + path, headers={"If-None-Match": tag}) as response:
        assert (response.status, response.headers["ETag"], await response.read()) == (304, tag, b"")
    async with bank.http.get(bank.projection.url + path, headers={"If-None-Match": '"another"'}) as response:
        assert response.status == 200


@pytest.mark.parametrize(
    "name", ["", "nothing.js", "__init__.py", "uplot/LICENSE", "../api.py", "..%2Fapi.py", "%2e%2e/api.py", "views"]
)
async def test_there_is_no_other_file(bank: Bank, name: str) -> None:
    async with bank.http.get(f"{bank.projection.url}/dashboard/{name}") as response:
        assert (response.status, response.content_type) == (404, "application/problem+json")


@pytest.mark.parametrize("folder", ["projection_service/dashboard/uplot", "tests/browser/axe-core"])
def test_what_is_vendored_is_what_was_published(folder: str) -> None:
    vendored = ROOT / folder
    recorded = dict(line.split()[::-1] for line in (vendored / "SHA256SUMS").read_text().splitlines())
    found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in vendored.iterdir()}
    assert {name: digest for name, digest in found.items() if name not in ("SHA256SUMS", "README.md")} == recorded
