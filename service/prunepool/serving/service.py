"""The façade: resolves a caller's options, decodes, submits the image to a core, counts, and builds the answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

from prunepool.core.in_flight import InFlight
from prunepool.core.model_info import ModelInfo
from prunepool.core.registry import not_served
from prunepool.core.types import Request, Result
from prunepool.errors import (
    Draining,
    EngineUnavailable,
    ModelHasNoClasses,
    ModelNotFound,
    ModelReplaced,
    PrunepoolError,
)
from prunepool.imaging import ImageLimits, decode
from prunepool.metrics import Metrics
from prunepool.serving.answer import classification, inference
from prunepool.serving.decode_pool import Decode, DecodePool, decode_threads
from prunepool.serving.options import InferenceOptions, ResolvedOptions, resolve
from prunepool.serving.types import Classification, Image, Inference, Readiness, Timing
from prunepool.transport.client import CoreClient, ModelOffer

#: Attempts per request before giving up because its model keeps being replaced.
_MAX_PREPARE_ATTEMPTS = 5
#: An operator has to mend a model that could not be loaded.
_RETRY_AFTER_FAILURE_S = 60.0


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """What the façade decides by itself.

    Attributes:
        default_ratio: of a caller who names none.
        max_ratio: upper bound of `auto`; None: the model's own limit.
        decode_threads: images decoded at the same time; None: as many as suit the cores.
        image_limits: which images are decoded at all.
    """

    default_ratio: float | Literal["auto"] = "auto"
    max_ratio: float | None = None
    decode_threads: int | None = None
    image_limits: ImageLimits = field(default_factory=ImageLimits)


@dataclass(slots=True)
class _Progress:
    """How far an image came."""

    request: Request | None = None
    answered: bool = False

    @property
    def reached_device(self) -> bool:
        return self.answered or (self.request is not None and self.request.attempts > 0)


class InferenceService:
    """What the routes call, over any transport.

    Args:
        client: the transport to the cores.
        config: of the service.
        metrics: the service's series; each image is counted here, once.
        decode: makes a model's crop of an encoded image; called in a thread of the pool.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        client: CoreClient,
        config: ServiceConfig,
        metrics: Metrics,
        *,
        decode: Decode = decode,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._config = config
        self._metrics = metrics
        self._clock = clock
        self._in_flight = InFlight()
        self._draining = False
        self._decoders = DecodePool(decode_threads(config.decode_threads), config.image_limits, clock, decode)

    @property
    def default_model(self) -> str:
        """Name of the model that answers when a request names none."""
        return self._client.default_model

    def models(self) -> tuple[ModelInfo, ...]:
        """All served models."""
        return tuple(self._info(offer) for offer in self._client.offers().values())

    def model(self, name: str) -> ModelInfo:
        """One served model.

        Raises:
            ModelNotFound: none of that name is served.
            EngineUnavailable: it is to be served, but could not be loaded.
        """
        return self._info(self._offer(name))

    def readiness(self) -> Readiness:
        """Whether every served model can be asked now, and one answers requests that name none."""
        missing = [load.missing for load in self._client.loads().values() if load.missing]
        if self._draining and not missing:
            missing = ["draining"]
        failures = self._client.failures()
        ready = not missing and self.default_model in self._client.offers()
        failed = (f"{name}: could not be loaded: {why}" for name, why in failures.items())
        return Readiness(ready, (*missing, *failed), failures)

    async def start(self) -> None:
        """Connect to the cores; returns when one can be asked.

        Raises:
            Exception: whatever kept it from getting ready.
        """
        try:
            await self._client.start()
        except BaseException:
            self._decoders.close()
            raise

    def begin_drain(self) -> None:
        """Refuse new requests; those that were accepted are still answered."""
        self._draining = True
        self._client.begin_drain()

    async def close(self, timeout_s: float) -> bool:
        """Answer what was accepted within `timeout_s`, then stop; whether all of it was answered. Idempotent."""
        self.begin_drain()
        end = self._clock() + timeout_s
        answered = await self._in_flight.wait_empty(timeout_s)
        stopped = await self._client.close(max(0.0, end - self._clock()))
        self._decoders.close()
        return answered and stopped

    async def classify(self, image: bytes, options: InferenceOptions) -> Classification:
        """Classify one encoded image.

        Raises:
            PrunepoolError: why it cannot be.
            asyncio.CancelledError: the caller went away; its place in the queue is given up.
        """
        wanted, answer = await self._answer(image, options)
        return classification(answer, wanted.top_k)

    async def infer(self, image: Image, options: InferenceOptions) -> Inference:
        """The logits of one image, encoded or normalised.

        Raises:
            PrunepoolError: why there are none.
            asyncio.CancelledError: the caller went away; its place in the queue is given up.
        """
        return (await self._answer(image, options))[1]

    async def _answer(self, image: Image, options: InferenceOptions) -> tuple[ResolvedOptions, Inference]:
        arrival = self._clock()
        with self._counted(options.model or self.default_model) as progress:
            if self._draining:
                raise Draining("the server is stopping and takes no more requests", retry_after=1.0)
            return await self._answer_accepted(image, options, arrival, progress)

    async def _answer_accepted(
        self, image: Image, options: InferenceOptions, arrival: float, progress: _Progress
    ) -> tuple[ResolvedOptions, Inference]:
        """Answer one image, however often its model is replaced meanwhile."""
        with self._in_flight.hold():
            for _ in range(_MAX_PREPARE_ATTEMPTS):
                name = options.model or self.default_model
                offer = self._offer(name)
                try:
                    return await self._answer_by(offer, image, options, arrival, progress)
                except ModelReplaced:
                    # Resolve again: labels, crop and limits must come from the generation that computes.
                    await asyncio.sleep(0)
                except ModelNotFound:
                    if options.model or name == self.default_model:
                        raise
                    # The default changed while this request was prepared: retry with the new one.
            detail = f"{name} was replaced {_MAX_PREPARE_ATTEMPTS} times while this request was prepared"
            raise EngineUnavailable(detail, retry_after=1.0)

    async def _answer_by(
        self, offer: ModelOffer, image: Image, options: InferenceOptions, arrival: float, progress: _Progress
    ) -> tuple[ResolvedOptions, Inference]:
        config, name = self._config, offer.info.name
        if not offer.info.labels:
            raise ModelHasNoClasses.of(name)
        wanted = resolve(options, offer.info, default_ratio=config.default_ratio, max_ratio=config.max_ratio)
        deadline = None if wanted.deadline_s is None else arrival + wanted.deadline_s
        in_flight = self._in_flight.count
        with self._client.reserve(
            name, offer.generation, wanted.ratio_spec, deadline, in_flight
        ) as reservation:
            pixels = await self._decoders.pixels(image, offer.preprocess, arrival, deadline)
            decode_s = self._clock() - arrival
            progress.request = Request(pixels, wanted.ratio_spec, arrival, deadline, options.explain)
            result = await reservation.submit(progress.request)
        progress.answered = True
        if result.generation != offer.generation:  # whatever transport let it through
            raise ModelReplaced(f"{name} was replaced while it computed this answer", retry_after=0.1)
        timing = self._timing(name, decode_s, result, self._clock() - arrival)
        return wanted, inference(offer.info, wanted, result, timing)

    def _offer(self, name: str) -> ModelOffer:
        offers = self._client.offers()
        if name not in offers:
            if name in self._client.failures():
                detail = f"{name} could not be loaded; the log and /readyz say why"
                raise EngineUnavailable(detail, retry_after=_RETRY_AFTER_FAILURE_S)
            raise not_served(name, offers)
        return offers[name]

    def _info(self, offer: ModelOffer) -> ModelInfo:
        return replace(
            offer.info,
            ready=self._client.loads()[offer.info.name].missing is None,
            requested_by_default=self._config.default_ratio,
        )

    def _timing(self, name: str, decode_s: float, result: Result, total_s: float) -> Timing:
        # queue_s counts from the arrival, which precedes decoding.
        stages = {
            "decode": decode_s,
            "queue": max(0.0, result.queue_s - decode_s),
            "inference": result.inference_s,
            "total": total_s,
        }
        for stage, seconds in stages.items():
            self._metrics.request_duration.labels(name, stage).observe(seconds)
        return Timing(**{stage: seconds * 1000 for stage, seconds in stages.items()})

    @contextmanager
    def _counted(self, name: str) -> Iterator[_Progress]:
        """Count an image once, however it ends."""
        label = name if name in self._client.offers() else "unknown"
        progress = _Progress()
        outcome = PrunepoolError.code
        try:
            yield progress
            outcome = "ok"
        except PrunepoolError as error:
            outcome = error.code
            if not progress.reached_device:
                self._metrics.rejected.labels(label, outcome).inc()
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self._metrics.requests.labels(label, outcome).inc()
