"""`python -m tests.golden`: add the lines that are missing."""

import msgspec

from tests.golden.golden import FOLDER, missing

for event_type, golden in [*missing()]:
    with (FOLDER / f"{event_type}.jsonl").open("ab") as file:
        file.write(msgspec.json.encode(golden) + b"\n")
    print(f"{event_type}.jsonl has one more line: {golden.meaning.data}")
