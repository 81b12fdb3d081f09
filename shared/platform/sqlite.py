"""SQLite for asyncio: one thread that owns one connection, and numbered migrations."""

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Concatenate, Literal, ParamSpec, TypeVar

import apsw

from shared.errors import CorruptStore, StoreUnavailable
from shared.platform.migrations import migration_scripts, to_do

P = ParamSpec("P")
T = TypeVar("T")


BUSY_SECONDS = 5
BUSY_RETRY_SECONDS = 0.01
PAGE_BYTES = 8192
CHECKPOINT_PAGES = 8192
CACHE_KIBIBYTES = 64 * 1024

ACCESS = " This user must be able to write to it and to its folder."
UNAVAILABLE: Mapping[type[Exception], str] = {
    apsw.FullError: " Make room on its disk.",
    apsw.CantOpenError: ACCESS,
    apsw.ReadOnlyError: ACCESS,
    apsw.PermissionsError: "",
    apsw.AbortError: "",
    apsw.BusyError: "",
    apsw.LockedError: "",
    apsw.InterruptError: "",
    apsw.IOError: "",
    apsw.ProtocolError: "",
    apsw.SchemaChangeError: "",
}
"""What another try may find gone, and what helps."""
GOOD_COPY = "Put a good copy in its place."
DAMAGE = apsw.CorruptError, apsw.NotADBError, UnicodeDecodeError
NOT_ALL_THERE = apsw.SQLITE_IOERR_SHORT_READ, apsw.SQLITE_IOERR_DATA, apsw.SQLITE_IOERR_CORRUPTFS
"""Codes of an IOError: a page that the file ends in, or that the disk has otherwise than it was written."""
UNKNOWN_FORMAT = "unsupported file format"
"""How SQLite's message begins of a damaged header: it has no code for it."""

READ_SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_schema"


