"""`make clean-data`: removes the data of both services after asking, and not while one of them runs."""

import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

from shared.errors import StoreUnavailable
from shared.platform.data_files import LOCK_SUFFIX, held_lock

DATABASE_SUFFIX = ".sqlite3"


def main(folder: Path = Path(".data")) -> None:
    if not folder.is_dir():
        print(f"There is no {folder.resolve()}.")
        return
    with ExitStack() as locks:
        try:
            for path in sorted({file.with_suffix(DATABASE_SUFFIX) for file in folder.glob(f"*{LOCK_SUFFIX}")}):
                locks.enter_context(held_lock(path, sole=True))
        except StoreUnavailable as error:
            raise SystemExit(f"Nothing was removed: {error}") from None
        print(f"Remove {folder.resolve()} and every event in it? [y/N] ", end="", flush=True)
        if sys.stdin.readline().strip() == "y":
            shutil.rmtree(folder)
            print("Removed.")
        else:
            print("Kept.")


if __name__ == "__main__":
    main()
