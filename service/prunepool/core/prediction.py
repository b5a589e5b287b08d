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


class Drain(NamedTuple):
    """What it takes to run a number of images.

    Attributes:
        seconds: all of them, one run after the other.
        images_per_run: that fit into one run within the limits; at least 1.
        run_s: one full run, or all of them where they are fewer.
    """

    seconds: float
    images_per_run: int
    run_s: float


class Predictor:
    """Predicts for one model.

    Args:
        costs: what a ratio costs.
        limits: bounds of a batch.
        model: seconds for an effort, as learnt so far.

    Attributes:
        most_images: in a run, as far as is known now.
    """

    def __init__(self, costs: Costs, limits: Limits, model: CostModel) -> None:
        self._limits = limits
        self.most_images = limits.max_batch_size
        self._model = model
        #: Billions of multiply-accumulates for one image at a ratio.
        self.gmacs = lru_cache(maxsize=1024)(costs.gmacs)

    def effort(self, batch: Batch, *, idle_before: bool = False) -> Effort:
        """What a batch's time depends on; it has at least one image."""
        return effort(Counter(batch.ratios), self.gmacs, idle_before=idle_before)

    def batch_s(self, batch: Batch, *, idle_before: bool = False) -> float:
        """Seconds that a batch will run, on a device that has had nothing to do before, or has."""
        return self._model.seconds(self.effort(batch, idle_before=idle_before)) if batch.items else 0.0

    @property
    def idle_penalty_s(self) -> float:
        """How much longer a run takes on a device that has had nothing to do."""
        return self._model.seconds(Effort(0, 0, 0, 0, idle_before=1))

    def run_s(self, images: Images) -> float:
        """Seconds that these images take in one run."""
        return self._model.seconds(effort(images, self.gmacs)) if images else 0.0

    def runs(self, images: Images) -> int:
        """How many runs the limits make of these images."""
        return math.ceil(sum(images.values()) / self.drain(images).images_per_run)

    def image_s(self, ratio: float) -> float:
        """An image's share of the seconds of a full run at its ratio."""
        drain = self.drain({ratio: self.most_images})
        return drain.run_s / min(drain.images_per_run, self.most_images)

    def drain(self, images: Images) -> Drain:
        """What these images take in as many runs as the limits make of them, each run with the same mix."""
        count = sum(images.values())
        if not count:
            return Drain(0.0, 1, 0.0)
        gmacs = sum(n * self.gmacs(ratio) for ratio, n in images.items())
        reduced = sum(n for ratio, n in images.items() if ratio > 0)
        image_s = self._model.seconds(Effort(0, gmacs / count, 0, reduced / count))
        fixed_s = self._model.seconds(Effort(1, 0, len(images) - 1, 0))
        per_run = self._images_per_run(fixed_s, image_s)
        if per_run < len(images):
            fixed_s = self._model.seconds(Effort(1, 0, per_run - 1, 0))
        runs = math.ceil(count / per_run)
        return Drain(runs * fixed_s + count * image_s, per_run, fixed_s + min(per_run, count) * image_s)

    def _images_per_run(self, fixed_s: float, image_s: float) -> int:
        most = self.most_images
        if image_s <= 0 or fixed_s + most * image_s <= self._limits.max_batch_s:
            return most
        return max(1, min(most, int((self._limits.max_batch_s - fixed_s) / image_s)))
