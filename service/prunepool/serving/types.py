"""The façade's contract with the HTTP layer: images in, logits or a classification out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from prunepool.core.model_info import ModelInfo
from prunepool.core.types import TokenMap
from prunepool.serving.options import InferenceOptions

#: Encoded bytes; or pixels as the model takes them: float32 [3, size, size], cropped and normalised.
Image: TypeAlias = bytes | NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Prediction:
    """One class and its probability."""

    index: int
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Reduction:
    """The reduction that was asked for and the one that was done.

    Attributes:
        requested: the ratio asked for, or `auto`.
        applied: the ratio done: never more than asked, and never more than the share really removed.
        reason: `requested`, `accuracy` (the caller's `max_accuracy_drop` decided), `escalated` (an unsure
            answer was replaced by the unreduced model's), or `auto:…`.
        tokens: token counts, prefix included, before the first and after each reducing block.
        gmacs: billions of multiply-accumulates spent, on both passes if there were two.
        macs_saved: share saved against the dense model.
    """

    requested: float | Literal["auto"]
    applied: float
    reason: str
    tokens: tuple[int, ...]
    gmacs: float
    macs_saved: float


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds per stage."""

    decode: float
    queue: float
    inference: float
    total: float


@dataclass(frozen=True, slots=True)
class Classification:
    """The answer for one image; `batch` is the id of its batch."""

    model: str
    predictions: tuple[Prediction, ...]
    reduction: Reduction
    timing_ms: Timing
    batch: int
    batch_size: int
    token_map: TokenMap | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Inference:
    """The raw output of the model for one image, and how it came about.

    Attributes:
        model: the model's name.
        logits: float32 [classes], all finite.
        reduction: the one that was asked for and the one that was done.
        timing_ms: milliseconds per stage; of a tensor, `decode` is the time that its check took.
        batch: id of its batch, unique in the server; images of one batch share it.
        batch_size: images in that batch.
        token_map: if asked for.
        labels: names of the classes, of the generation of the model that computed this.
        generation: that generation; a model that is replaced has another one.
    """

    model: str
    logits: NDArray[np.float32]
    reduction: Reduction
    timing_ms: Timing
    batch: int
    batch_size: int
    token_map: TokenMap | None = None
    labels: Sequence[str] = field(kw_only=True)
    generation: str = field(default="", kw_only=True)


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether requests can be served, and what is missing.

    Attributes:
        ready: whether every served model can be asked now, the default one included.
        missing: in words; a model that could not be loaded is missing here also where others are ready.
        failures: why models that are to be served are not, by name.
    """

    ready: bool
    missing: tuple[str, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)


class Service(Protocol):
    """What the HTTP layer needs. `InferenceService` is the real one, `testing.FakeService` one for tests."""

    @property
    def default_model(self) -> str:
        """Name of the model that answers when a request names none."""

    def models(self) -> tuple[ModelInfo, ...]:
        """All served models."""

    def model(self, name: str) -> ModelInfo:
        """One served model.

        Raises:
            ModelNotFound: none of that name is served.
        """

    def readiness(self) -> Readiness:
        """Whether requests can be served now."""

    async def classify(self, image: bytes, options: InferenceOptions) -> Classification:
        """Classify one encoded image.

        Raises:
            PrunepoolError: anything of the tree but `ModelError`.
            asyncio.CancelledError: the caller went away; its place in the queue is given up.
        """

    async def infer(self, image: Image, options: InferenceOptions) -> Inference:
        """The logits of one image, encoded or normalised; `top_k` is checked and otherwise left alone.

        Raises:
            InvalidParameter: also for a tensor that is not float32, not of the model's shape, or not finite.
            PrunepoolError: anything of the tree but `ModelError`.
            asyncio.CancelledError: the caller went away; its place in the queue is given up.
        """

    async def start(self) -> None:
        """Load and warm up every model; returns when ready."""

    def begin_drain(self) -> None:
        """Refuse new requests with `Draining`; accepted ones are still answered."""

    async def close(self, timeout_s: float) -> bool:
        """Answer what was accepted within `timeout_s`, then stop; whether all of it was answered.

        Idempotent.
        """


class ModelControl(Protocol):
    """Changes which models are served, under traffic."""

    def loadable(self) -> tuple[str, ...]:
        """Names of the models that could be served."""

    async def load(self, name: str) -> None:
        """Serve a model, or replace it if its files have changed; returns when it answers.

        Raises:
            ModelNotFound: none of that name can be loaded.
            PrunepoolError: it cannot be served; what was served before is still served.
        """

    async def unload(self, name: str) -> None:
        """Serve a model no longer; returns when all that it had accepted is answered.

        Raises:
            ModelNotFound: none of that name is served.
            RequestError: it is the default model.
        """
