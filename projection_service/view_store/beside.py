"""The views in use, and new ones that are built beside them until they take their place.

The new ones are an ordinary store, in a file or schema of their own, so that a rebuild that was killed goes on from
their checkpoint. Those in use are asked and moved on by others all the time; `hold` keeps them where they are for a
moment.
"""

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from projection_service.view_store import Checkpoint, ViewStore
from shared.errors import LedgerError, StoreUnavailable
from shared.events import Value

NEW_PREFIX = "rebuild"
"""Of the new file's and schema's names. Not a suffix: a PROJECTION_NAME may end with any."""


class NoViews(LedgerError):
    """There is nothing in use that could be replaced."""

    def __init__(self, where: object) -> None:
        super().__init__(
            f"there are no views in {where} yet, which PROJECTION_NAME and DATABASE_URL or DATA_DIR name. If that is "
            "the right place, start the service: it builds them."
        )


class RebuildUnderWay(LedgerError):
    """Another process builds the same new views."""


class QueriesInTheWay(StoreUnavailable):
    """Long queries have not let go of the tables: nothing was switched."""


class InUse(Value, frozen=True):
    """Where the views in use are, and which they are, as `checkpoint.views` has it."""

    checkpoint: Checkpoint
    views: str


class Both(Protocol):
    """The views in use and the new ones, all of one moment. `old` and `new` come before the names of their tables; a
    name without either is the new table, or the old one where there is no new one."""

    old: str
    new: str

    async def rows(self, sql: str) -> Sequence[Sequence[Any]]: ...

    async def columns(self, table: str) -> tuple[list[str], list[str]]:
        """Of a new table: those of its primary key, and the others."""

    def unlike(self, column: str) -> str:
        """A condition: `o` and `n`, an old and a new row, differ there."""


class Beside(Protocol):
    """Raises `StoreUnavailable` where the database can't be asked."""

    dialect: str
    what: str
    """The file or schema in use, for people."""
    new_what: str

    async def in_use(self) -> InUse: ...

    async def open_new(self, views: Collection[str]) -> ViewStore:
        """The new tables of `views`, made when they are not there. Raises `CorruptStore` when they are others."""

    async def remove_new(self) -> None:
        """The store that `open_new` gave has to be closed."""

    def hold(self) -> AbstractAsyncContextManager[InUse]:
        """Inside, nobody moves the views in use. Queries are answered."""

    def both(self) -> AbstractAsyncContextManager[Both]:
        """Of the moment when it is entered; within `hold`, those of one position. It may outlast `hold`."""

    async def switch(self, views: Sequence[str], kept: str) -> None:
        """Within `hold`, whose end it is: put the new tables of `views`, which are in the order in which they are
        folded, in the place of those in use, and make `kept` their `checkpoint.views`. In one transaction, on disk
        when this returns.

        Raises `QueriesInTheWay`, or whatever keeps it from being done; then all is as it was.
        """
