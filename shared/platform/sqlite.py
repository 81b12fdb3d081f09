"""SQLite for asyncio: one thread that owns one connection, and numbered migrations."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Concatenate, Literal, ParamSpec, TypeVar

from shared.errors import CorruptStore, LedgerError, StoreUnavailable
from shared.platform.migrations import migration_scripts, to_do

P = ParamSpec("P")
T = TypeVar("T")


BUSY_SECONDS = 5
BUSY_RETRY_SECONDS = 0.01
PAGE_BYTES = 8192
CHECKPOINT_PAGES = 8192
CACHE_KIBIBYTES = 64 * 1024

ACCESS = " This user must be able to write to it and to its folder."
ADVICE = {"SQLITE_FULL": " Make room on its disk.", "SQLITE_CANTOPEN": ACCESS, "SQLITE_READONLY": ACCESS}


class SqliteConnection:
    """`text_factory` is the type of text read: `bytes` for text that only passes through.

    `cache_kibibytes` is what SQLite keeps of the file in memory, at most.
    A commit is on disk when it returns, or with `synchronous` NORMAL in the operating system's hands: a power cut then
    takes the last commits with it, never one without all after it (https://www.sqlite.org/pragma.html#pragma_synchronous).
    """

    def __init__(
        self,
        path: Path,
        text_factory: type[str | bytes] = str,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        cache_kibibytes: int = CACHE_KIBIBYTES,
    ) -> None:
        """Raises `CorruptStore` when the file is no SQLite database, `StoreUnavailable` when it can't be opened."""
        self.path = path
        try:
            self._connection = sqlite3.connect(
                path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise self._problem(error) from error
        self._connection.text_factory = text_factory
        try:
            # Of a new file. A commit costs by the page, and events are written one after the other.
            self._connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            _use_write_ahead_log(self._connection)
            self._connection.execute(f"PRAGMA synchronous = {synchronous}")
            # Measured with 200 000 accounts: twice the rows a second. A page that many commits change goes to the
            # file once, and the index of states stays in memory. The log of changes grows to about 64 MB for it.
            self._connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
            self._connection.execute(f"PRAGMA cache_size = -{cache_kibibytes}")
        except sqlite3.Error as error:
            self._connection.close()
            raise self._problem(error) from error

    def run(
        self,
        function: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Raises `CorruptStore` or `StoreUnavailable` in place of SQLite's own errors."""
        try:
            return function(self._connection, *args, **kwargs)
        except sqlite3.Error as error:
            raise self._problem(error) from error

    def close(self) -> None:
        self._connection.close()

    def _problem(self, error: sqlite3.Error) -> LedgerError:
        # SQLITE_CORRUPT, SQLITE_NOTADB: https://www.sqlite.org/rescode.html
        if error.sqlite_errorname in ("SQLITE_CORRUPT", "SQLITE_NOTADB"):
            return CorruptStore(f"{self.path}: {error}. Nothing was written to it; put a good copy in its place.")
        return StoreUnavailable(f"{self.path}: {error}.{ADVICE.get(error.sqlite_errorname, '')}")


class SqliteThread:
    """Runs functions of a connection, one after the other, off the event loop."""

    def __init__(
        self,
        path: Path,
        text_factory: type[str | bytes] = str,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        cache_kibibytes: int = CACHE_KIBIBYTES,
    ) -> None:
        self._open = partial(SqliteConnection, path, text_factory, synchronous, cache_kibibytes)
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
        function: Callable[Concatenate[sqlite3.Connection, P], T],
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
            # The thread is at work on the connection: nobody else may use it before that has come to its end.
            await asyncio.wait([done])
            raise

    async def close(self) -> None:
        await self._submit(lambda: self.connection.close())
        self._executor.shutdown()


def _try_to_begin(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        # https://www.sqlite.org/rescode.html#primary_result_codes_versus_extended_result_codes
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True


def never_wait(connection: sqlite3.Connection) -> None:
    """For other programs' locks, on a connection that the event loop uses: `SqliteThread.begin` waits for them."""
    connection.execute("PRAGMA busy_timeout = 0")


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            # Of several that open a new file together, one changes the mode; SQLite does not make the others wait.
            if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def migrate(connection: sqlite3.Connection, package: str) -> None:
    """Bring the schema up to date with `package`'s numbered `*.sqlite.sql` files, in one transaction.

    The number of the last one is kept in `PRAGMA user_version`. Raises `CorruptStore` when the file
    was written by another program than this one.
    """
    migrations = migration_scripts(package, "sqlite")
    # Locked before the version is read: of several that start together, one migrates.
    connection.execute("BEGIN IMMEDIATE")
    try:
        (current,) = connection.execute("PRAGMA user_version").fetchone()
        for migration in to_do(migrations, current, f"the schema of {package}").values():
            execute_script(connection, migration)
        connection.execute(f"PRAGMA user_version = {max(migrations)}")
        connection.execute("COMMIT")
    finally:
        roll_back_leftover(connection)


def execute_script(connection: sqlite3.Connection, script: str) -> None:
    """In the open transaction: `executescript` would commit first, and give up the lock."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            connection.execute(statement)
            statement = ""


def roll_back_leftover(connection: sqlite3.Connection) -> None:
    """End a transaction that failed, or that its task left when it was cancelled while the thread was at work."""
    if connection.in_transaction:
        connection.rollback()
