"""The reserve of one asset, and those of all."""

import json
from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel

from projection_service.view import AskedPast, Past, Reach, Then, answer, then_of
from projection_service.view_store import ViewStore
from projection_service.views.reserve.fold import ReserveView
from projection_service.views.reserve.tables import read_page, read_reserves
from shared.events import ASSET_PATTERN, ASSET_RULE, USD, Asset
from shared.platform.api import route, waiting
from shared.platform.gate import Get

PAGE_ASSETS_MAX = 1000
EMPTY = ReserveView(0, None)

AssetAsked = Annotated[str, Query(pattern=ASSET_PATTERN, description=ASSET_RULE)]
AfterAsset = Annotated[str, Query(pattern=f"^$|{ASSET_PATTERN}", description="Asset; those after it.")]
Limit = Annotated[int, Query(ge=1, le=PAGE_ASSETS_MAX)]


class OneAsked(AskedPast):
    asset: AssetAsked = USD


class PageAsked(AskedPast):
    after: AfterAsset = ""
    limit: Limit = PAGE_ASSETS_MAX


class ReserveAnswer(BaseModel):
    """Documentation of a reserve: cents, and the time of the last accepted deposit or withdrawal."""

    asset: str
    amount: int
    last_updated: str | None


def add_queries(queries: APIRouter, store: ViewStore, past: Past) -> None:
    @route(queries, "/reserve", "GET", summary="The sum of all balances in an asset", response_model=ReserveAnswer)
    async def reserve(then: Annotated[Then | None, Depends(then_of(past))], asset: AssetAsked = USD) -> Response:
        if then is not None:
            return answer(_encode(await then.reserve(asset)), then.position)
        found = await read_reserves(store.read, [asset])
        return answer(_encode(told(asset, found.by_asset.get(asset, EMPTY))), found.position)

    @route(
        queries, "/reserves", "GET", summary="The reserves of all assets, in order", response_model=list[ReserveAnswer]
    )
    async def reserves(
        then: Annotated[Then | None, Depends(then_of(past))], after: AfterAsset = "", limit: Limit = PAGE_ASSETS_MAX
    ) -> Response:
        if then is not None:
            return answer(_encode(await then.reserves(after, limit)), then.position)
        page, position = await read_page(store.read, after, limit)
        return answer(_encode([told(asset, reserve) for asset, reserve in page]), position)


def endpoints(store: ViewStore, reach: Reach, past: Past) -> Mapping[str, Get]:
    return {"/reserve": waiting(OneAsked, past), "/reserves": waiting(PageAsked, past)}


def told(asset: Asset, reserve: ReserveView) -> dict[str, object]:
    return {"asset": asset, "amount": reserve.amount, "last_updated": reserve.last_updated}


def _encode(told: object) -> bytes:
    # The standard library writes integers of any size; the reserve can be over 64 bits.
    return json.dumps(told).encode()
