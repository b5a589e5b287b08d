"""The page at `/`, and the documentation of the API, both without a request to anywhere else."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.staticfiles import StaticFiles
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

router = APIRouter(include_in_schema=False)

_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# FastAPI's page starts Swagger UI from a script of its own, inside the page.
_DOCS_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def mount_static(app: FastAPI) -> None:
    """Serve the page's files and Swagger UI's."""
    app.mount("/static/docs", StaticFiles(packages=[("fastapi_offline", "static")]), name="docs-static")
    app.mount("/static", StaticFiles(packages=[("prunepool.api", "static")]), name="static")


@router.get("/")
async def page() -> Response:
    """Choose a photo, turn the dial, see the answer."""
    html = files("prunepool.api").joinpath("static", "index.html").read_text(encoding="utf-8")
    return HTMLResponse(html, headers={"Content-Security-Policy": _PAGE_POLICY})


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Swagger UI over `/openapi.json`."""
    root = request.scope.get("root_path", "").rstrip("/")
    made = get_swagger_ui_html(
        openapi_url=f"{root}/openapi.json",
        title="prunepool API",
        swagger_js_url=f"{root}/static/docs/swagger-ui-bundle.js",
        swagger_css_url=f"{root}/static/docs/swagger-ui.css",
        swagger_favicon_url=f"{root}/static/icon.svg",
    )
    made.headers["Content-Security-Policy"] = _DOCS_POLICY
    return made
