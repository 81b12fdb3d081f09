"""The checkpoint and the tables of the views, which move together or not at all. What is in the tables, the views know.

A view gives its SQL as `Read` and `Write`, and its tables as numbered migrations beside it (`kept.py`).
"""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from shared.errors import CorruptStore, LedgerError, StoreUnavailable
from shared.events import Position, Value

Row = TypeVar("Row")


class Checkpoint(Value, frozen=True):
    """The views hold every event of the ledger `source` up to `position`, and none after it.

    `chain` is that of the folded events, `key` the public one that the ledger signed it with. `rebuilds` counts how
    often other tables were put in the place of these: what was read of the old ones must not be written to the new.
    """

    position: Position
    source: str | None
    chain: bytes
    key: bytes | None
    rebuilds: int = 0


class Read(Value, frozen=True):
    """A question to the tables; `checkpoint`, which has one row, tells the position of the answer.

    Parameters are ?1, ?2 … and $1, $2 …; of several values, one is JSON in SQLite and an array in PostgreSQL.
    """

    sqlite: str
    postgres: str

    @classmethod
    def in_both(cls, sql: str) -> "Read":
        """With the parameters $1, $2 …, and no other `$`."""
        return cls(sql.replace("$", "?"), sql)


class Write(Value, frozen=True):
    """A statement, the same for both stores, that takes what it writes from `changed`.

    `changed` has the columns `columns`, with PostgreSQL's types; its rows are given with each commit. PostgreSQL
    runs the statement once for all of them, SQLite for each. No two statements of a commit may meet the same row.
    """

    columns: str
    sql: str

    def described(self) -> Sequence[tuple[str, str]]:
        """Of each column its name and its type."""
        return [(name, type_) for name, type_ in map(str.split, self.columns.split(","))]


class Change(NamedTuple):
    write: Write
    rows: Iterable[tuple[object, ...]]
    """The same for both stores: what does not fit in 64 bits is decimal text. They are gone over once, in the commit
    and maybe in another thread; what they raise, the commit raises."""


class ReadRows(Protocol):
    def __call__(self, read: Read, *parameters: object) -> Awaitable[Sequence[Sequence[Any]]]: ...


def in_turns(read_rows: ReadRows) -> ReadRows:
    """For queries that read in pieces: one of them begins at a turn of the event loop, whosever it is. However many
    such queries there are, others wait for one piece, and not for one of each."""
    turn = asyncio.Lock()

    async def read_in_turn(read: Read, *parameters: object) -> Sequence[Sequence[Any]]:
        async with turn:
            await asyncio.sleep(0)
        return await read_rows(read, *parameters)

    return read_in_turn


class CheckpointMoved(LedgerError):
    """The stored checkpoint is not the expected one: another process has moved these views, or somebody put others in
    their place. Read it again and go on from there."""


class ImpossibleEvents(LedgerError):
    """A view can't hold what these events would make of it: no ledger has recorded them. `str()` says what."""


class TornViews(CorruptStore):
    """These tables are not of one moment: a copy of them was put together from several. `str()` says where."""

    slug, title = "torn-views", "Views of more than one moment"


class OtherViews(CorruptStore):
    """These tables do not hold the views that they are asked for."""

    slug, title = "other-views", "Other views"


class ViewStore(Protocol):
    """Raises `StoreUnavailable` while the tables can't be asked, or are empty since somebody restores them."""

    read_piece: ReadRows
    """As `read`, for all queries that read in pieces: see `in_turns`."""

    async def checkpoint(self) -> Checkpoint:
        """Raises `OtherViews` when a process that was started with others has taken over."""

    async def read(self, read: Read, *parameters: object) -> Sequence[Sequence[Any]]:
        """The rows, of one moment between two commits. May raise `OtherViews` as `checkpoint` does."""

    async def read_for_fold(self, expected: Checkpoint, read: Read, *parameters: object) -> Sequence[Sequence[Any]]:
        """The same, of a moment when the views are what `expected` says. For who commits, in between.

        Raises `CheckpointMoved` when they are not. That they are when it is committed does not tell: they may have been
        put back in between, and brought to the same again.
        """

    async def commit(self, expected: Checkpoint, checkpoint: Checkpoint, changes: Sequence[Change]) -> None:
        """Write `changes` and move the checkpoint, in one transaction that outlives this process.

        Raises `CheckpointMoved`, having written nothing, unless the stored checkpoint is `expected` and the tables
        hold the same views as when they were opened; `ImpossibleEvents` where the tables' constraints forbid it.
        """

    async def close(self) -> None: ...


def one_row(rows: Sequence[Row]) -> Row:
    """The first of `rows`, from tables that always have one. Raises `StoreUnavailable` when there is none."""
    if not rows:
        raise StoreUnavailable(
            "the views' tables are empty, as they are while a backup is read back table by table. Read it back in one "
            "transaction (pg_restore --single-transaction)."
        )
    return rows[0]
