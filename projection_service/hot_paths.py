"""An account's view, when it is asked for plainly. The application answers all other queries."""

import re
from collections.abc import Mapping

import msgspec

from projection_service.projection import Projection
from projection_service.view_store import ViewStore
from shared.events import AccountId, Position, is_account_id
from shared.gate import Answer, Endpoint, Request

_min_position = re.compile(rb"(?:min_position=([0-9]{1,18}))?").fullmatch
_encode = msgspec.json.Encoder().encode


def endpoints(store: ViewStore, projection: Projection) -> Mapping[str, Endpoint]:
    async def account(request: Request) -> Answer | None:
        asked = _min_position(request.query)
        if asked is None:
            return None
        min_position = Position(int(asked[1] or 0))
        if min_position > projection.position or not is_account_id(request.name):
            return None
        view, position = await store.account(AccountId(request.name))
        if view is None:
            return None
        return Answer(200, b"application/json", _encode(view), ((b"ledger-position", b"%d" % position),))

    return {"/account/": Endpoint("GET", account)}
