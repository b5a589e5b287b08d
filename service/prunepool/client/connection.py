"""Where a client sends its requests, as whom, and how long it waits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from prunepool.client.types import ServerUnreachable, UnexpectedAnswer
from prunepool.errors import InvalidParameter, ModelNotFound, PrunepoolError, Unauthorized

#: What a header can hold without being taken apart.
_KEY = re.compile(r"[\x21-\x7e]+", re.ASCII)
#: Errors that no other image of a run would be spared.
_OF_ALL = (InvalidParameter, ModelNotFound, Unauthorized, ServerUnreachable, UnexpectedAnswer)


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """The service as httpx shall see it.

    Attributes:
        url: where.
        api_key: of whom, or None.
        timeout_s: longest wait for an answer, and for each piece of one.
        connect_timeout_s: longest wait for a connection.
    """

    url: str
    api_key: str | None
    timeout_s: float
    connect_timeout_s: float

    def settings(self) -> dict[str, Any]:
        """Arguments of httpx's clients.

        Raises:
            InvalidParameter: a URL or a key that cannot be one; the key is not quoted.
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
            # Waiting for a connection of our own is no reason to give up.
            "timeout": httpx.Timeout(self.timeout_s, connect=self.connect_timeout_s, pool=None),
            "limits": httpx.Limits(max_connections=None, max_keepalive_connections=None),
        }


@contextmanager
def translated_errors(url: httpx.URL) -> Iterator[None]:
    """What httpx raises, as an error of ours."""
    try:
        yield
    except httpx.HTTPError as error:
        why = str(error) or type(error).__name__
        raise ServerUnreachable(f"no answer from {str(url).rstrip('/')}: {why}") from error


def affects_every_image(error: PrunepoolError) -> bool:
    """Whether an error that met one image would meet all others of a run."""
    return isinstance(error, _OF_ALL)
