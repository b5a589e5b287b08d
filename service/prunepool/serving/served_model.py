"""What is served and how, as plain values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from prunepool.core.backend import Backend
from prunepool.core.resilience import Resilience
from prunepool.core.types import Costs, Limits
from prunepool.imaging import ImageLimits, Preprocess
from prunepool.serving.types import ModelInfo


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as the engine needs it, without a tensor in sight.

    Attributes:
        name: what callers call it.
        info: what they may know of it; asked for with every image, so it must be quick. `ready` is the
            engine's to say.
        preprocess: how its crop is made of a photo.
        costs: what a ratio costs.
        applied: the share of patch tokens that a ratio really removes, never more than the ratio.
        make_backend: loads it on its device; called in the thread that will own it, again for each restart.
        version: what differs between two models of one name, if they differ.
    """

    name: str
    info: Callable[[], ModelInfo]
    preprocess: Preprocess
    costs: Costs
    applied: Callable[[float], float]
    make_backend: Callable[[], Backend]
    version: object = None


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How the engine serves.

    Attributes:
        default_ratio: of a caller who names none.
        max_ratio: `auto` never goes beyond; None leaves it to the model.
        decode_threads: images decoded at the same time; None: as many as suit the cores.
        image_limits: which images are decoded at all.
        limits: of each model's queue and batches.
        resilience: how long to bear with a failing device.
        escalate_below: images whose best two probabilities are closer than this are run again, unreduced;
            None: none.
        shadow_sample: share of the reduced images that an idle device runs again, unreduced.
        unload_timeout_s: how long accepted images may take to be answered by a model that is unloaded or
            replaced.
    """

    default_ratio: float | Literal["auto"] = "auto"
    max_ratio: float | None = None
    decode_threads: int | None = None
    image_limits: ImageLimits = field(default_factory=ImageLimits)
    limits: Limits = field(default_factory=Limits)
    resilience: Resilience = field(default_factory=Resilience)
    escalate_below: float | None = None
    shadow_sample: float = 0.0
    unload_timeout_s: float = 30.0
