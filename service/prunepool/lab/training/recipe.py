"""The settings of a training run, except for the model, the teacher and the images."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from prunepool.errors import InvalidParameter
from prunepool.reduction.methods import METHODS

Optimiser = Literal["muon", "adamw"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings of one run. Everything random follows from the seed and the number of the step.

    Attributes:
        steps: optimiser steps; the learning rate reaches zero at the last.
        batch_size: images per step.
        lr: peak learning rate.
        warmup: steps in which the learning rate rises from zero.
        optimiser: `muon` for the blocks' matrices and AdamW for the rest, or AdamW for all.
        weight_decay: of matrices, as a factor of the learning rate.
        clip: largest norm of the gradient; a longer one is scaled down.
        ema: decay of the moving average of the weights; the average is the result.
        label_share: weight of the label loss if there is also a teacher; the teacher's loss has the rest.
        smoothing: label smoothing.
        feature_weight: weight of the feature loss (hidden states and last features), if the teacher has the
            student's depth and width.
        patches: number of random patches of each image that student and teacher get; None for all. Batches that
            are reduced always have all.
        ratios: reduction ratios, one drawn for each batch; 0 is the dense model.
        method: the reduction method at a ratio above 0.
        threshold: score variance from which an image is pruned, with `ppt`.
        min_area: smallest share of the photo that a random crop shows.
        jitter: largest deviation of brightness and contrast from 1.
        mix: share of the batches whose images are mixed with each other (mixup or CutMix).
        seed: seed of everything random.
    """

    steps: int = 1000
    batch_size: int = 32
    lr: float = 1e-5
    warmup: int = 0
    optimiser: Optimiser = "adamw"
    weight_decay: float = 0.02
    clip: float = 1.0
    ema: float = 0.999
    label_share: float = 0.4
    smoothing: float = 0.1
    feature_weight: float = 1.0
    patches: int | None = None
    ratios: tuple[float, ...] = (0.0,)
    method: str = "ppt"
    threshold: float = 6e-5
    min_area: float = 0.25
    jitter: float = 0.2
    mix: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse invalid settings."""
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not low <= value <= high:
                raise InvalidParameter(name, value, f"from {low:g} to {high:g}")
        if self.optimiser not in ("muon", "adamw"):
            raise InvalidParameter("optimiser", self.optimiser, "muon or adamw")
        if self.method not in METHODS:
            raise InvalidParameter("method", self.method, "one of " + ", ".join(METHODS))
        if not self.ratios or not all(0 <= ratio < 1 for ratio in self.ratios):
            raise InvalidParameter("ratios", list(self.ratios), "one or more, from 0 to below 1")

    def as_json(self) -> dict[str, Any]:
        """Settings by name."""
        return {**asdict(self), "ratios": list(self.ratios)}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Recipe:
        """Restore from :meth:`as_json`."""
        known = {field.name for field in fields(cls)}
        values = {name: value for name, value in document.items() if name in known}
        return cls(**{**values, "ratios": tuple(values["ratios"])})


_RANGES = (
    ("steps", 1, 1e9),
    ("batch_size", 1, 65536),
    ("lr", 0, 1),
    ("warmup", 0, 1e9),
    ("weight_decay", 0, 1),
    ("clip", 1e-6, 1e6),
    ("ema", 0, 0.999999),
    ("label_share", 0, 1),
    ("smoothing", 0, 0.9),
    ("feature_weight", 0, 1e3),
    ("threshold", 0, 1),
    ("min_area", 0.01, 1),
    ("jitter", 0, 0.9),
    ("mix", 0, 1),
    ("seed", 0, 2**32 - 1),
)
