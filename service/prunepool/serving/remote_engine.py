"""The `Engine` of a front end: decodes here, computes in engine processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from prunepool.core.types import Pixels
from prunepool.errors import (
    Draining,
    Overloaded,
    PrunepoolError,
)
from prunepool.imaging import ImageLimits
from prunepool.metrics import Metrics
from prunepool.serving.answer import classification
from prunepool.serving.decode_pool import Decoders
from prunepool.serving.types import (
    Classification,
    Image,
    Inference,
    ModelInfo,
    Options,
    Readiness,
    ResolvedOptions,
    resolve,
)
from prunepool.transport.messages import Ask, Offer
from prunepool.transport.zmq.shared_memory import Arena

_LEAST_RETRY_S = 0.1


@dataclass(frozen=True, slots=True)
class RemoteConfig:
    """What a front end decides by itself, before an engine is asked.

    Attributes:
        default_ratio: of a caller who names none.
        max_ratio: `auto` never goes beyond; None leaves it to the model.
        decode_threads: images decoded at the same time.
        image_limits: which images are decoded at all.
        max_requests: images that one front end has accepted and not answered.
        max_queue_s: longest predicted time that an image may have before it.
    """

    default_ratio: float | Literal["auto"]
    max_ratio: float | None
    decode_threads: int
    image_limits: ImageLimits
    max_requests: int
    max_queue_s: float


class Engines(Protocol):
    """Where models run, as a front end sees it; :class:`prunepool.transport.zmq.client.Engines` is one.

    Attributes:
        default: name of the model that answers when a request names none.
        offers: what is served, by model.
    """

    default: str
    offers: dict[str, Offer]

    async def start(self) -> None:
        """Connect; returns when it is known what is served."""

    def close(self) -> None:
        """Disconnect."""

    def find(self, model: str) -> Offer:
        """A model that is served, or ModelNotFound."""

    def info(self, model: str) -> ModelInfo:
        """What callers may know of a model, or ModelNotFound."""

    def missing(self, model: str) -> str | None:
        """Why no engine takes images of a model; None if one does."""

    def drain_s(self, model: str) -> float:
        """Predicted seconds until the engine that would be asked has done all it has, or EngineUnavailable."""

    async def ask(
        self, make: Callable[[int], Ask], model: str, pixels: Pixels | None, at_engine: Callable[[bool], None]
    ) -> Inference:
        """The answer of an engine, or what it says instead of one."""


class RemoteEngine:
    """An `Engine` whose models run in other processes.

    What an engine process answers or refuses, it counts; what ends here, is counted here.

    Args:
        engines: the engine processes.
        arena: memory that they can read.
        config: what is decided here.
        metrics: the service's series.
        clock: seconds of the clock that all processes share.
    """

    def __init__(
        self,
        engines: Engines,
        arena: Arena,
        config: RemoteConfig,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engines = engines
        self._arena = arena
        self._config = config
        self._metrics = metrics
        self._clock = clock
        self._decoders = Decoders(config.decode_threads, config.image_limits, clock)
        self._idle = asyncio.Event()
        self._idle.set()
        self._under_way = 0
        self._draining = False

    @property
    def default_model(self) -> str:
        """Name of the model that answers when a request names none."""
        return self._engines.default

    def models(self) -> tuple[ModelInfo, ...]:
        """All models that some engine serves."""
        return tuple(self.model(name) for name in self._engines.offers)

    def model(self, name: str) -> ModelInfo:
        """One served model.

        Raises:
            ModelNotFound: none of that name is served.
        """
        return self._engines.info(name)

    def readiness(self) -> Readiness:
        """Whether every model can be asked of some engine."""
        missing = [why for name in self._engines.offers if (why := self._engines.missing(name))]
        if self._draining:
            missing.append("draining")
        return Readiness(not missing, tuple(missing))

    async def start(self) -> None:
        """Connect; returns when every engine has said how it is."""
        await self._engines.start()

    def begin_drain(self) -> None:
        """Refuse what comes from now on; what was accepted is still answered."""
        self._draining = True

    async def close(self, timeout_s: float) -> bool:
        """Wait for the answers to what was accepted, and disconnect; whether all came."""
        self.begin_drain()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        answered = not self._under_way
        self._engines.close()
        self._decoders.close()
        return answered

    async def classify(self, image: bytes, options: Options) -> Classification:
        """Classify one encoded image.

        Raises:
            PrunepoolError: why it cannot be.
            asyncio.CancelledError: the caller went away; the engine is told.
        """
        offer, wanted, answer = await self._answer(image, options)
        return classification(answer, offer.info.labels, wanted.top_k)

    async def infer(self, image: Image, options: Options) -> Inference:
        """The logits of one image, encoded or normalised.

        Raises:
            PrunepoolError: why there are none.
            asyncio.CancelledError: the caller went away; the engine is told.
        """
        return (await self._answer(image, options))[2]

    async def _answer(self, image: Image, options: Options) -> tuple[Offer, ResolvedOptions, Inference]:
        arrival = self._clock()
        name = self.default_model if options.model is None else options.model
        with self._counted(name) as at_engine, self._place():
            offer = self._engines.find(name)
            config = self._config
            wanted = resolve(
                options, offer.info, default_ratio=config.default_ratio, max_ratio=config.max_ratio
            )
            deadline = None if wanted.deadline_s is None else arrival + wanted.deadline_s
            self._admit(name)
            pixels = await self._decoders.pixels(image, offer.preprocess, arrival, deadline)
            decode_s = self._clock() - arrival
            chosen = replace(options, model=name)
            with self._arena.holding(pixels) as slot:

                def make(number: int) -> Ask:
                    return Ask(number, chosen, arrival, decode_s, pixels.shape, pixels.dtype.name, slot)

                unshared = pixels if slot is None else None
                return offer, wanted, await self._engines.ask(make, name, unshared, at_engine)

    def _admit(self, model: str) -> None:
        """Refuse early what an engine would refuse: before the image is decoded.

        Raises:
            Draining: the server is stopping.
            EngineUnavailable: no engine takes images of this model now.
            Overloaded: there is more to do than the limits allow.
        """
        if self._draining:
            raise Draining("the server is stopping and takes no more requests", retry_after=1.0)
        drain_s = self._engines.drain_s(model)
        if self._under_way > self._config.max_requests or drain_s > self._config.max_queue_s:
            accepted = f"{self._under_way - 1} images are accepted here"
            detail = f"{accepted}, and all that waits for the model takes {drain_s:.2f} s"
            raise Overloaded(detail, retry_after=max(_LEAST_RETRY_S, drain_s))

    @contextmanager
    def _place(self) -> Iterator[None]:
        self._under_way += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    @contextmanager
    def _counted(self, name: str) -> Iterator[Callable[[bool], None]]:
        """Count an image that ends here; not one that ends at an engine, which counts it."""
        label = name if name in self._engines.offers else "unknown"
        with_engine = False

        def at_engine(whether: bool) -> None:
            nonlocal with_engine
            with_engine = whether

        outcome = PrunepoolError.code
        try:
            yield at_engine
            return
        except PrunepoolError as error:
            outcome = error.code
            if not with_engine:
                self._metrics.rejected.labels(label, outcome).inc()
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            if not with_engine:
                self._metrics.requests.labels(label, outcome).inc()
