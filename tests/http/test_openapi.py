"""Both services keep to their own OpenAPI documents, whatever is thrown at them."""

import asyncio
import sys
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
