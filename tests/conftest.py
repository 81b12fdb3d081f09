"""The private servers that several kinds of tests share."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

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
