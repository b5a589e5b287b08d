"""The path under which a proxy serves this server: from the settings, or from a trusted proxy's header."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from starlette.types import ASGIApp, Receive, Scope, Send

from prunepool.settings import PREFIX, Settings

_HEADER = b"x-forwarded-prefix"


class ForwardedPrefix:
    """Sets the `root_path` of each request, for the links of the API documentation.

    It does not matter whether the proxy passes the prefix on: a path has it once behind this.

    Args:
        app: the ASGI application behind it.
        settings: `root_path`, and `trusted_proxies`, whose X-Forwarded-Prefix wins.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._prefix = settings.root_path or ""
        self._trusted = [ip_network(proxy) for proxy in settings.trusted_proxies or ()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; `scope["client"]` must still be the peer of the connection."""
        if scope["type"] == "http":
            prefix = self._prefix
            if self._trusts(scope.get("client")):
                prefix = _forwarded(scope) or prefix
            if prefix:
                scope["root_path"] = prefix
                if not f"{scope['path']}/".startswith(f"{prefix}/"):
                    scope["path"] = prefix + scope["path"]
                    scope["raw_path"] = prefix.encode("ascii") + scope["raw_path"]
        await self._app(scope, receive, send)

    def _trusts(self, client: tuple[str, int] | None) -> bool:
        if client is None or not self._trusted:
            return False
        address = ip_address(client[0])
        return any(address in network for network in self._trusted)


def _forwarded(scope: Scope) -> str | None:
    """Return the prefix in the header; None if there is not exactly one, or it is no plain path."""
    values = [value for name, value in scope["headers"] if name == _HEADER]
    if len(values) != 1:
        return None
    prefix = values[0].decode("latin-1").rstrip("/")
    return prefix if PREFIX.fullmatch(prefix) else None


def route_path(scope: Scope) -> str:
    """Return the path of a request as routes see it, without the prefix."""
    path: str = scope["path"]
    prefix: str = scope.get("root_path", "")
    return path[len(prefix) :] if path.startswith(f"{prefix}/") else path
