"""The roles that docker-compose.yml gives the services, on a real server."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import aiohttp
import asyncpg
import pytest

from scripts.postgres import PostgresCluster
from tests.bank import Bank

SCRIPT = Path(__file__).parents[2] / "scripts" / "postgres-roles.sql"
PASSWORDS = {"command_service": "it's \\secret", "projection_service": "another"}
REMOVE = "DROP OWNED BY command_service, projection_service CASCADE; DROP ROLE command_service, projection_service"
POWERS = "SELECT rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls FROM pg_roles"


@pytest.fixture
def role_urls(cluster: PostgresCluster) -> Iterator[dict[str, str]]:
    """The database of a bank as each role reaches it."""
    url = cluster.url(cluster.create_database())
    psql = [str(cluster.binaries / "psql"), "-qX", "-d", url]
    passwords = {f"{role.split('_')[0].upper()}_DATABASE_PASSWORD": word for role, word in PASSWORDS.items()}
    subprocess.run([*psql, "-f", str(SCRIPT)], env={**os.environ, **passwords}, check=True, timeout=60)
    address = url.split("@")[1]
    yield {role: f"postgresql://{role}:{quote(word)}@{address}" for role, word in PASSWORDS.items()}
    # Roles are of the cluster, which other tests use too.
    subprocess.run([*psql, "-c", REMOVE], check=True, timeout=60, stderr=subprocess.DEVNULL)


async def test_each_service_works_with_its_own_role_and_can_not_read_the_others_schema(
    role_urls: dict[str, str], tmp_path: Path
) -> None:
    async with aiohttp.ClientSession() as http:
        bank = Bank(tmp_path, http, amqp_url=None, projections=1)
        bank.command.environment["DATABASE_URL"] = role_urls["command_service"]
        bank.projection.environment["DATABASE_URL"] = role_urls["projection_service"]
        schemas = {
            "command_service": "ledger",
            "projection_service": f"projection_{bank.projection.environment['PROJECTION_NAME']}",
        }
        services = (bank.command, bank.projection)
        try:
            for service in services:
                await service.start()
            assert (await bank.create("alice"))[0] == 201
            await bank.check_views()
            # On what they have made they start as well.
            for service in services:
                assert await service.stop() == 0
                await service.start()
            assert (await bank.deposit("alice", 100))[1]["balance"] == 100
            assert len(await bank.check_views()) == 2
            for role, url in role_urls.items():
                (other,) = [schema for owner, schema in schemas.items() if owner != role]
                await assert_kept_out(url, schemas[role], other)
        finally:
            await asyncio.gather(*(service.kill() for service in services))


async def assert_kept_out(url: str, own: str, other: str) -> None:
    """Whoever connects with `url` has no power over the server or over the schema `other`."""
    connection = await asyncpg.connect(url, timeout=30)
    try:
        assert await connection.fetchval(f"{POWERS} WHERE rolname = current_user") is False
        assert await connection.fetchval(f'SELECT count(*) FROM "{own}".migrations') > 0
        for statement in (
            f'SELECT * FROM "{other}".migrations',
            f'CREATE TABLE "{other}".planted (id integer)',
            f'DROP SCHEMA "{other}" CASCADE',
            "CREATE TABLE public.planted (id integer)",
            "CREATE ROLE planted",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()
