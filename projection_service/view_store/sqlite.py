"""The views in one SQLite file."""

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec

from projection_service.view_store import EARLIER_STATE, Checkpoint, CheckpointMoved
from projection_service.views import AccountView, ReserveView
from shared.data_files import DataFiles, held_lock, make_file
from shared.events import AccountId, Position, Version
from shared.problems import CorruptStore
from shared.sqlite import SqliteConnection, SqliteThread, migrate, roll_back_leftover

READ_CHECKPOINT = """
    SELECT position, source, reserve, reserve_last_updated, chain, "key" FROM checkpoint
"""
READ_HAS_CHAIN = "SELECT count(*) FROM pragma_table_info('checkpoint') WHERE name = 'chain'"
READ_ACCOUNTS = """
    SELECT id, name, balance, version, last_updated FROM accounts WHERE id IN (SELECT value FROM json_each(?))
"""
READ_ACCOUNT = """
    SELECT position, id, name, balance, version, last_updated FROM checkpoint LEFT JOIN accounts ON id = ?
"""
MOVE_CHECKPOINT = """
    UPDATE checkpoint SET
        position = ?, source = ?, reserve = ?, reserve_last_updated = ?,
        chain = ?, "key" = ?
    WHERE position = ?
"""
PUT_ACCOUNT = """
    INSERT INTO accounts (id, name, balance, version, last_updated) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET
        name = excluded.name, balance = excluded.balance,
        version = excluded.version, last_updated = excluded.last_updated
"""


class SqliteViewStore:
    """Writes through one connection and answers queries through another.

    Only commits, which wait for the disk, go to another thread: a row is read in some 10 µs, and a trip there and
    back takes ten times that.
    """

    def __init__(
        self, writer: SqliteThread, reader: SqliteConnection, files: DataFiles, resources: AsyncExitStack
    ) -> None:
        self.files = files
        self._writer = writer
        self._reader = reader
        self._resources = resources

    @classmethod
    async def open(cls, path: Path) -> "SqliteViewStore":
        """Open the views at `path`, making them when they are not there. Raises as `SqliteThread.open` does."""
        make_file(path)
        # What a power cut takes from the views is still in the log: the checkpoint goes back with them.
        writer = SqliteThread(path, synchronous="NORMAL")
        async with AsyncExitStack() as resources:
            resources.enter_context(held_lock(path, sole=False))
            await writer.open()
            resources.push_async_callback(writer.close)
            await writer.run(migrate, "projection_service.view_store")
            await writer.run(_check_state, path)
            reader = SqliteConnection(path)
            resources.callback(reader.close)
            return cls(writer, reader, DataFiles(path), resources.pop_all())

    async def checkpoint(self) -> Checkpoint:
        return self._reader.run(_read_checkpoint)

    async def accounts(self, ids: Collection[AccountId]) -> dict[AccountId, AccountView]:
        return self._writer.connection.run(_read_accounts, ids)

    async def commit(
        self, expected: Position, checkpoint: Checkpoint, accounts: Mapping[AccountId, AccountView]
    ) -> None:
        await self._writer.run(_commit, expected, checkpoint, accounts)

    async def account(self, account_id: AccountId) -> tuple[AccountView | None, Position]:
        return self._reader.run(_read_account, account_id)

    async def close(self) -> None:
        await self._resources.aclose()


def _check_state(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute(READ_HAS_CHAIN).fetchone() == (0,):
        raise CorruptStore(f"{path}: {EARLIER_STATE}")


def _read_checkpoint(connection: sqlite3.Connection) -> Checkpoint:
    row = connection.execute(READ_CHECKPOINT).fetchone()
    position, source, reserve, last_updated, chain, key = row
    return Checkpoint(Position(position), source, ReserveView(int(reserve), last_updated), chain, key)


def _read_accounts(connection: sqlite3.Connection, ids: Collection[AccountId]) -> dict[AccountId, AccountView]:
    parameter = msgspec.json.encode(list(ids)).decode()
    views = [_account(row) for row in connection.execute(READ_ACCOUNTS, (parameter,))]
    return {view.id: view for view in views}


def _read_account(connection: sqlite3.Connection, account_id: AccountId) -> tuple[AccountView | None, Position]:
    position, *row = connection.execute(READ_ACCOUNT, (account_id,)).fetchone()
    return (None if row[0] is None else _account(row)), Position(position)


def _commit(
    connection: sqlite3.Connection,
    expected: Position,
    checkpoint: Checkpoint,
    accounts: Mapping[AccountId, AccountView],
) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        reserve = checkpoint.reserve
        moved = connection.execute(
            MOVE_CHECKPOINT,
            (
                checkpoint.position,
                checkpoint.source,
                str(reserve.amount),
                reserve.last_updated,
                checkpoint.chain,
                checkpoint.key,
                expected,
            ),
        ).rowcount
        if not moved:
            raise CheckpointMoved(f"the checkpoint is no longer at {expected}.")
        connection.executemany(
            PUT_ACCOUNT,
            [(a.id, a.name, a.balance, a.version, a.last_updated) for a in accounts.values()],
        )
        connection.execute("COMMIT")
    finally:
        roll_back_leftover(connection)


def _account(row: Sequence[Any]) -> AccountView:
    account_id, name, balance, version, last_updated = row
    return AccountView(AccountId(account_id), name, balance, Version(version), last_updated)
