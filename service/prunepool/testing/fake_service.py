"""A service that answers at once, under the HTTP layer or under your own code."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import math
from collections.abc import Sequence

import numpy as np

from prunepool.core.logits import softmax
from prunepool.core.model_info import ModelInfo
from prunepool.errors import (
    Draining,
    EngineUnavailable,
    ImageUndecodable,
    ModelNotFound,
    PrunepoolError,
)
from prunepool.serving.options import InferenceOptions, ResolvedOptions, resolve
from prunepool.serving.tensors import checked
from prunepool.serving.types import Classification, Image, Inference, Prediction, Readiness, Reduction, Timing
from prunepool.testing.fake_models import PATCHES, fake_gmacs, fake_model, fake_token_map


class FakeService:
    """A `Service` that answers at once, the same answer for the same image.

    Bytes that begin with `bad` are not an image; options and tensors are validated as the real engine does.

    Args:
        models: what it serves, the default first; one `fake_model()` unless said.
        error: raised for every image while it is set; it can be changed at any time.
        ready: whether it says that it can serve, and does.

    Attributes:
        calls: every image, in order, with its options.
        closed: whether `close` was called.
    """

    def __init__(
        self,
        models: Sequence[ModelInfo] | None = None,
        *,
        error: PrunepoolError | None = None,
        ready: bool = True,
    ) -> None:
        self._models = {info.name: info for info in models or (fake_model(),)}
        self.error = error
        self.ready = ready
        self.draining = False
        self.closed = False
        self.calls: list[tuple[Image, InferenceOptions]] = []
        self._batches = itertools.count()

    @property
    def default_model(self) -> str:
        """Name of the first model."""
        return next(iter(self._models))

    def models(self) -> tuple[ModelInfo, ...]:
        """All models."""
        return tuple(self._models.values())

    def model(self, name: str) -> ModelInfo:
        """One model, or `ModelNotFound`."""
        if name not in self._models:
            raise ModelNotFound(f"no model named {name!r}; there are: {', '.join(self._models)}")
        return self._models[name]

    def readiness(self) -> Readiness:
        """As told."""
        if self.draining:
            return Readiness(False, ("draining",))
        return Readiness(True) if self.ready else Readiness(False, ("engine",))

    async def classify(self, image: bytes, options: InferenceOptions) -> Classification:
        """An answer made from the bytes, or the error that the test set."""
        wanted, answer = await self._answer(image, options)
        scores = softmax(answer.logits)
        likeliest = np.argsort(-scores, kind="stable")[: wanted.top_k]
        labels = answer.labels
        return Classification(
            model=answer.model,
            predictions=tuple(Prediction(int(i), labels[i], float(scores[i])) for i in likeliest),
            reduction=answer.reduction,
            timing_ms=answer.timing_ms,
            batch=answer.batch,
            batch_size=answer.batch_size,
            token_map=answer.token_map,
        )

    async def infer(self, image: Image, options: InferenceOptions) -> Inference:
        """Logits made from the image, or the error that the test set."""
        return (await self._answer(image, options))[1]

    async def _answer(self, image: Image, options: InferenceOptions) -> tuple[ResolvedOptions, Inference]:
        self.calls.append((image, options))
        await asyncio.sleep(0)  # as the real one, it lets others run
        if self.error is not None:
            raise self.error
        if self.draining:
            raise Draining("the server is stopping", retry_after=1.0)
        if not self.ready:
            raise EngineUnavailable("the engine is not ready", retry_after=1.0)
        info = self.model(options.model or self.default_model)
        wanted = resolve(options, info)
        seed = hashlib.sha256(_content(image, info.input_size)).digest()
        return wanted, _inference(seed, next(self._batches), info, options, wanted)

    async def start(self) -> None:
        """Become ready."""
        self.ready = True

    def begin_drain(self) -> None:
        """Refuse what comes from now on."""
        self.draining = True

    async def close(self, timeout_s: float) -> bool:
        """Nothing is ever left unanswered."""
        self.begin_drain()
        self.closed = True
        return True


def _content(image: Image, size: int) -> bytes:
    """What the answer is made from; refuses what the real engine refuses."""
    if isinstance(image, bytes):
        if image.startswith(b"bad"):
            raise ImageUndecodable(f"{len(image)} bytes are not an image that can be decoded")
        return image
    return checked(image, size).tobytes()


def _inference(
    seed: bytes, batch: int, info: ModelInfo, options: InferenceOptions, wanted: ResolvedOptions
) -> Inference:
    classes = len(info.labels)
    logits = np.array([seed[i % len(seed)] / 64 - i / classes for i in range(classes)], np.float32)
    requested = wanted.requested
    default = min(info.default_reduction_ratio, wanted.ratio_spec.maximum)
    ratio = default if requested == "auto" else requested
    kept = PATCHES - math.floor(ratio * PATCHES)
    return Inference(
        model=info.name,
        logits=logits,
        reduction=Reduction(
            requested=requested,
            applied=min(ratio, 1 - kept / PATCHES),
            reason="auto:default" if requested == "auto" else wanted.reason,
            tokens=(1 + PATCHES, 1 + kept),
            gmacs=info.gmacs * fake_gmacs(ratio),
            macs_saved=1 - fake_gmacs(ratio),
        ),
        timing_ms=Timing(decode=1.0, queue=0.5, inference=2.0, total=3.5),
        batch=batch,
        batch_size=1,
        token_map=fake_token_map(kept) if options.explain else None,
        labels=info.labels,
    )
