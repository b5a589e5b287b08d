"""The synchronous client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self, Unpack

import httpx
import tenacity
from pydantic import SecretStr

from prunepool.client import connection, wire
from prunepool.client.connection import ConnectionSettings
from prunepool.client.retries import DEFAULT_RETRIES, Retries
from prunepool.client.streaming import CONCURRENCY, advancing, in_order_by_threads
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


class Client:
    """A synchronous client with a pool of connections. Threads may share it.

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
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        to = ConnectionSettings(url, api_key, timeout_s, connect_timeout_s)
        settings = to.settings()
        with connection.translated_setup():
            self._http = httpx.Client(transport=transport, **settings)
        self._retrying = tenacity.Retrying(sleep=sleep, **retries.policy())

    def classify(self, image: Image, **options: Unpack[ClassifyOptions]) -> Classification:
        """Classify one encoded image.

        Raises:
            PrunepoolError: the service's error, `ServerUnreachable` or `UnexpectedAnswer`.
            OSError: the image's file cannot be read.
        """
        body = wire.one_image(image)
        return wire.read_classification(
            self._send("POST", "/classify", params=wire.query_of(options), **body)
        )

    def classify_batch(
        self, images: Sequence[Image], **options: Unpack[ClassifyOptions]
    ) -> list[Classification | PrunepoolError]:
        """Classify several images in one request; a failed image is replaced by its error.

        Raises:
            PrunepoolError: the request failed as a whole.
            OSError: a file cannot be read.
        """
        body = wire.several_images(images)
        answer = self._send("POST", "/classify", params=wire.query_of(options), **body)
        return wire.read_results(answer, len(images))

    def classify_many(
        self,
        images: Iterable[Image],
        *,
        concurrency: int = CONCURRENCY,
        progress: bool = False,
        **options: Unpack[ClassifyOptions],
    ) -> Iterator[Classified]:
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
            options = wire.options_of_many(options, self._send("GET", "/models"))

        def one(image: Image) -> Classification | PrunepoolError:
            try:
                return self.classify(image, **options)
            except (PrunepoolError, OSError) as error:
                return connection.image_error(error)

        with advancing(progress, images) as advance:
            for image, result in in_order_by_threads(images, one, concurrency):
                advance()
                yield Classified(image, result)

    def models(self) -> list[Model]:
        """List the served models."""
        return wire.read_models(self._send("GET", "/models"))

    def model(self, name: str) -> ModelDetails:
        """Return a served model in full.

        Raises:
            ModelNotFound: no model of that name is served.
        """
        return wire.read_model(self._send("GET", wire.model_path(name)))

    def readiness(self) -> Readiness:
        """Return whether the service is ready; never retries."""
        return wire.read_readiness(self._request("GET", "/readyz"))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, method: str, path: str, **request: Any) -> Any:
        return self._retrying(lambda: wire.read_response(self._request(method, path, **request)))

    def _request(self, method: str, path: str, **request: Any) -> httpx.Response:
        with connection.translated_errors(self._http.base_url):
            return self._http.request(method, path, **request)
