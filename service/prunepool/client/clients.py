"""The two clients; they differ in how they wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from typing import Any, Self, Unpack

import httpx
import tenacity

from prunepool.client import connection, wire
from prunepool.client.connection import ConnectionSettings
from prunepool.client.retries import Retries
from prunepool.client.streaming import advancing, in_order, in_order_by_threads
from prunepool.client.types import (
    Classification,
    Classified,
    ClassifyOptions,
    Image,
    ImageUnreadable,
    Model,
    ModelDetails,
    Readiness,
)
from prunepool.errors import PrunepoolError

_DEFAULT_RETRIES = Retries()
#: Requests under way in `classify_many`: enough to fill batches, far from filling the queue.
CONCURRENCY = 16


class Client:
    """A client for plain code; one pool of connections, safe to share between threads.

    Args:
        url: the service, as in `http://127.0.0.1:8000`.
        api_key: for a service that asks for one; sent to it alone, for no redirect is followed.
        timeout_s: longest wait for an answer.
        connect_timeout_s: longest wait for a connection.
        retries: how patient it is with a service that says "later".
        transport: httpx's, for tests.
        sleep: waits between attempts.

    Raises:
        InvalidParameter: a URL or a key that cannot be one.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        connect_timeout_s: float = 10.0,
        retries: Retries = _DEFAULT_RETRIES,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        to = ConnectionSettings(url, api_key, timeout_s, connect_timeout_s)
        self._http = httpx.Client(transport=transport, **to.settings())
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

    def classify_batch(
        self, images: Sequence[Image], **options: Unpack[ClassifyOptions]
    ) -> list[Classification | PrunepoolError]:
        """Classify several images in one request; in the place of one that failed stands its error.

        Raises:
            PrunepoolError: the request failed as a whole.
            OSError: a file cannot be read.
        """
        body = wire.several_images(images)
        return wire.read_results(self._send("POST", "/classify", params=wire.query_of(options), **body))

    def classify_many(
        self,
        images: Iterable[Image],
        *,
        concurrency: int = CONCURRENCY,
        progress: bool = False,
        **options: Unpack[ClassifyOptions],
    ) -> Iterator[Classified]:
        """Classify any number of images, one a request and a few at a time; results keep their order.

        Args:
            images: taken as they are needed, and read when their turn comes, so that there may be more than
                fit into memory.
            concurrency: requests under way.
            progress: whether to show a bar, where standard error is a terminal.
            options: of all of them.

        Yields:
            Each image with its answer or its error.

        Raises:
            PrunepoolError: one that is no fault of the image and would meet all the others as well.
        """

        def one(image: Image) -> Classification | PrunepoolError:
            try:
                return self.classify(image, **options)
            except (PrunepoolError, OSError) as error:
                return _image_error(error)

        with advancing(progress, images) as advance:
            for image, result in in_order_by_threads(images, one, concurrency):
                advance()
                yield Classified(image, result)

    def models(self) -> list[Model]:
        """What is served."""
        return wire.read_models(self._send("GET", "/models"))

    def model(self, name: str) -> ModelDetails:
        """One served model in full.

        Raises:
            ModelNotFound: there is none of that name.
        """
        return wire.read_model(self._send("GET", wire.model_path(name)))

    def readiness(self) -> Readiness:
        """Whether the service can be asked now; this is not tried again."""
        return wire.read_readiness(self._request("GET", "/readyz"))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, method: str, path: str, **request: Any) -> Any:
        return self._retrying(lambda: wire.read_answer(self._request(method, path, **request)))

    def _request(self, method: str, path: str, **request: Any) -> httpx.Response:
        with connection.translated_errors(self._http.base_url):
            return self._http.request(method, path, **request)


class AsyncClient:
    """A client for asynchronous code; otherwise as `Client`.

    Args:
        url: the service, as in `http://127.0.0.1:8000`.
        api_key: for a service that asks for one; sent to it alone, for no redirect is followed.
        timeout_s: longest wait for an answer.
        connect_timeout_s: longest wait for a connection.
        retries: how patient it is with a service that says "later".
        transport: httpx's, for tests.
        sleep: waits between attempts.

    Raises:
        InvalidParameter: a URL or a key that cannot be one.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        connect_timeout_s: float = 10.0,
        retries: Retries = _DEFAULT_RETRIES,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        to = ConnectionSettings(url, api_key, timeout_s, connect_timeout_s)
        self._http = httpx.AsyncClient(transport=transport, **to.settings())
        self._retrying = tenacity.AsyncRetrying(sleep=sleep, **retries.policy())

    async def classify(self, image: Image, **options: Unpack[ClassifyOptions]) -> Classification:
        """Classify one encoded image.

        Raises:
            PrunepoolError: the service's error, or `ServerUnreachable`, or `UnexpectedAnswer`.
            OSError: its file cannot be read.
        """
        body = await asyncio.to_thread(wire.one_image, image)
        answer = await self._send("POST", "/classify", params=wire.query_of(options), **body)
        return wire.read_classification(answer)

    async def classify_batch(
        self, images: Sequence[Image], **options: Unpack[ClassifyOptions]
    ) -> list[Classification | PrunepoolError]:
        """Classify several images in one request; in the place of one that failed stands its error.

        Raises:
            PrunepoolError: the request failed as a whole.
            OSError: a file cannot be read.
        """
        body = await asyncio.to_thread(wire.several_images, images)
        return wire.read_results(await self._send("POST", "/classify", params=wire.query_of(options), **body))

    async def classify_many(
        self,
        images: Iterable[Image],
        *,
        concurrency: int = CONCURRENCY,
        progress: bool = False,
        **options: Unpack[ClassifyOptions],
    ) -> AsyncGenerator[Classified, None]:
        """Classify any number of images, one a request and a few at a time; results keep their order.

        Args:
            images: taken as they are needed, and read when their turn comes, so that there may be more than
                fit into memory.
            concurrency: requests under way.
            progress: whether to show a bar, where standard error is a terminal.
            options: of all of them.

        Yields:
            Each image with its answer or its error.

        Raises:
            PrunepoolError: one that is no fault of the image and would meet all the others as well.
        """

        async def one(image: Image) -> Classification | PrunepoolError:
            try:
                return await self.classify(image, **options)
            except (PrunepoolError, OSError) as error:
                return _image_error(error)

        with advancing(progress, images) as advance:
            async with aclosing(in_order(images, one, concurrency)) as results:
                async for image, result in results:
                    advance()
                    yield Classified(image, result)

    async def models(self) -> list[Model]:
        """What is served."""
        return wire.read_models(await self._send("GET", "/models"))

    async def model(self, name: str) -> ModelDetails:
        """One served model in full.

        Raises:
            ModelNotFound: there is none of that name.
        """
        return wire.read_model(await self._send("GET", wire.model_path(name)))

    async def readiness(self) -> Readiness:
        """Whether the service can be asked now; this is not tried again."""
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
            return wire.read_answer(await self._request(method, path, **request))

        return await self._retrying(once)

    async def _request(self, method: str, path: str, **request: Any) -> httpx.Response:
        with connection.translated_errors(self._http.base_url):
            return await self._http.request(method, path, **request)


def _image_error(error: PrunepoolError | OSError) -> PrunepoolError:
    """An error as the result of one image; raised where it is no fault of the image."""
    if isinstance(error, OSError):
        return ImageUnreadable(error.strerror or str(error))
    if connection.affects_every_image(error):
        raise error
    return error
