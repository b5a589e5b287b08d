"""A model as a core serves it, without a tensor in sight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prunepool.core.backend import Backend
from prunepool.core.model_info import ModelInfo
from prunepool.core.types import Costs
from prunepool.imaging import Preprocess


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What a core needs to serve a model.

    Attributes:
        name: what callers call it.
        info: what they may know of it; asked for with every image, so it must be quick. `ready` is the
            core's to say.
        preprocess: how its crop is made of a photo.
        costs: what a ratio costs.
        applied: the share of patch tokens that a ratio really removes, never more than the ratio.
        make_backend: makes its backend, weights on the device; called in the thread that will own it, again for
            each restart.
        watch: registers what is called, from any thread, when a backend made now would be faster than before.
        generation: differs between two models of one name, whatever process reads them.
    """

    name: str
    info: Callable[[], ModelInfo]
    preprocess: Preprocess
    costs: Costs
    applied: Callable[[float], float]
    make_backend: Callable[[], Backend]
    generation: str = ""
    watch: Callable[[Callable[[], None]], None] = lambda callback: None
