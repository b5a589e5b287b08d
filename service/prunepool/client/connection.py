"""The connection settings that both clients share, and the errors of connections."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from prunepool.client.types import ImageUnreadable, ServerUnreachable, UnexpectedAnswer
from prunepool.errors import InvalidParameter, ModelNotFound, PrunepoolError, Unauthorized

#: A key that is safe in a header.
_KEY = re.compile(r"[\x21-\x7e]+", re.ASCII)
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
    api_key: str | None
    timeout_s: float
    connect_timeout_s: float

    def settings(self) -> dict[str, Any]:
        """Return them as arguments of httpx's clients.

        Raises:
            InvalidParameter: the URL or the key is invalid; the message does not quote the key.
        """
        if not re.match(r"https?://[^/]", self.url):
            raise InvalidParameter("url", self.url, "http://… or https://…")
        headers = {}
        if self.api_key is not None:
            if not _KEY.fullmatch(self.api_key):
                raise InvalidParameter("api_key", "one that is not", "printable ASCII without spaces")
            headers["Authorization"] = f"Bearer {self.api_key}"
        return {
            "base_url": self.url,
            "headers": headers,
            # Waiting for a free connection of the pool does not time out.
            "timeout": httpx.Timeout(self.timeout_s, connect=self.connect_timeout_s, pool=None),
            "limits": httpx.Limits(max_connections=None, max_keepalive_connections=None),
        }


@contextmanager
def translated_errors(url: httpx.URL) -> Iterator[None]:
    """Raise httpx's errors as `ServerUnreachable`."""
    try:
        yield
    except httpx.HTTPError as error:
        why = str(error) or type(error).__name__
        raise ServerUnreachable(f"no answer from {str(url).rstrip('/')}: {why}") from error


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
