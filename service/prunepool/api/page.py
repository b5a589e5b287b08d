"""The page at `/` and the API documentation at `/docs`; neither loads anything from other servers."""

from __future__ import annotations

import hashlib
from os import PathLike, stat_result
from pathlib import Path

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Scope

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


class PageFiles(StaticFiles):
    """Static files with security headers and an ETag of their content.

    Starlette's ETag is made of time and size, but files from a wheel have the same time in every release.
    """

    def file_response(
        self,
        full_path: str | PathLike[str],
        stat_result: stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """Return the file, or 304 if the client has it."""
        made: Response = FileResponse(full_path, status_code=status_code, stat_result=stat_result)
        digest = hashlib.sha256(Path(full_path).read_bytes()).hexdigest()
        made.headers.update({"ETag": f'"{digest[:32]}"', **_HARDENING, **_REVALIDATE})
        del made.headers["Last-Modified"]
        if self.is_not_modified(made.headers, Headers(scope=scope)):
            made = NotModifiedResponse(made.headers)
        return made


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


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Serve Swagger UI for `/openapi.json`."""
    root = request.scope.get("root_path", "").rstrip("/")
    made = get_swagger_ui_html(
        openapi_url=f"{root}/openapi.json",
        title="prunepool API",
        swagger_js_url=f"{root}/static/docs/swagger-ui-bundle.js",
        swagger_css_url=f"{root}/static/docs/swagger-ui.css",
        swagger_favicon_url=f"{root}/static/icon.svg",
    )
    made.headers.update({**_HARDENING, "Content-Security-Policy": _DOCS_POLICY})
    return made
