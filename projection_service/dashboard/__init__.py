"""`/`: the bank as a page, of the files in this folder and nothing from elsewhere."""

from pathlib import Path

from fastapi import FastAPI, Request, Response

from shared.errors import NotFound
from shared.platform.caching import ASK_AGAIN, etag_of, is_named

FOLDER = Path(__file__).parent
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
PAGE = "index.html"
# Names and descriptions are anybody's: the page runs no script but these files, makes nothing of text, and is in no
# one's frame.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)


def install_dashboard(app: FastAPI) -> None:
    """The page at `/`, and what it loads below `/dashboard/`."""
    files = {
        file.relative_to(FOLDER).as_posix(): (file.read_bytes(), media_type)
        for file in FOLDER.rglob("*")
        if (media_type := MEDIA_TYPES.get(file.suffix))
    }
    tags = {name: etag_of(content).decode() for name, (content, _) in files.items()}

    def answer(request: Request, name: str) -> Response:
        content, media_type = files[name]
        headers = {
            "Content-Security-Policy": POLICY,
            "Referrer-Policy": "no-referrer",
            # Another version of the service has other files under the same names.
            "Cache-Control": ASK_AGAIN.decode(),
            "ETag": tags[name],
        }
        known = ", ".join(request.headers.getlist("If-None-Match"))
        if is_named(tags[name].encode(), known.encode("latin-1")):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=media_type)

    async def page(request: Request) -> Response:
        return answer(request, PAGE)

    async def file(request: Request, name: str) -> Response:
        if name not in files:
            raise NotFound(f"/dashboard has no file {name!r}.")
        return answer(request, name)

    app.add_api_route("/", page, include_in_schema=False)
    app.add_api_route("/dashboard/{name:path}", file, include_in_schema=False)
