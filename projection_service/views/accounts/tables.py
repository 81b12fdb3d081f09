"""The accounts in SQL, and what a run of events changes there."""

from collections.abc import Sequence

from msgspec.structs import astuple

from projection_service.view import Run
from projection_service.view_store import Change, ImpossibleEvents, Read, ReadRows, TornViews, Write, one_row
from projection_service.views.accounts.fold import AccountView, project_account
from shared.events import INT64_MAX, Accepted, AccountId, Position, RecordedEvent, Version

READ_ACCOUNT = Read.in_both("""
    SELECT position, id, name, asset, balance, held, overdraft_limit, status, version, last_updated
    FROM checkpoint LEFT JOIN accounts ON id = $1
""")
READ_ACCOUNTS = Read(
    sqlite="""
        SELECT id, name, asset, balance, held, overdraft_limit, status, version, last_updated
        FROM accounts WHERE id IN (SELECT value FROM json_each(?1))
    """,
    postgres="""
        SELECT id, name, asset, balance, held, overdraft_limit, status, version, last_updated
        FROM accounts WHERE id = ANY($1)
    """,
)
# Name and asset are for ever.
PUT_ACCOUNTS = Write(
    "id text, name text, asset text, balance bigint, held bigint, overdraft_limit bigint, status text, version bigint, "
    "last_updated text",
    """
    INSERT INTO accounts (id, name, asset, balance, held, overdraft_limit, status, version, last_updated)
    SELECT * FROM changed WHERE true
    ON CONFLICT (id) DO UPDATE SET
        balance = excluded.balance, held = excluded.held, overdraft_limit = excluded.overdraft_limit,
        status = excluded.status, version = excluded.version, last_updated = excluded.last_updated
    """,
)


async def read_account(read: ReadRows, account_id: AccountId) -> tuple[AccountView | None, Position]:
    """The view and the position at which it holds, read at one moment."""
    position, *row = one_row(await read(READ_ACCOUNT, account_id))
    return (None if row[0] is None else AccountView(*row)), Position(position)


async def read_accounts(read: ReadRows, ids: Sequence[AccountId]) -> dict[AccountId, AccountView]:
    """Those of `ids` that exist."""
    return {row[0]: AccountView(*row) for row in await read(READ_ACCOUNTS, ids)}


class StatesAfter(list[AccountView | None]):
    """For each event of a run the account that it is of, as it left it; None where there is none. Then the other one in
    whose stream it is, where there is one."""


async def changes(run: Run) -> list[Change]:
    in_two_streams = [event.counterpart for event in run.events if event.counterpart is not None]
    accounts = await read_accounts(run.read, list({event.account_id for event in run.events}.union(in_two_streams)))
    states = StatesAfter()
    for event in run.events:
        # One by one: to ask every event for its `streams` would take as long as all the rest.
        states.append(_take(accounts, event, event.account_id, event.version))
        if event.counterpart is not None and event.counterpart_version is not None:
            states.append(_take(accounts, event, event.counterpart, event.counterpart_version))
    run.share(states)
    for account in accounts.values():
        if not 0 <= account.held <= account.balance + account.overdraft_limit or account.balance > INT64_MAX:
            raise ImpossibleEvents("a balance would be below the overdraft limit and what is held, or over 64 bits")
    return [Change(PUT_ACCOUNTS, [astuple(account) for account in accounts.values()])]


def _take(
    accounts: dict[AccountId, AccountView], event: RecordedEvent, account_id: AccountId, version: Version
) -> AccountView | None:
    """The account after it. Raises `TornViews` when it is not where the event before this one has left it."""
    before = accounts.get(account_id)
    after = project_account(before, event, account_id, version)
    if before is not None and before.version != version - 1:
        raise TornViews(_torn(account_id, before.version, event.position, version))
    if after is not None:
        accounts[account_id] = after
    elif isinstance(event.event, Accepted):
        raise TornViews(_torn(account_id, 0, event.position, version))
    return after


def _torn(account_id: AccountId, has: int, position: Position, version: Version) -> str:
    return (
        f"the view has {account_id!a} at version {has}, and position {position} is its version {version}: what is in "
        "these tables was copied from more than one moment (a file without its -wal, or with another's). Stop this "
        "service and put a whole copy in their place, or set PROJECTION_NAME to a new name to build new views."
    )
