"""What a log may show: where an error came from, and nothing that a client sent."""

import asyncio
import json
import sys
from pathlib import Path

import aiohttp
import pytest

from tests.bank import Service

SECRET = "secret-of-a-client"
ENTRY_CHARACTERS_MAX = 16_000

# A service like ours, whose handler fails in as many ways as the path says.
FAILING = '''
import asyncio, logging
from fastapi import FastAPI, Request
from prometheus_client import CollectorRegistry
from shared.platform.gate import Gate
from shared.platform.problems import install_problem_handlers
from shared.platform.server import bind, run_service, serve
from shared.platform.settings import ServiceSettings
from shared.platform.telemetry import install_operator_routes
from pydantic import BaseModel
import structlog

class Command(BaseModel):
    amount: int

def deep(body, depth):
    local = {"body": body}
    return deep(body, depth - 1) if depth else Command(amount=body)

async def run(settings):
    app, registry = FastAPI(), CollectorRegistry()
    install_problem_handlers(app)
    install_operator_routes(app, registry)

    @app.post("/{how}")
    async def fail(how: str, request: Request):
        body, headers = (await request.body()).decode(), dict(request.headers)
        if how == "deep":
            deep(body, 500)
        if how == "endless":
            deep(body, 10_000)
        if how == "group":
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.to_thread(int, body))
        if how == "library":
            try:
                int(body)
            except ValueError:
                logging.getLogger("library").exception("it failed")
            raise KeyError(body) from ValueError(headers)
        if how == "long":
            structlog.get_logger().error("long", reason="x" * 1_000_000, lines="a\\nb", them=["y"] * 100_000)
        if how == "file":
            open("/does/not/exist")
        raise ValueError(body, headers)

    class Bare(Gate):
        async def __call__(self, scope, receive, send):
            """Beyond all handlers: uvicorn logs this one."""
            if scope["path"] == "/bare":
                message = await receive()
                raise ValueError(message["body"], scope["headers"])
            await super().__call__(scope, receive, send)

    await serve(Bare(app, {}, ["127.0.0.1"]), bind(settings), settings, registry, [], lambda: None)

run_service("failing", "Fails.", ServiceSettings, run)
'''


async def log_of(folder: Path, log_format: str, how: str) -> str:
    """The log of a service after a request that failed in this way."""
    service = Service("failing", folder / "log", LOG_FORMAT=log_format)
    service.environment["LOG_FORMAT"] = log_format
    service.command_line = [sys.executable, "-c", FAILING]
    await service.start()
    try:
        headers = {"Authorization": SECRET, "Cookie": SECRET}
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{service.url}/{how}", data=SECRET, headers=headers) as response,
        ):
            assert response.status == 500
            assert SECRET not in await response.text()
        assert await service.stop() == 0
    finally:
        await service.kill()
    return await asyncio.to_thread(service.log.read_text)


@pytest.mark.parametrize("log_format", ["console", "json"])
@pytest.mark.parametrize("how", ["plain", "deep", "endless", "group", "library", "bare"])
async def test_an_unexpected_error_is_logged_without_what_the_client_sent(
    tmp_path: Path, log_format: str, how: str
) -> None:
    log = await log_of(tmp_path, log_format, how)
    assert SECRET not in log
    assert "Error" in log
    assert "<string>:" in log, "where it was"
    assert len(log) < 4 * ENTRY_CHARACTERS_MAX
    if log_format == "json":
        errors = [entry for line in log.splitlines() if "exception" in (entry := json.loads(line))]
        assert errors
        assert all(isinstance(entry["exception"], str) for entry in errors)


@pytest.mark.parametrize("log_format", ["console", "json"])
async def test_what_the_system_says_of_an_error_is_logged(tmp_path: Path, log_format: str) -> None:
    assert "No such file or directory" in await log_of(tmp_path, log_format, "file")


@pytest.mark.parametrize("log_format", ["console", "json"])
async def test_an_entry_is_short_and_on_one_line(tmp_path: Path, log_format: str) -> None:
    log = await log_of(tmp_path, log_format, "long")
    assert max(map(len, log.splitlines())) < ENTRY_CHARACTERS_MAX
    assert "a\nb" not in log
