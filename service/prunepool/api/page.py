"""The page at `/` and the API documentation at `/docs`; neither loads anything from other servers."""

from __future__ import annotations

import hashlib
import time
from os import PathLike, stat_result
from pathlib import Path
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Receive, Scope, Send

from prunepool.api.routes import Router

router = Router(include_in_schema=False)

_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
# FastAPI's page starts Swagger UI from an inline script.
_DOCS_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HARDENING = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
#: The names of the files hold no version, so a browser revalidates each time, and mostly gets 304.
_REVALIDATE = {"Cache-Control": "no-cache"}
#: A file that was changed less than this many seconds ago may change again without a later time of change.
_SETTLED_S = 2.0


class WholeFile(FileResponse):
    """A file that is sent whole whatever part of it is asked for, as HTTP allows.

    Starlette's answers to a Range that it cannot read are not ours, and it fails at an If-Range where there is no
    Last-Modified.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        headers = [(name, value) for name, value in scope["headers"] if name not in (b"range", b"if-range")]
        await super().__call__({**scope, "headers": headers}, receive, send)


class PageFiles(StaticFiles):
    """Static files with security headers and an ETag of their content.

    Starlette's ETag is made of time and size, but files from a wheel have the same time in every release.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._digests: dict[str, tuple[tuple[int, int, int], str]] = {}

    def file_response(
        self,
        full_path: str | PathLike[str],
        stat_result: stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """Return the file, or 304 if the client has it."""
        made: Response = WholeFile(full_path, status_code=status_code, stat_result=stat_result)
        tag = f'"{self._digest(str(full_path), stat_result)[:32]}"'
        made.headers.update({"ETag": tag, **_HARDENING, **_REVALIDATE})
        del made.headers["Last-Modified"], made.headers["Accept-Ranges"]
        if self.is_not_modified(made.headers, Headers(scope=scope)):
            made = NotModifiedResponse(made.headers)
        return made

    def _digest(self, path: str, found: stat_result) -> str:
        """Return the sha256 of a file, read again only if it has changed: 1.5 MB take the event loop a while."""
        state = (found.st_ino, found.st_size, found.st_ctime_ns)
        known = self._digests.get(path)
        if known is not None and known[0] == state:
            return known[1]
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        if time.time() - found.st_ctime > _SETTLED_S:
            self._digests[path] = (state, digest)
        return digest


_page_files = PageFiles(packages=[("prunepool.api", "static")])


def mount_static(app: FastAPI) -> None:
    """Serve the files of the page and of Swagger UI."""
    app.mount("/static/docs", PageFiles(packages=[("fastapi_offline", "static")]), name="docs-static")
    app.mount("/static", _page_files, name="static")


@router.get("/")
async def page(request: Request) -> Response:
    """Serve the page: choose a photo and a ratio, see the predictions."""
    made = await _page_files.get_response("index.html", request.scope)
    made.headers["Content-Security-Policy"] = _PAGE_POLICY
    return made


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    """Serve the description of the API; it is written once, and names the path under which a proxy serves it."""
    document: bytes = request.app.state.openapi_json()
    if root := _root(request):
        document = b'{"servers":' + orjson.dumps([{"url": root}]) + b"," + document[1:]
    return Response(document, media_type="application/json")


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Serve Swagger UI for `/openapi.json`."""
    root = _root(request)
    made = get_swagger_ui_html(
        openapi_url=f"{root}/openapi.json",
        title="prunepool API",
        swagger_js_url=f"{root}/static/docs/swagger-ui-bundle.js",
        swagger_css_url=f"{root}/static/docs/swagger-ui.css",
        swagger_favicon_url=f"{root}/static/icon.svg",
    )
    made.headers.update({**_HARDENING, "Content-Security-Policy": _DOCS_POLICY})
    return made


def _root(request: Request) -> str:
    root: str = request.scope.get("root_path", "")
    return root.rstrip("/")
