"""Rows of an SQLite file. STRICT guards what goes in; what comes out of a damaged file may still be anything."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shared.errors import CorruptStore

ADVICE = "Put a good copy in its place."


def sound(path: Path, types: tuple[type, ...], rows: sqlite3.Cursor) -> Iterator[Any]:
    """`rows`, whose values are of these `types`. Raises `CorruptStore` at one that is not."""
    try:
        for row in rows:
            if tuple(map(type, row)) != types:
                raise CorruptStore(f"{path}: a value of another type than its column's. {ADVICE}")
            yield row
    except sqlite3.OperationalError as error:
        if hasattr(error, "sqlite_errorcode"):
            raise
        # Python's own, which has no code: a text that is no UTF-8.
        raise CorruptStore(f"{path}: {str(error)!a}. {ADVICE}") from error
