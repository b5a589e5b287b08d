"""The two clients; they differ in how they wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self, Unpack

import httpx
import tenacity

from prunepool.client import wire
from prunepool.client.retries import Retries
from prunepool.client.types import Classification, ClassifyOptions, Image, Model, ServerUnreachable
from prunepool.errors import PrunepoolError

_PATIENT = Retries()


class Client:
    """A client for plain code; one pool of connections, safe to share between threads.

    Args:
        url: the service, as in `http://127.0.0.1:8000`.
        timeout_s: longest wait for an answer.
        retries: how patient it is with a service that says "later".
        transport: httpx's, for tests.
        sleep: waits between attempts.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 60.0,
        retries: Retries = _PATIENT,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._http = httpx.Client(base_url=url, timeout=timeout_s, transport=transport)
        self._retrying = tenacity.Retrying(sleep=sleep, **retries.policy())

    def classify(self, image: Image, **options: Unpack[ClassifyOptions]) -> Classification:
        """Classify one encoded image.

        Raises:
            PrunepoolError: the service's error, or `ServerUnreachable`, or `UnexpectedAnswer`.
            OSError: its file cannot be read.
        """
        body = wire.one_image(image)
        return wire.read_classification(
            self._send("POST", "/classify", params=wire.query_of(options), **body)
        )

    def classify_many(
        self, images: Sequence[Image], **options: Unpack[ClassifyOptions]
    ) -> list[Classification | PrunepoolError]:
        """Classify several images in one request; in the place of one that failed stands its error.

        Raises:
            PrunepoolError: the request failed as a whole.
            OSError: a file cannot be read.
        """
        body = wire.several_images(images)
        return wire.read_results(self._send("POST", "/classify", params=wire.query_of(options), **body))

    def models(self) -> list[Model]:
        """What is served."""
        return wire.read_models(self._send("GET", "/models"))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, method: str, path: str, **request: Any) -> Any:
        return self._retrying(self._send_once, method, path, **request)

    def _send_once(self, method: str, path: str, **request: Any) -> Any:
        try:
            response = self._http.request(method, path, **request)
        except httpx.HTTPError as error:
            raise _unreachable(self._http.base_url, error) from error
        return wire.read_answer(response)


class AsyncClient:
    """A client for asynchronous code; otherwise as `Client`.

    Args:
        url: the service, as in `http://127.0.0.1:8000`.
        timeout_s: longest wait for an answer.
        retries: how patient it is with a service that says "later".
        transport: httpx's, for tests.
        sleep: waits between attempts.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 60.0,
        retries: Retries = _PATIENT,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=timeout_s, transport=transport)
        self._retrying = tenacity.AsyncRetrying(sleep=sleep, **retries.policy())

    async def classify(self, image: Image, **options: Unpack[ClassifyOptions]) -> Classification:
        """Classify one encoded image.

        Raises:
            PrunepoolError: the service's error, or `ServerUnreachable`, or `UnexpectedAnswer`.
            OSError: its file cannot be read.
        """
        body = wire.one_image(image)
        answer = await self._send("POST", "/classify", params=wire.query_of(options), **body)
        return wire.read_classification(answer)

    async def classify_many(
        self, images: Sequence[Image], **options: Unpack[ClassifyOptions]
    ) -> list[Classification | PrunepoolError]:
        """Classify several images in one request; in the place of one that failed stands its error.

        Raises:
            PrunepoolError: the request failed as a whole.
            OSError: a file cannot be read.
        """
        body = wire.several_images(images)
        return wire.read_results(await self._send("POST", "/classify", params=wire.query_of(options), **body))

    async def models(self) -> list[Model]:
        """What is served."""
        return wire.read_models(await self._send("GET", "/models"))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _send(self, method: str, path: str, **request: Any) -> Any:
        return await self._retrying(self._send_once, method, path, **request)

    async def _send_once(self, method: str, path: str, **request: Any) -> Any:
        try:
            response = await self._http.request(method, path, **request)
        except httpx.HTTPError as error:
            raise _unreachable(self._http.base_url, error) from error
        return wire.read_answer(response)


def _unreachable(url: httpx.URL, error: httpx.HTTPError) -> ServerUnreachable:
    why = str(error) or type(error).__name__
    return ServerUnreachable(f"no answer from {str(url).rstrip('/')}: {why}")
