"""Rows of an SQLite file. STRICT guards what goes in; what comes out of a damaged file may still be anything."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shared.errors import CorruptStore
from shared.platform.sqlite import GOOD_COPY


def sound(path: Path, types: tuple[type, ...], rows: sqlite3.Cursor) -> Iterator[Any]:
    """`rows`, whose values are of these `types`. Raises `CorruptStore` at one that is not."""
    for row in rows:
        if tuple(map(type, row)) != types:
            raise CorruptStore(f"{path}: a value of another type than its column's. {GOOD_COPY}")
        yield row
