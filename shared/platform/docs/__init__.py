"""`/docs`: the interface as a page, with Swagger UI from this package and nothing from elsewhere."""

from pathlib import Path

from fastapi import FastAPI, Response
from fastapi.responses import FileResponse, RedirectResponse

from shared.errors import NotFound

FOLDER = Path(__file__).parent
ASSETS = {
    "page.css": (FOLDER / "page.css", "text/css"),
    "page.js": (FOLDER / "page.js", "text/javascript"),
    "swagger-ui.css": (FOLDER / "swagger-ui" / "swagger-ui.css", "text/css"),
    "swagger-ui-bundle.js": (FOLDER / "swagger-ui" / "swagger-ui-bundle.js", "text/javascript"),
}
# The page may post commands, so it runs no script but these files and is shown in no one's frame.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def install_docs(app: FastAPI) -> None:
    """`/docs` and what it loads. For an `app` made without `docs_url` and `redoc_url`."""

    async def page() -> Response:
        return FileResponse(FOLDER / "page.html", headers=HEADERS, media_type="text/html")

    async def asset(name: str) -> Response:
        if name not in ASSETS:
            raise NotFound(f"/docs has no file {name!r}.")
        path, media_type = ASSETS[name]
        return FileResponse(path, headers=HEADERS, media_type=media_type)

    app.add_api_route("/docs", page, include_in_schema=False)
    app.add_api_route("/docs/", page, include_in_schema=False)
    app.add_api_route("/docs/{name}", asset, include_in_schema=False)


def lead_to_docs(app: FastAPI) -> None:
    """From `/`, where nothing else is there."""

    async def root() -> Response:
        return RedirectResponse("/docs")

    app.add_api_route("/", root, include_in_schema=False)
