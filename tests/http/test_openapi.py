"""Both services keep to their own OpenAPI documents, whatever is thrown at them."""

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bank import Bank

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
EXAMPLES_PER_OPERATION = 50
LIMIT_SECONDS = 300


@pytest.mark.parametrize("service", ["command", "projection"])
async def test_the_service_answers_as_its_openapi_document_says(bank: Bank, service: str, tmp_path: Path) -> None:
    url = getattr(bank, service).url
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION), "run", f"{url}/openapi.json"),
        *("--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES_PER_OPERATION)),
        # The stream has no end: test_stream.py asks for it.
        *("--seed", "1", "--checks", "all", "--request-timeout", "20", "--no-color", "--exclude-path", "/stream"),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(LIMIT_SECONDS):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


def patterns(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("pattern"), str):
            yield schema["pattern"]
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            yield from patterns(part)


@pytest.mark.parametrize("service", ["command", "projection"])
async def test_every_pattern_of_a_document_is_one_to_its_readers_too(bank: Bank, service: str) -> None:
    """They read regular expressions as ECMA-262 has them, and Python's own are others."""
    async with bank.http.get(f"{getattr(bank, service).url}/openapi.json") as response:
        found = set(patterns(await response.json()))
    assert found
    program = f"for (const pattern of {json.dumps(sorted(found))}) new RegExp(pattern, 'u')"
    process = await asyncio.create_subprocess_exec("node", "--eval", program, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    assert process.returncode == 0, said.decode()
