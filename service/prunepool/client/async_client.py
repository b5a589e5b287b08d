"""The asynchronous client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any, Self, Unpack

import httpx
import tenacity
from pydantic import SecretStr

from prunepool.client import connection, wire
from prunepool.client.connection import ConnectionSettings
from prunepool.client.retries import DEFAULT_RETRIES, Retries
from prunepool.client.streaming import CONCURRENCY, advancing, in_order
from prunepool.client.types import (
    Classification,
    Classified,
    ClassifyOptions,
    Image,
    Model,
    ModelDetails,
    Readiness,
)
from prunepool.errors import PrunepoolError


class AsyncClient:
    """An asynchronous client with the methods of `Client`.

    Args:
        url: URL of the service, such as `http://127.0.0.1:8000`.
        api_key: API key. It is sent to this service only, because redirects are not followed.
        timeout_s: longest wait for a response, or for a piece of it, in seconds.
        connect_timeout_s: longest wait for a connection, in seconds.
        retries: when to retry 503 and 429.
        transport: httpx's transport, for tests.
        sleep: called with the seconds to wait before a retry.

    Raises:
        InvalidParameter: the URL or the key is invalid.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | SecretStr | None = None,
        timeout_s: float = 60.0,
        connect_timeout_s: float = 10.0,
        retries: Retries = DEFAULT_RETRIES,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        to = ConnectionSettings(url, api_key, timeout_s, connect_timeout_s)
        settings = to.settings()
        with connection.translated_setup():
            self._http = httpx.AsyncClient(transport=transport, **settings)
        self._retrying = tenacity.AsyncRetrying(sleep=sleep, **retries.policy())

    async def classify(self, image: Image, **options: Unpack[ClassifyOptions]) -> Classification:
        """Classify one encoded image.

        Raises:
            PrunepoolError: the service's error, `ServerUnreachable` or `UnexpectedAnswer`.
            OSError: the image's file cannot be read.
        """
        body = await asyncio.to_thread(wire.one_image, image)
        answer = await self._send("POST", "/classify", params=wire.query_of(options), **body)
        return wire.read_classification(answer)

    async def classify_batch(
        self, images: Sequence[Image], **options: Unpack[ClassifyOptions]
    ) -> list[Classification | PrunepoolError]:
        """Classify several images in one request; a failed image is replaced by its error.

        Raises:
            PrunepoolError: the request failed as a whole.
            OSError: a file cannot be read.
        """
        body = await asyncio.to_thread(wire.several_images, images)
        answer = await self._send("POST", "/classify", params=wire.query_of(options), **body)
        return wire.read_results(answer, len(images))

    async def classify_many(
        self,
        images: Iterable[Image],
        *,
        concurrency: int = CONCURRENCY,
        progress: bool = False,
        **options: Unpack[ClassifyOptions],
    ) -> AsyncGenerator[Classified, None]:
        """Classify any number of images, one per request, a few concurrently; results keep the order.

        Args:
            images: iterated and read as needed, so that they need not fit into memory.
            concurrency: number of concurrent requests.
            progress: whether to show a progress bar if standard error is a terminal.
            options: the options of every request; without a ratio, the model's own is taken, because `auto` would
                reduce under the load of these requests.

        Yields:
            Each image with its classification or its error.

        Raises:
            PrunepoolError: an error that would affect every image.
        """
        if wire.leaves_ratio_open(options):
            options = wire.options_of_many(options, await self._send("GET", "/models"))

        async def one(image: Image) -> Classification | PrunepoolError:
            try:
                return await self.classify(image, **options)
            except (PrunepoolError, OSError) as error:
                return connection.image_error(error)

        with advancing(progress, images) as advance:
            async with aclosing(in_order(images, one, concurrency)) as results:
                async for image, result in results:
                    advance()
                    yield Classified(image, result)

    async def models(self) -> list[Model]:
        """List the served models."""
        return wire.read_models(await self._send("GET", "/models"))

    async def model(self, name: str) -> ModelDetails:
        """Return a served model in full.

        Raises:
            ModelNotFound: no model of that name is served.
        """
        return wire.read_model(await self._send("GET", wire.model_path(name)))

    async def readiness(self) -> Readiness:
        """Return whether the service is ready; never retries."""
        return wire.read_readiness(await self._request("GET", "/readyz"))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _send(self, method: str, path: str, **request: Any) -> Any:
        async def once() -> Any:
            return wire.read_response(await self._request(method, path, **request))

        return await self._retrying(once)

    async def _request(self, method: str, path: str, **request: Any) -> httpx.Response:
        with connection.translated_errors(self._http.base_url):
            return await self._http.request(method, path, **request)
