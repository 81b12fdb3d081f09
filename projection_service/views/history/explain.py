"""One event, what it made of its accounts, and the ledger's chain up to it."""

import asyncio
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Response
from msgspec import Raw
from pydantic import BaseModel

from projection_service.view import answer, check_position, position_header
from projection_service.view_store import Read, ReadRows, ViewStore, one_row
from projection_service.views.accounts.fold import AccountView
from projection_service.views.accounts.queries import AccountAnswer, told
from projection_service.views.history.fold import encode_row
from projection_service.views.history.tables import EVENT, last_entry, read_stream, state_of
from shared.chain import CHAIN_START, extend
from shared.errors import NotFound
from shared.events import INT64_MAX, AccountId, Position
from shared.platform.api import IN_DIGITS, route

PIECE_EVENTS_MAX = 100
"""Gone through together on the way to a chain; then others have their turn."""

READ_EVENT = Read.in_both(f"""
    SELECT checkpoint.position, source, {", ".join(f"event.{name}" for name in EVENT)}, name, asset,
        {state_of("event")}, {state_of("before")}
    FROM checkpoint
    LEFT JOIN history AS event ON event.entry IN ($1, $2)
    LEFT JOIN history AS before ON before.account_id = event.account_id AND before.version = event.version - 1
    LEFT JOIN history_accounts AS account ON account.account_id = event.account_id
    ORDER BY event.entry
""")
READ_CHAIN = Read.in_both("""
    SELECT position, chain FROM history_chain WHERE position <= $1 ORDER BY position DESC LIMIT 1
""")

_encode = msgspec.json.Encoder().encode


class ChangedAccount(BaseModel):
    """An account in whose stream the event is, before and after it; null while it is not there."""

    account_id: str
    before: AccountAnswer | None
    after: AccountAnswer | None


class EventAnswer(BaseModel):
    """Documentation of an event: the CloudEvent as it is in the log; the ledger's chain there, in hexadecimal."""

    event: dict[str, Any]
    chain: str
    accounts: list[ChangedAccount]


def add_explanation(queries: APIRouter, store: ViewStore) -> None:
    @route(
        queries,
        "/events/{position}",
        "GET",
        summary="One event, and its accounts before and after it",
        response_model=EventAnswer,
    )
    async def event(
        position: Annotated[int, IN_DIGITS, Path(ge=1, le=INT64_MAX, description="In the log.")],
    ) -> Response:
        at = Position(position)
        rows = await store.read(READ_EVENT, last_entry(at) - 1, last_entry(at))
        reached, source, *row = one_row(rows)
        if row[0] is None:
            raise NotFound(f"there is no event {at} at position {reached}.", position_header(reached))
        encoded = encode_row(row[: len(EVENT)], source)
        explained = {
            "event": Raw(encoded),
            "chain": (await read_chain(store.read, at)).hex(),
            "accounts": [_explained(row[2 + EVENT.index("account_id")], *row[2 + len(EVENT) :]) for row in rows],
        }
        return answer(_encode(explained), Position(reached))


def _explained(account_id: str, name: str, asset: str, *states: Any) -> dict[str, object]:
    half = len(states) // 2
    after, before = (
        None if state[0] is None else told(AccountView(AccountId(account_id), name, asset, *state))
        for state in (states[:half], states[half:])
    )
    return {"account_id": account_id, "before": before, "after": after}


async def read_chain(read: ReadRows, position: Position) -> bytes:
    """The chain after the event at `position`, which the views have. Raises `ProjectionBehind`."""
    kept = await read(READ_CHAIN, position)
    after, chain = kept[0] if kept else (0, CHAIN_START)
    while after < position:
        count = min(PIECE_EVENTS_MAX, position - after)
        events, _ = await read_stream(read, None, Position(after), count)
        after += count
        # Positions have no holes: or the views were put back in between.
        check_position(events[-1][0] if events else Position(0), after)
        chain = extend(chain, [encoded for _, encoded in events])
        await asyncio.sleep(0)
    return bytes(chain)
