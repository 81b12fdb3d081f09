"""The private servers, and the browser, that several kinds of tests share."""

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest
from playwright.async_api import Browser, async_playwright

from scripts.postgres import PostgresCluster


@contextmanager
def running_cluster(primary: PostgresCluster | None = None) -> Iterator[PostgresCluster]:
    cluster = PostgresCluster(primary)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(scope="session")
def cluster() -> Iterator[PostgresCluster]:
    """A PostgreSQL for the tests that don't stop it."""
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def database_url(cluster: PostgresCluster) -> str:
    """An empty database."""
    return cluster.url(cluster.create_database())


@pytest.fixture
def primary() -> Iterator[PostgresCluster]:
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def standby(primary: PostgresCluster) -> Iterator[PostgresCluster]:
    with running_cluster(primary) as cluster:
        yield cluster


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    program = shutil.which("chromium") or "/Applications/Chromium.app/Contents/MacOS/Chromium"
    async with async_playwright() as playwright:
        # As root it takes no sandbox of its own; names other than addresses lead nowhere.
        flags = ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        browser = await playwright.chromium.launch(executable_path=program, args=flags)
        yield browser
        await browser.close()
