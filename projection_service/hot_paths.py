"""Queries before the application has them: here they wait for their position, and one account is answered as well."""

from collections.abc import Mapping

import msgspec

from projection_service.api import Asked
from projection_service.projection import Projection
from projection_service.view_store import ViewStore
from shared.api import read_query, waiting
from shared.events import AccountId, Position, is_account_id
from shared.gate import Answer, Endpoint, Request
from shared.problems import ProjectionBehind
from shared.watermark import Peer

_encode = msgspec.json.Encoder().encode


def endpoints(store: ViewStore, projection: Projection) -> Mapping[str, Endpoint]:
    async def reach(asked: Asked, peer: Peer) -> None:
        if not await projection.watermark.reach(Position(asked.min_position), asked.wait, peer):
            reached = projection.watermark.position
            raise ProjectionBehind(f"the view is at position {reached}, not yet at {asked.min_position}.", reached)

    async def account(request: Request) -> Answer | None:
        if not is_account_id(request.name):
            return None
        if request.query:
            await reach(read_query(request.query, Asked), request.peer)
        view, position = await store.account(AccountId(request.name))
        if view is None:
            return None
        return Answer(200, b"application/json", _encode(view), ((b"ledger-position", b"%d" % position),))

    return {"/account/": Endpoint("GET", account), "/reserve": waiting(Asked, reach)}
