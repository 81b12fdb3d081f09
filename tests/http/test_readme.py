"""The README's examples, run as they are printed: the same commands, the same answers."""

import asyncio
import re
from pathlib import Path

from tests.bank import Bank, open_bank

README = (Path(__file__).parents[2] / "README.md").read_text()
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"


async def shell(bank: Bank, command: str) -> str:
    command = command.replace("127.0.0.1:8080", f"127.0.0.1:{bank.command.port}")
    command = command.replace("127.0.0.1:8081", f"127.0.0.1:{bank.projection.port}")
    process = await asyncio.create_subprocess_shell(command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0, command
    return output.decode()


def without_ids_and_times(text: str) -> str:
    return re.sub(TIME, "TIME", re.sub(UUID, "UUID", text))


async def test_the_examples_answer_as_printed(tmp_path: Path) -> None:
    blocks = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    examples, card_payment = (re.findall(r"^\$ (.*)\n(.*)$", block, re.MULTILINE) for block in blocks)
    (batch,) = re.findall(r"^  curl -s .*?$.*?/commands$", README, re.MULTILINE | re.DOTALL)
    assert (len(examples), len(card_payment)) == (6, 5)
    async with open_bank(tmp_path) as bank:
        for command, answer in examples:
            assert without_ids_and_times(await shell(bank, command)) == without_ids_and_times(answer)
        assert '"balance":500' in await shell(bank, batch)
        assert len(await bank.check_views()) == 6
        for command, answer in card_payment:
            assert without_ids_and_times(await shell(bank, command)) == without_ids_and_times(answer)
