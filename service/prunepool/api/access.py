"""Authentication by API keys, rate limits in images, and admin rights.

Every path needs a key except those listed here, so a new route is protected by default.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from prunepool.access import Caller, Keyring
from prunepool.api.oip.errors import error_response
from prunepool.api.prefix import route_path
from prunepool.api.problems import error_headers, problem_response
from prunepool.errors import Forbidden, PrunepoolError, Unauthorized
from prunepool.logs import request_fields
from prunepool.settings import Settings

HEADER = "X-API-Key"
#: The page and the documentation hold nothing that is not in the package.
_PUBLIC_PAGES = frozenset({"/", "/docs", "/openapi.json"})
_STATIC_PREFIX = "/static/"
_HEALTH = frozenset({"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})
_METRICS = frozenset({"/metrics"})
_CALLER = "prunepool.caller"
_KEY_HEADERS = frozenset({b"authorization", HEADER.lower().encode("ascii")})


def needs_key(settings: Settings) -> Callable[[str], bool]:
    """Return a function that says whether a path needs an API key."""
    health = frozenset() if settings.protect_health else _HEALTH
    metrics = frozenset() if settings.protect_metrics else _METRICS
    public = _PUBLIC_PAGES | health | metrics
    return lambda path: path not in public and not path.startswith(_STATIC_PREFIX)


class ApiKeyMiddleware:
    """Refuses requests without a valid key, and attaches the caller to the others.

    Args:
        app: the ASGI application behind it.
        keyring: the valid keys.
        needs_key: whether a path needs a key.
    """

    def __init__(self, app: ASGIApp, keyring: Keyring, needs_key: Callable[[str], bool]) -> None:
        self._app = app
        self._keyring = keyring
        self._needs_key = needs_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it before its body is read."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            key = presented_key(Headers(scope=scope))
        except Unauthorized as error:
            key, missing = None, error
        # Nothing behind this sees a key, and so nothing can show it.
        scope["headers"] = [(name, value) for name, value in scope["headers"] if name not in _KEY_HEADERS]
        if not self._needs_key(route_path(scope)):
            await self._app(scope, receive, send)
            return
        fields = request_fields(scope)
        try:
            if key is None:
                raise missing
            caller = self._keyring.identify(key)
            fields["key"] = caller.name
            scope["state"][_CALLER] = caller
            if scope["method"] == "POST":
                caller.check()
        except PrunepoolError as error:
            fields["code"] = error.code
            await _error_response(route_path(scope), error)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def presented_key(headers: Headers) -> SecretStr:
    """Return the key in `Authorization: Bearer …` or `X-API-Key: …`.

    Raises:
        Unauthorized: there is no key, or the two headers hold different ones.
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
    return SecretStr(keys.pop())


def charge(request: Request, images: int) -> None:
    """Charge images to the rate limit of the request's key, before they are classified.

    Args:
        request: a request that passed authentication.
        images: the number of its images.

    Raises:
        RateLimited: the key has too few images left now.
        InvalidParameter: the number exceeds the burst of the key, so waiting would not help.
    """
    caller = _caller(request)
    if caller is None:
        return
    caller.spend(images)


def check_admin(request: Request) -> None:
    """Check that a request may load and unload models.

    With API keys, the key must be an admin's. A browser's request must come from our own page: any other page
    could send it to every server that the browser reaches, and to a server without keys it would succeed.

    Raises:
        Forbidden: the key is not an admin's, or the request comes from another page.
    """
    caller = _caller(request)
    if caller is not None:
        check_admin_key(caller)
    origin = request.headers.get("origin")
    if origin is not None and _host_of(origin) != request.headers.get("host"):
        raise Forbidden(f"requests from pages of {origin[:100]!r} may not load or unload models")


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # half an IPv6 address
        return None


def check_admin_key(caller: Caller) -> None:
    """Check that a key may load and unload models.

    Raises:
        Forbidden: the key is not an admin's.
    """
    if not caller.admin:
        raise Forbidden(f"the key {caller.name!r} may not load or unload models: that needs an admin's key")


def _caller(request: Request) -> Caller | None:
    """Return the owner of the request's key; None if the server has no keys."""
    caller = request.scope.get("state", {}).get(_CALLER)
    assert caller is None or isinstance(caller, Caller)
    return caller


def _error_response(path: str, error: PrunepoolError) -> Response:
    if path == "/v2" or path.startswith("/v2/"):
        response = error_response(error)
        response.headers.update(error_headers(error))
        return response
    return problem_response(error)