class SqliteConnection:
    """`cache_kibibytes` is what SQLite keeps of the file in memory, at most.
    A commit is on disk when it returns, or with `synchronous` NORMAL in the operating system's hands: a power cut then
    takes the last commits with it, never one without all after it (https://www.sqlite.org/pragma.html#pragma_synchronous).
    """

    def __init__(
        self,
        path: Path,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        cache_kibibytes: int = CACHE_KIBIBYTES,
    ) -> None:
        """Raises `CorruptStore` when the file is no SQLite database, `StoreUnavailable` when it can't be opened."""
        self.path = path
        try:
            self._connection = apsw.Connection(name_of(path))
        except apsw.Error as error:
            self._raise_problem(error)
            raise
        try:
            self.run(_set_up, synchronous, cache_kibibytes)
        except BaseException:
            self._connection.close()
            raise

    def run(
        self,
        function: Callable[Concatenate[apsw.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Raises `CorruptStore` or `StoreUnavailable` in place of SQLite's own errors, but for those that are a bug of
        ours: to try again, as `StoreUnavailable` asks for, would not mend it."""
        try:
            return function(self._connection, *args, **kwargs)
        except (apsw.Error, UnicodeDecodeError) as error:
            self._raise_problem(error)
            raise

    def close(self) -> None:
        self._connection.close()

    def _raise_problem(self, error: apsw.Error | UnicodeDecodeError) -> None:
        """Unless it is a bug."""
        # A UnicodeDecodeError is of a text, or of SQLite's message, which quotes a damaged schema.
        code = getattr(error, "extendedresult", None)
        if isinstance(error, DAMAGE) or code in NOT_ALL_THERE or str(error).startswith(UNKNOWN_FORMAT):
            raise CorruptStore(f"{self.path}: {str(error)!a}. {GOOD_COPY}") from error
        if (advice := UNAVAILABLE.get(type(error))) is not None:
            raise StoreUnavailable(f"{self.path}: {error}.{advice}") from error


class SqliteThread:
    """Runs functions of a connection, one after the other, off the event loop."""

    def __init__(
        self,
        path: Path,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        cache_kibibytes: int = CACHE_KIBIBYTES,
    ) -> None:
        self._open = partial(SqliteConnection, path, synchronous, cache_kibibytes)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=path.name)
        self.connection: SqliteConnection
        """For calls that are not worth the way to the thread, while none of it is at work."""

    async def open(self) -> None:
        """Raises as `SqliteConnection` does."""
        try:
            self.connection = await self._submit(self._open)
        except BaseException:
            self._executor.shutdown()
            raise

    async def begin(self) -> None:
        """Lock the file for a transaction, on the event loop, which goes on while another process has the lock.

        Raises `StoreUnavailable` when that one keeps it for `BUSY_SECONDS`.
        """
        deadline = time.monotonic() + BUSY_SECONDS
        while not self.connection.run(_try_to_begin):
            if time.monotonic() > deadline:
                raise StoreUnavailable(f"{self.connection.path}: another program has locked it for {BUSY_SECONDS} s.")
            await asyncio.sleep(BUSY_RETRY_SECONDS)

    async def run(
        self,
        function: Callable[Concatenate[apsw.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Raises as `SqliteConnection.run` does."""
        return await self._submit(lambda: self.connection.run(function, *args, **kwargs))

    async def _submit(self, call: Callable[[], T]) -> T:
        done = asyncio.get_running_loop().run_in_executor(self._executor, call)
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            # The thread is at work on the connection: nobody else may use it before that has come to its end, however
            # often this task is cancelled.
            while not done.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([done])
            raise

    async def close(self) -> None:
        await self._submit(lambda: self.connection.close())
        self._executor.shutdown()


def name_of(path: Path) -> str:
    """As SQLite takes it, which is as UTF-8, whatever the locale's encoding is. Raises `StoreUnavailable`."""
    try:
        return os.fsencode(path).decode()
    except UnicodeDecodeError as error:
        raise StoreUnavailable(
            f"{str(path)!a}: SQLite takes names that are UTF-8 alone. Set DATA_DIR to another folder."
        ) from error


def _try_to_begin(connection: apsw.Connection) -> bool:
    try:
        connection.execute("BEGIN IMMEDIATE")
    except apsw.BusyError:
        return False
    return True


def never_wait(connection: apsw.Connection) -> None:
    """For other programs' locks, on a connection that the event loop uses: `SqliteThread.begin` waits for them."""
    connection.set_busy_timeout(0)


def _set_up(connection: apsw.Connection, synchronous: str, cache_kibibytes: int) -> None:
    connection.set_busy_timeout(int(BUSY_SECONDS * 1000))
    # A plan is not made again for each value that is asked for, which would be half of the time of a row.
    # https://www.sqlite.org/queryplanner-ng.html#_the_query_planner_stability_guarantee
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    # Of a new file. A commit costs by the page, and events are written one after the other.
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    _use_write_ahead_log(connection)
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    # Measured with 200 000 accounts: twice the rows a second. A page that many commits change goes to the
    # file once, and the index of states stays in memory. The log of changes grows to about 64 MB for it.
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA cache_size = -{cache_kibibytes}")


def _use_write_ahead_log(connection: apsw.Connection) -> None:
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except apsw.BusyError:
            # Of several that open a new file together, one changes the mode; SQLite does not make the others wait.
            if time.monotonic() > deadline:
                raise
            time.sleep(BUSY_RETRY_SECONDS)


def migrate(connection: apsw.Connection, package: str, path: Path) -> None:
    """Bring the schema up to date with `package`'s numbered `*.sqlite.sql` files, in one transaction.

    The number of the last one is kept in `PRAGMA user_version`. Raises `CorruptStore` when the file
    was written by another program than this one, or is damaged.
    """
    migrations = migration_scripts(package, "sqlite")
    # Locked before the version is read: of several that start together, one migrates.
    connection.execute("BEGIN IMMEDIATE")
    try:
        current: int = connection.execute("PRAGMA user_version").get
        missing = to_do(migrations, current, f"the schema of {package}")
        if current <= 0 and connection.execute(READ_SCHEMA).fetchone():
            raise CorruptStore(f"{path}: it has tables, and no version of this program's. {GOOD_COPY}")
        check_tables(connection, [script for number, script in migrations.items() if number not in missing], path)
        for migration in missing.values():
            execute_script(connection, migration)
        connection.execute(f"PRAGMA user_version = {max(migrations)}")
        connection.execute("COMMIT")
    finally:
        roll_back_leftover(connection)


def check_tables(connection: apsw.Connection, scripts: Iterable[str], path: Path) -> None:
    """Raises `CorruptStore` unless all is there that `scripts` make. At the opening: a statement that finds other
    tables fails as one with a bug does."""
    with closing(apsw.Connection(":memory:")) as new:
        for script in scripts:
            execute_script(new, script)
        made = set(new.execute(READ_SCHEMA))
    if not made <= set(connection.execute(READ_SCHEMA)):
        raise CorruptStore(f"{path}: its tables are not those that this program makes. {GOOD_COPY}")


def execute_script(connection: apsw.Connection, script: str) -> None:
    """In the open transaction: `executescript` would commit first, and give up the lock."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if apsw.complete(statement):
            connection.execute(statement)
            statement = ""


def roll_back_leftover(connection: apsw.Connection) -> None:
    """End a transaction that failed, or that its task left when it was cancelled while the thread was at work."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")
