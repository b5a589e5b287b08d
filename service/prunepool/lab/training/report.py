"""A summary of several training steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Self

from prunepool.lab.training.trainer import Step


@dataclass(frozen=True, slots=True)
class Report:
    """Means over some steps.

    Attributes:
        steps: number of steps since the run began.
        dense: mean losses of the batches without a reduction, by name.
        reduced: mean losses of the other batches.
        lr: learning rate of the last step.
        gradient: mean norm of the gradient before clipping.
        images_per_s: images per second.
    """

    steps: int
    dense: dict[str, float]
    reduced: dict[str, float]
    lr: float
    gradient: float
    images_per_s: float

    @classmethod
    def of(cls, steps: Sequence[Step], seconds: float, batch_size: int) -> Self:
        """Summarise one or more steps and their total time."""
        return cls(
            steps=steps[-1].step + 1,
            dense=_means([step for step in steps if not step.ratio]),
            reduced=_means([step for step in steps if step.ratio]),
            lr=steps[-1].lr,
            gradient=fmean(step.gradient for step in steps),
            images_per_s=len(steps) * batch_size / max(seconds, 1e-9),
        )

    def as_json(self) -> dict[str, Any]:
        """Values by name."""
        return asdict(self)

    def __str__(self) -> str:
        parts = [f"step {self.steps}"]
        for name, losses in (("dense", self.dense), ("reduced", self.reduced)):
            if losses:
                parts.append(" ".join([name, *(f"{key} {value:.4f}" for key, value in losses.items())]))
        parts.append(f"lr {self.lr:.2g}, {self.images_per_s:.1f} images/s")
        return "; ".join(parts)


def _means(steps: Sequence[Step]) -> dict[str, float]:
    values: defaultdict[str, list[float]] = defaultdict(list)
    for step in steps:
        for name, value in step.losses.items():
            values[name].append(value)
    return {name: fmean(found) for name, found in values.items()}
