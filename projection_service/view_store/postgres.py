"""The views in PostgreSQL: a schema for each projection, which replicas of it may share."""

from collections.abc import Collection, Mapping

from projection_service.view_store import EARLIER_STATE, Checkpoint, CheckpointMoved
from projection_service.views import AccountView, ReserveView
from shared.events import AccountId, Position
from shared.postgres import PostgresPool, migrate
from shared.problems import CorruptStore

CONNECTIONS_MAX = 8

READ_CHECKPOINT = """
    SELECT position, source, reserve, reserve_last_updated, chain, "key" FROM checkpoint
"""
READ_HAS_CHAIN = """
    SELECT count(*) > 0 FROM information_schema.columns
    WHERE table_schema = current_schema() AND table_name = 'checkpoint' AND column_name = 'chain'
"""
READ_ACCOUNTS = "SELECT id, name, balance, version, last_updated FROM accounts WHERE id = ANY($1)"
READ_ACCOUNT = """
    SELECT position, id, name, balance, version, last_updated FROM checkpoint LEFT JOIN accounts ON id = $1
"""
# One statement, and so one transaction: nothing is held while the server waits for us.
COMMIT = """
    WITH moved AS (
        UPDATE checkpoint SET
            position = $1, source = $2, reserve = $3, reserve_last_updated = $4,
            chain = $11, "key" = $12
        WHERE position = $5 RETURNING position
    ),
    put AS (
        INSERT INTO accounts (id, name, balance, version, last_updated)
        SELECT changed.* FROM moved, unnest($6::text[], $7::text[], $8::bigint[], $9::bigint[], $10::text[]) AS changed
        ON CONFLICT (id) DO UPDATE SET
            name = excluded.name, balance = excluded.balance,
            version = excluded.version, last_updated = excluded.last_updated
    )
    SELECT position FROM moved
"""


class PostgresViewStore:
    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    @classmethod
    async def open(cls, url: str, projection_name: str) -> "PostgresViewStore":
        """Open the projection's views in the database at `url`, making them when they are not there.

        Raises `StoreUnavailable` when the database can't be reached, `CorruptStore` when it can't be used.
        """
        pool = PostgresPool(url, f"projection_{projection_name}", CONNECTIONS_MAX)
        await pool.open()
        try:
            async with pool.connection() as connection, connection.transaction():
                await migrate(connection, pool.schema, "projection_service.view_store")
                if not await connection.fetchval(READ_HAS_CHAIN):
                    raise CorruptStore(f"the schema {pool.schema}: {EARLIER_STATE}")
        except BaseException:
            await pool.close()
            raise
        return cls(pool)

    async def checkpoint(self) -> Checkpoint:
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(READ_CHECKPOINT)
        position, source, reserve, updated, chain, key = row  # type: ignore[misc]
        return Checkpoint(Position(position), source, ReserveView(int(reserve), updated), chain, key)

    async def accounts(self, ids: Collection[AccountId]) -> dict[AccountId, AccountView]:
        async with self._pool.connection() as connection:
            return {row[0]: AccountView(*row) for row in await connection.fetch(READ_ACCOUNTS, list(ids))}

    async def commit(
        self, expected: Position, checkpoint: Checkpoint, accounts: Mapping[AccountId, AccountView]
    ) -> None:
        views, reserve = accounts.values(), checkpoint.reserve
        async with self._pool.connection() as connection:
            moved = await connection.fetchrow(
                COMMIT,
                checkpoint.position,
                checkpoint.source,
                reserve.amount,
                reserve.last_updated,
                expected,
                [view.id for view in views],
                [view.name for view in views],
                [view.balance for view in views],
                [view.version for view in views],
                [view.last_updated for view in views],
                checkpoint.chain,
                checkpoint.key,
            )
        if moved is None:
            raise CheckpointMoved(f"the checkpoint is no longer at {expected}.")

    async def account(self, account_id: AccountId) -> tuple[AccountView | None, Position]:
        async with self._pool.connection() as connection:
            position, *row = await connection.fetchrow(READ_ACCOUNT, account_id)  # type: ignore[misc]
        return (None if row[0] is None else AccountView(*row)), Position(position)

    async def close(self) -> None:
        await self._pool.close()
