"""Runs batches of a model: pixels in, outputs out, for the worker's one thread."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from prunepool.backends.openvino_trial import OpenVinoPasses
from prunepool.core.backend import OutOfMemory
from prunepool.core.types import Batch, BatchItem, Output, RatioSpec, Request
from prunepool.models.explain import token_map
from prunepool.models.model import Model
from prunepool.models.vit import Forward, Group
from prunepool.reduction.plan import ReductionPlan
from prunepool.reduction.step import StageRecord

log = logging.getLogger(__name__)


class Part(NamedTuple):
    """The images of a batch whose pixels are of one kind.

    Attributes:
        rows: their places in the batch, ascending.
        pixels: on the model's device; uint8 [rows, H, W, 3], or float32 [rows, 3, H, W] that is normalised.
    """

    rows: list[int]
    pixels: Tensor


class Prepared(NamedTuple):
    """A batch as the device takes it.

    Attributes:
        parts: one for each kind of pixels in it.
        plans: one for each image.
    """

    parts: list[Part]
    plans: list[ReductionPlan]


@contextmanager
def memory_errors_as_ours() -> Iterator[None]:
    """Say of a batch that there is no room for it, so that half of it is tried instead of a new engine.

    Raises:
        OutOfMemory: in place of PyTorch's error.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(str(error)) from error


class TorchBackend:
    """The :class:`~prunepool.core.backend.Backend` over a loaded model, on a processor.

    Args:
        load: makes the model; called again for each new backend, so that a restart starts clean.
        max_batch_size: the largest batch to warm up for.
        passes: gives, when warming up, what runs batches of one plan in PyTorch's stead.
    """

    def __init__(
        self,
        load: Callable[[], Model],
        *,
        max_batch_size: int,
        passes: Callable[[Model], OpenVinoPasses] = lambda model: OpenVinoPasses(),
    ) -> None:
        self.model = load()
        self._max_batch_size = max_batch_size
        self._make_passes = passes
        self._passes = OpenVinoPasses()

    def warm_up(self) -> None:
        """Get what passes there shall be; run small and large batches at both ends of the dial, and a mix.

        Raises:
            PrunepoolError: they were wanted and cannot be had.
        """
        self._passes = self._make_passes(self.model)
        size = self.model.manifest.input_size
        request = Request(np.zeros((size, size, 3), np.uint8), RatioSpec(0.0, 0.0), 0.0)
        most = self.model.max_ratio
        for ratios in ((0.0,), (most,), (0.0, most / 2, most), (0.0,) * self._max_batch_size):
            batch = Batch(tuple(BatchItem(request, ratio, "warm-up") for ratio in ratios), 0.0)
            self.run(batch, self.prepare(batch))

    @memory_errors_as_ours()
    def prepare(self, batch: Batch) -> Prepared:
        """Stack the pixels and send them to the device.

        Raises:
            OutOfMemory: the device has no room for them.
        """
        rows: dict[np.dtype[Any], list[int]] = {}
        for row, item in enumerate(batch.items):
            rows.setdefault(item.request.pixels.dtype, []).append(row)
        parts = [Part(those, self._stack([batch.items[row] for row in those])) for those in rows.values()]
        return Prepared(parts, [self.model.plan(item.ratio) for item in batch.items])

    @memory_errors_as_ours()
    @torch.inference_mode()
    def run(self, batch: Batch, prepared: object) -> Sequence[Output]:
        """Compute a batch.

        Raises:
            OutOfMemory: the device has no room for it.
        """
        assert isinstance(prepared, Prepared)
        groups: list[Group] = [(plan, len(list(run))) for plan, run in groupby(prepared.plans)]
        logits, stages = self._forward(self._images(prepared.parts), groups)
        # The one point where this thread waits for the device.
        answers = logits.cpu().numpy()
        decisions = [stage.pruned.cpu().numpy() for stage in stages]
        pruned, pooled = _fates(len(batch.items), stages, decisions)
        outputs = []
        for i, (item, plan) in enumerate(zip(batch.items, prepared.plans, strict=True)):
            explained = token_map(stages, i, self.model.geometry) if item.request.explain else None
            outputs.append(
                Output(
                    logits=answers[i],
                    tokens=self.model.dial.tokens(plan),
                    gmacs=self.model.geometry.gmacs(plan),
                    pruned=int(pruned[i]),
                    pooled=int(pooled[i]),
                    token_map=explained,
                )
            )
        return outputs

    def _forward(self, images: Tensor, groups: Sequence[Group]) -> Forward:
        if len(groups) == 1 and (run := self._passes.get(groups[0][0], len(images))) is not None:
            try:
                return run(images)
            except RuntimeError:
                # Shapes were open when it was converted, and not all of them can have been tried.
                log.exception("a batch of %d failed in OpenVINO; PyTorch runs it and all others", len(images))
                self._passes = OpenVinoPasses()
        out: Forward = self.model.vit(images, groups)
        return out

    def _stack(self, items: Sequence[BatchItem]) -> Tensor:
        return torch.from_numpy(np.stack([item.request.pixels for item in items])).to(self.model.device)

    def _images(self, parts: Sequence[Part]) -> Tensor:
        """What the network takes, [B, 3, H, W] in batch order."""
        normalised = [
            part.pixels.to(self.model.dtype)
            if part.pixels.is_floating_point()
            else self.model.normalise(part.pixels)
            for part in parts
        ]
        if len(parts) == 1:
            return normalised[0]
        order = np.argsort([row for part in parts for row in part.rows])
        return torch.cat(normalised)[torch.from_numpy(order).to(self.model.device)]

    def close(self) -> None:
        """There is nothing that the interpreter does not free by itself."""


def _fates(
    images: int, stages: Sequence[StageRecord], decisions: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens pruned and tokens pooled of each image, int64 [B] each."""
    pruned, pooled = np.zeros(images, np.int64), np.zeros(images, np.int64)
    for stage, decision in zip(stages, decisions, strict=True):
        rows = slice(stage.first, stage.first + len(decision))
        left = stage.indices.remove.shape[1]
        pruned[rows] += np.where(decision, left, 0)
        pooled[rows] += np.where(decision, 0, left)
    return pruned, pooled
