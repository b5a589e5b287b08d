"""Predictions for a queue: from the number of images at each ratio to batches and seconds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from prunepool.core.cost_model import CostModel, Effort, effort
from prunepool.core.types import Batch, Costs, Limits

#: How many images go at each ratio.
Images = Mapping[float, int]


class DrainEstimate(NamedTuple):
    """How long a number of images take.

    Attributes:
        seconds: for all of them, batch after batch.
        images_per_run: images that fit into one batch within the limits; at least 1.
        run_s: seconds for one full batch, or for all of them if they are fewer.
    """

    seconds: float
    images_per_run: int
    run_s: float


class Predictor:
    """Predicts for one model.

    Args:
        costs: of each ratio.
        limits: bounds of a batch.
        model: predicts seconds; corrected with every batch.

    Attributes:
        max_images: images in the largest batch that is worth it, as far as is known.
    """

    def __init__(self, costs: Costs, limits: Limits, model: CostModel) -> None:
        self._limits = limits
        self.max_images = limits.max_batch_size
        self._model = model
        #: Billions of multiply-accumulates for one image at a ratio.
        self.gmacs = lru_cache(maxsize=1024)(costs.gmacs)

    def effort(self, batch: Batch, *, idle_before: bool = False) -> Effort:
        """What the time of a batch of at least one image depends on."""
        return effort(Counter(batch.ratios), self.gmacs, idle_before=idle_before)

    def batch_s(self, batch: Batch, *, idle_before: bool = False) -> float:
        """Seconds for a batch, on an idle device or a busy one."""
        return self._model.seconds(self.effort(batch, idle_before=idle_before)) if batch.items else 0.0

    @property
    def idle_penalty_s(self) -> float:
        """How much longer a batch takes on an idle device, in seconds."""
        return self._model.seconds(Effort(0, 0, 0, 0, idle_before=1))

    def run_s(self, images: Images) -> float:
        """Seconds for these images in one batch."""
        return self._model.seconds(effort(images, self.gmacs)) if images else 0.0

    def runs(self, images: Images) -> int:
        """The number of batches that these images make within the limits."""
        return math.ceil(sum(images.values()) / self.drain(images).images_per_run)

    def image_s(self, ratio: float) -> float:
        """An image's share of the seconds of a full batch at its ratio."""
        drain = self.drain({ratio: self.max_images})
        return drain.run_s / min(drain.images_per_run, self.max_images)

    def drain(self, images: Images) -> DrainEstimate:
        """How long these images take, in batches within the limits, each with the same mix of ratios."""
        count = sum(images.values())
        if not count:
            return DrainEstimate(0.0, 1, 0.0)
        gmacs = sum(n * self.gmacs(ratio) for ratio, n in images.items())
        reduced = sum(n for ratio, n in images.items() if ratio > 0)
        image_s = self._model.seconds(Effort(0, gmacs / count, 0, reduced / count))
        fixed_s = self._model.seconds(Effort(1, 0, len(images) - 1, 0))
        per_run = self._images_per_run(fixed_s, image_s)
        if per_run < len(images):
            fixed_s = self._model.seconds(Effort(1, 0, per_run - 1, 0))
        runs = math.ceil(count / per_run)
        return DrainEstimate(
            runs * fixed_s + count * image_s, per_run, fixed_s + min(per_run, count) * image_s
        )

    def _images_per_run(self, fixed_s: float, image_s: float) -> int:
        limit = self.max_images
        if image_s <= 0 or fixed_s + limit * image_s <= self._limits.max_batch_s:
            return limit
        return max(1, min(limit, int((self._limits.max_batch_s - fixed_s) / image_s)))
