"""Who may ask: an API key for everything but what is said to be open, and its rate in images.

What is not named here needs a key, so a new route is protected unless somebody opens it.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from prunepool.access import Caller, Keyring
from prunepool.api.oip.errors import error_response
from prunepool.api.problems import error_headers, problem_response
from prunepool.errors import Forbidden, PrunepoolError, Unauthorized
from prunepool.logs import request_fields
from prunepool.settings import Settings

HEADER = "X-API-Key"
#: The page and the documentation: files that everybody can download with the package.
_PAGES = frozenset({"/", "/docs", "/openapi.json"})
_FILES = "/static/"
_HEALTH = frozenset({"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})
_METRICS = frozenset({"/metrics"})
_CALLER = "prunepool.caller"


def needs_key(settings: Settings) -> Callable[[str], bool]:
    """Which paths are answered only to who has a key, where keys are asked for at all."""
    health = frozenset() if settings.protect_health else _HEALTH
    metrics = frozenset() if settings.protect_metrics else _METRICS
    open_to_all = _PAGES | health | metrics
    return lambda path: path not in open_to_all and not path.startswith(_FILES)


class Access:
    """Lets through who has a key, and remembers whose it is.

    Args:
        app: what it wraps.
        keyring: the keys.
        needs_key: which paths need a key.
    """

    def __init__(self, app: ASGIApp, keyring: Keyring, needs_key: Callable[[str], bool]) -> None:
        self._app = app
        self._keyring = keyring
        self._needs_key = needs_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it before its body is read."""
        if scope["type"] != "http" or not self._needs_key(_path(scope)):
            await self._app(scope, receive, send)
            return
        fields = request_fields(scope)
        try:
            caller = self._keyring.identify(presented_key(Headers(scope=scope)))
            fields["key"] = caller.name
            scope["state"][_CALLER] = caller
            if scope["method"] == "POST":
                caller.check()
        except PrunepoolError as error:
            fields["code"] = error.code
            await _refusal(_path(scope), error)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def presented_key(headers: Headers) -> str:
    """The key that a request brings, as `Authorization: Bearer …` or as `X-API-Key: …`.

    Raises:
        Unauthorized: none, or not the same in both places.
    """
    keys = {value.strip() for value in headers.getlist(HEADER)}
    for value in headers.getlist("Authorization"):
        scheme, _, rest = value.strip().partition(" ")
        if scheme.lower() == "bearer":
            keys.add(rest.strip())
    keys.discard("")
    if not keys:
        raise Unauthorized(f"an API key is needed: send it as Authorization: Bearer … or as {HEADER}: …")
    if len(keys) > 1:
        raise Unauthorized(f"Authorization and {HEADER} hold different keys; send one")
    return keys.pop()


def charge(request: Request, images: int) -> None:
    """Take images from the rate of the request's key, before they are classified.

    Args:
        request: one that was let through.
        images: how many it brings.

    Raises:
        RateLimited: not yet.
        InvalidParameter: more than the key may ever send at once.
    """
    caller = _caller(request)
    if caller is None:
        return
    caller.spend(images)


def check_admin(request: Request) -> None:
    """Let those pass who may change what is served.

    Where keys are asked for, that is who has one for it. A page in somebody's browser must be our own: it can
    send such requests to every server that the browser reaches, and needs no key where none is asked for.

    Raises:
        Forbidden: not this caller.
    """
    caller = _caller(request)
    if caller is not None:
        check_admin_key(caller)
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise Forbidden(f"pages from {origin[:100]!r} may not load or unload models here")


def check_admin_key(caller: Caller) -> None:
    """Let pass who has a key that may load and unload models.

    Raises:
        Forbidden: it may not.
    """
    if not caller.admin:
        raise Forbidden(f"the key {caller.name!r} may not load or unload models: it is not an admin's")


def _caller(request: Request) -> Caller | None:
    """Whose key a request came with; None where no keys are asked for."""
    caller = request.scope.get("state", {}).get(_CALLER)
    assert caller is None or isinstance(caller, Caller)
    return caller


def _path(scope: Scope) -> str:
    """What the routes see: without the prefix that a proxy has taken away."""
    path: str = scope["path"]
    prefix: str = scope.get("root_path", "")
    return path[len(prefix) :] if path.startswith(f"{prefix}/") else path


def _refusal(path: str, error: PrunepoolError) -> Response:
    if path == "/v2" or path.startswith("/v2/"):
        response = error_response(error)
        response.headers.update(error_headers(error))
        return response
    return problem_response(error)
