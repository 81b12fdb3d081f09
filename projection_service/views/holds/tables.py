"""The open holds in SQL, and what a run of events changes there."""

from msgspec.structs import astuple

from projection_service.view import Run
from projection_service.view_store import Change, Read, ReadRows, Write, one_row
from projection_service.views.holds.fold import HoldView, project_hold
from shared.events import HOLD_EVENTS, AccountCreated, AccountId, HoldId, Position

# Limited before it is joined: an account may have as many as it likes.
READ_HOLDS = Read.in_both("""
    SELECT checkpoint.position, account.account_id, page.*
    FROM checkpoint LEFT JOIN holds_accounts AS account ON account.account_id = $1 LEFT JOIN (
        SELECT account_id, hold_id, amount, expires_at, description, placed_at
        FROM holds WHERE account_id = $1 AND hold_id > $2 ORDER BY hold_id LIMIT $3
    ) AS page ON true
    ORDER BY page.hold_id
""")
ADD_ACCOUNTS = Write(
    "account_id text", "INSERT INTO holds_accounts (account_id) SELECT * FROM changed WHERE true ON CONFLICT DO NOTHING"
)
PUT_HOLDS = Write(
    "account_id text, hold_id text, amount bigint, expires_at text, description text, placed_at text",
    """
    INSERT INTO holds (account_id, hold_id, amount, expires_at, description, placed_at)
    SELECT * FROM changed WHERE true
    ON CONFLICT (account_id, hold_id) DO UPDATE SET
        amount = excluded.amount, expires_at = excluded.expires_at, description = excluded.description,
        placed_at = excluded.placed_at
    """,
)
END_HOLDS = Write(
    "account_id text, hold_id text",
    "DELETE FROM holds WHERE (account_id, hold_id) IN (SELECT account_id, hold_id FROM changed)",
)


async def read_holds(
    read: ReadRows, account_id: AccountId, after: HoldId, holds_max: int
) -> tuple[list[HoldView] | None, Position]:
    """The account's holds after the id `after`, in the order of their ids, or None when there is no such account; and
    the position at which that holds, read at one moment."""
    rows = await read(READ_HOLDS, account_id, after, holds_max)
    position, account, first, *_ = one_row(rows)
    if account is None:
        return None, Position(position)
    return [HoldView(*row[2:]) for row in rows if first is not None], Position(position)


async def changes(run: Run) -> list[Change]:
    accounts = [(recorded.account_id,) for recorded in run.events if type(recorded.event) is AccountCreated]
    holds = {
        (recorded.account_id, HoldId(recorded.event.hold_id)): project_hold(recorded)  # type: ignore[union-attr]
        for recorded in run.events
        if type(recorded.event) in HOLD_EVENTS
    }
    return [
        Change(ADD_ACCOUNTS, accounts),
        Change(PUT_HOLDS, [astuple(hold) for hold in holds.values() if hold is not None]),
        Change(END_HOLDS, [key for key, hold in holds.items() if hold is None]),
    ]
