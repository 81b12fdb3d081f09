"""Rows of an SQLite file. STRICT guards what goes in; what comes out of a damaged file may still be anything."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw

from shared.errors import CorruptStore
from shared.platform.sqlite import GOOD_COPY


def sound(path: Path, types: tuple[type, ...], rows: apsw.Cursor) -> Iterator[Any]:
    """`rows`, whose values are of these `types`, as they are asked for. Raises `CorruptStore` at one that is not."""
    for row in rows:
        if tuple(map(type, row)) != types:
            raise _damaged(path)
        yield row


def all_sound(path: Path, types: tuple[type, ...], rows: apsw.Cursor) -> list[Any]:
    """All of them, in less time than one by one."""
    found = rows.fetchall()
    for type_, values in zip(types, zip(*found, strict=True), strict=False):
        if set(map(type, values)) != {type_}:
            raise _damaged(path)
    return found


def _damaged(path: Path) -> CorruptStore:
    return CorruptStore(f"{path}: a value of another type than its column's. {GOOD_COPY}")
