"""The connection settings that both clients share, and the errors of connections."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from pydantic import SecretStr

from prunepool.client.types import ImageUnreadable, ServerUnreachable, UnexpectedAnswer
from prunepool.errors import InvalidParameter, ModelNotFound, PrunepoolError, Unauthorized

#: A key that is safe in a header.
_KEY = re.compile(r"[\x21-\x7e]+", re.ASCII)
_MAX_PORT = 65535
#: Errors that every other image would meet too.
_AFFECT_EVERY_IMAGE = (InvalidParameter, ModelNotFound, Unauthorized, ServerUnreachable, UnexpectedAnswer)


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """The settings of a client's connections.

    Attributes:
        url: URL of the service.
        api_key: API key, or None.
        timeout_s: longest wait for a response, or for a piece of it, in seconds.
        connect_timeout_s: longest wait for a connection, in seconds.
    """

    url: str
    api_key: str | SecretStr | None = field(repr=False)
    timeout_s: float
    connect_timeout_s: float

    def settings(self) -> dict[str, Any]:
        """Return them as arguments of httpx's clients.

        Raises:
            InvalidParameter: the URL or the key is invalid; the message does not quote the key.
        """
        shown = re.sub(r"//[^/]*@", "//", self.url)  # without the name and password that it may hold
        if not re.match(r"https?://[^/]", self.url):
            raise InvalidParameter("url", shown, "http://… or https://…")
        try:
            url = httpx.URL(self.url)
            known = bool(url.host)
        except (httpx.InvalidURL, ValueError) as error:  # ValueError: an international name that is none
            raise InvalidParameter("url", shown, f"the address of a server ({error})") from None
        if not known:
            raise InvalidParameter("url", shown, "one with the name of a server")
        if url.port is not None and not 0 < url.port <= _MAX_PORT:
            raise InvalidParameter("url", shown, f"one whose port is from 1 to {_MAX_PORT}")
        key = {} if self.api_key is None else {"auth": _BearerKey(self.api_key)}
        return {
            "base_url": url,
            **key,
            # Waiting for a free connection of the pool does not time out.
            "timeout": httpx.Timeout(self.timeout_s, connect=self.connect_timeout_s, pool=None),
            "limits": httpx.Limits(max_connections=None, max_keepalive_connections=None),
        }


class _BearerKey(httpx.Auth):
    """Sends an API key; it is in the clear only in the request's own header.

    Raises:
        InvalidParameter: the key cannot be in a header; the message does not quote it.
    """

    def __init__(self, key: str | SecretStr) -> None:
        self._key = key if isinstance(key, SecretStr) else SecretStr(key)
        if not _KEY.fullmatch(self._key.get_secret_value()):
            raise InvalidParameter("api_key", "one that is not", "printable ASCII without spaces")

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the header to a request."""
        request.headers["Authorization"] = f"Bearer {self._key.get_secret_value()}"
        yield request


def without_password(url: httpx.URL) -> str:
    """Return a URL as text for a message: without the name and password that it may hold."""
    return str(url.copy_with(userinfo=b"") if url.userinfo else url)


@contextmanager
def translated_setup() -> Iterator[None]:
    """Raise as `ServerUnreachable` what the environment's proxies and certificates make impossible."""
    try:
        yield
    except (ImportError, OSError, ValueError) as error:
        raise ServerUnreachable(
            f"no connection can be made from this environment, with its proxies and certificates: {error}"
        ) from error


@contextmanager
def translated_errors(url: httpx.URL) -> Iterator[None]:
    """Raise httpx's errors as `ServerUnreachable`."""
    try:
        yield
    except httpx.HTTPError as error:
        why = str(error) or type(error).__name__
        raise ServerUnreachable(f"no answer from {without_password(url).rstrip('/')}: {why}") from error


def image_error(error: PrunepoolError | OSError) -> PrunepoolError:
    """Return an error as the result of one image.

    Raises:
        PrunepoolError: the error would affect every other image too.
    """
    if isinstance(error, OSError):
        return ImageUnreadable(error.strerror or str(error))
    if isinstance(error, _AFFECT_EVERY_IMAGE):
        raise error
    return error
