"""The projection service's HTTP face: queries of the views."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, Request, Response, params
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry

from projection_service.dashboard import install_dashboard
from projection_service.live import Tail, add_stream
from projection_service.pipeline import Pipeline, add_pipeline
from projection_service.projection import Projection
from projection_service.subscription import Subscription
from projection_service.view import (
    ASKED,
    NO_PAST,
    POSITION,
    Asked,
    MinPosition,
    Past,
    Reach,
    View,
    WaitSeconds,
    check_position,
)
from projection_service.view_store import ViewStore
from projection_service.views import history
from shared.errors import NotFound
from shared.events import Position
from shared.platform.api import check_parameters
from shared.platform.caching import ASK_AGAIN, is_named
from shared.platform.docs import install_docs
from shared.platform.problems import install_problem_handlers, problem_responses
from shared.platform.telemetry import install_operator_routes
from shared.platform.watermark import Peer, Watermark

NOT_MODIFIED = {"description": "What `If-None-Match` names is what there is."}
NOT_MODIFIED_HEADERS = ("ETag", "Cache-Control", "Vary", POSITION)
IfNoneMatch = Annotated[str | None, Header(description="The `ETag` of an answer that the client has.")]


def reacher(watermark: Watermark) -> Reach:
    async def reach(asked: Asked, peer: Peer) -> None:
        await watermark.reach(Position(asked.min_position), asked.wait, peer)
        check_position(watermark.position, asked.min_position)

    return reach


class _QueryRoute(APIRoute):
    """Answers nothing from before the position that was asked for, and never the present for the past."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        self.known = {
            one.alias: one.field_info.annotation
            for one in get_flat_params(self.dependant)
            if not isinstance(one.field_info, params.Path | params.Header)
        }

        async def checked(request: Request) -> Response:
            try:
                response = await handle(request)
            except NotFound as error:
                if position := error.headers.get(POSITION):
                    check_position(int(position), request.scope.get(ASKED, 0))
                raise
            check_position(int(response.headers[POSITION]), request.scope.get(ASKED, 0))
            return _cached(response, request)

        return checked


def _cached(response: Response, request: Request) -> Response:
    """Says what may be kept of it; nothing but that when the client has it already."""
    response.headers.setdefault("Cache-Control", ASK_AGAIN.decode())
    etag, known = response.headers.get("ETag"), ", ".join(request.headers.getlist("If-None-Match"))
    if etag is None or not is_named(etag.encode(), known.encode("latin-1")):
        return response
    kept = {name: response.headers[name] for name in NOT_MODIFIED_HEADERS if name in response.headers}
    return Response(status_code=304, headers=kept)


def create_api(
    store: ViewStore,
    views: Mapping[str, View],
    projection: Projection,
    reach: Reach,
    past: Past,
    streams: Watermark,
    tail: Tail,
    subscription: Subscription,
    pipeline: Pipeline,
    registry: CollectorRegistry,
) -> FastAPI:
    """Has the queries of all `views`, and answers those that `projection` keeps."""
    app = FastAPI(
        title="Counting House: projection service",
        summary="Answers queries from views of the event log.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    install_problem_handlers(app)

    async def wait_for(
        request: Request, min_position: MinPosition = 0, wait: WaitSeconds = 5, if_none_match: IfNoneMatch = None
    ) -> None:
        request.scope[ASKED] = min_position
        await reach(Asked(min_position=min_position, wait=wait), Peer.of(request.scope))

    for view in views.values():
        kept = [] if view in projection.views else [Depends(_refuse(view, projection.views))]
        queries = APIRouter(
            tags=["queries"],
            route_class=_QueryRoute,
            dependencies=[*kept, Depends(_check_parameters), Depends(wait_for)],
            responses={304: NOT_MODIFIED, **problem_responses(404, 422, 503)},
        )
        view.add_queries(queries, store, past)
        if view is history.VIEW:
            add_stream(queries, store, streams, tail)
        app.include_router(queries)

    @app.get(
        "/readyz",
        tags=["operations"],
        summary="Have the views caught up with the log, and can they be asked?",
        responses=problem_responses(503),
    )
    async def readyz() -> dict[str, str | int]:
        said = subscription.check_ready()
        await projection.check_store()
        return {
            "status": "ready",
            "subscription": said,
            "position": projection.position,
        }

    add_pipeline(app, pipeline)
    install_operator_routes(app, registry)
    install_docs(app)
    install_dashboard(app)
    return app


def _check_parameters(request: Request) -> None:
    """Raises `InvalidRequest`."""
    check_parameters(request.query_params.multi_items(), request.scope["route"].known, NO_PAST)


def _refuse(view: View, kept: Sequence[View]) -> Callable[[], None]:
    def refuse() -> None:
        names = ",".join(view.name for view in kept)
        raise NotFound(f"this projection does not keep the view {view.name}: its PROJECTION_VIEWS is {names}.")

    return refuse
