"""The private servers that several kinds of tests share."""

from collections.abc import Iterator

import pytest

from scripts.postgres import PostgresCluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[PostgresCluster]:
    """A PostgreSQL for the tests that don't stop it."""
    cluster = PostgresCluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def database_url(cluster: PostgresCluster) -> str:
    """An empty database."""
    return cluster.url(cluster.create_database())
