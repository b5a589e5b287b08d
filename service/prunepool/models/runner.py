"""Runs batches of a model: pixels in, outcomes out, for the worker's one thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from prunepool.batching.types import Batch, Dial, Outcome, OutOfMemory, Request, Work
from prunepool.models.explain import token_map
from prunepool.models.lanes import Lanes, faster, pieces
from prunepool.models.model import Model
from prunepool.models.vit import Group
from prunepool.ppt.plan import ReductionPlan
from prunepool.ppt.tokens import Stage

#: Images for each lane, when it is found out whether lanes are faster.
_TRIED_IN_LANE = 2


class Part(NamedTuple):
    """The images of a batch whose pixels are of one kind.

    Attributes:
        rows: their places in the batch, ascending.
        pixels: on the model's device; uint8 [rows, H, W, 3], or float32 [rows, 3, H, W] that is normalised.
    """

    rows: list[int]
    pixels: Tensor


class Piece(NamedTuple):
    """Images as the device takes them.

    Attributes:
        works: the images.
        parts: one for each kind of pixels among them.
        plans: one for each image.
    """

    works: Sequence[Work]
    parts: list[Part]
    plans: list[ReductionPlan]


class Prepared(NamedTuple):
    """A batch as the device takes it.

    Attributes:
        cut: which images of it each piece has.
        pieces: one for each lane, or several.
        rest: what the whole device computes after them.
    """

    cut: list[slice]
    pieces: list[Piece]
    rest: Piece | None


class TorchRunner:
    """The :class:`~prunepool.batching.types.Runner` over a loaded model.

    Args:
        load: makes the model; called again for each new runner, so that a restart starts clean.
        max_batch_size: the largest batch to warm up for.
    """

    def __init__(self, load: Callable[[], Model], *, max_batch_size: int) -> None:
        self.model = load()
        self._max_batch_size = max_batch_size
        self._lanes: Lanes | None = None

    def warm_up(self) -> None:
        """Run the smallest and the largest batch at both ends of the dial and in a mix.

        On a processor, find out first whether it is faster to give each core images of its own.
        """
        most = self.model.max_ratio
        if self.model.device.type == "cpu" and torch.get_num_threads() > 1:
            self._choose_lanes()
        for ratios in ((0.0,), (most,), (0.0, most / 2, most), (0.0,) * self._max_batch_size):
            batch = self._blank(ratios)
            self.run(batch, self.prepare(batch))

    def _choose_lanes(self) -> None:
        lanes = Lanes()
        batch = self._blank((0.0,) * min(self._max_batch_size, _TRIED_IN_LANE * lanes.count))

        def whole() -> None:
            self._lanes = None
            self.run(batch, self.prepare(batch))

        def cut() -> None:
            self._lanes = lanes
            self.run(batch, self.prepare(batch))

        self._lanes = lanes if faster(cut, whole) else None
        if self._lanes is None:
            lanes.close()

    def _blank(self, ratios: Sequence[float]) -> Batch:
        size = self.model.manifest.input_size
        request = Request(np.zeros((size, size, 3), np.uint8), Dial(0.0, 0.0), 0.0)
        return Batch(tuple(Work(request, ratio, "warm-up") for ratio in ratios), 0.0)

    def prepare(self, batch: Batch) -> Prepared:
        """Stack the pixels and send them to the device."""
        works = batch.works
        cut, rest = pieces(len(works), self._lanes.count if self._lanes else 1)
        left = works[rest]
        return Prepared(cut, [self._piece(works[own]) for own in cut], self._piece(left) if left else None)

    def _piece(self, works: Sequence[Work]) -> Piece:
        rows: dict[np.dtype[Any], list[int]] = {}
        for row, work in enumerate(works):
            rows.setdefault(work.request.pixels.dtype, []).append(row)
        parts = [Part(those, self._stack([works[row] for row in those])) for those in rows.values()]
        return Piece(works, parts, [self.model.plan(work.ratio) for work in works])

    def run(self, batch: Batch, prepared: object) -> Sequence[Outcome]:
        """Compute a batch.

        Raises:
            OutOfMemory: the device has no room for it.
        """
        assert isinstance(prepared, Prepared)
        outcomes: list[Outcome | None] = [None] * len(batch.works)
        if self._lanes is not None and prepared.pieces:
            for own, done in zip(prepared.cut, self._lanes.run(self._compute, prepared.pieces), strict=True):
                outcomes[own] = done
        if prepared.rest is not None:
            outcomes[len(batch.works) - len(prepared.rest.works) :] = self._compute(prepared.rest)
        return [outcome for outcome in outcomes if outcome is not None]

    @torch.inference_mode()
    def _compute(self, piece: Piece) -> list[Outcome]:
        groups: list[Group] = [(plan, len(list(run))) for plan, run in groupby(piece.plans)]
        try:
            logits, stages = self.model.vit(self._images(piece.parts), groups)
            # The one point where this thread waits for the device.
            answers = logits.cpu().numpy()
            decisions = [stage.pruned.cpu().numpy() for stage in stages]
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(str(error)) from error
        pruned, pooled = _fates(len(piece.works), stages, decisions)
        outcomes = []
        for i, (work, plan) in enumerate(zip(piece.works, piece.plans, strict=True)):
            explained = token_map(stages, i, self.model.geometry) if work.request.explain else None
            outcomes.append(
                Outcome(
                    logits=answers[i],
                    tokens=self.model.dial.tokens(plan),
                    gmacs=self.model.geometry.gmacs(plan),
                    pruned=int(pruned[i]),
                    pooled=int(pooled[i]),
                    token_map=explained,
                )
            )
        return outcomes

    def _stack(self, works: Sequence[Work]) -> Tensor:
        pixels = torch.from_numpy(np.stack([work.request.pixels for work in works]))
        if self.model.device.type == "cuda":
            pixels = pixels.pin_memory().to(self.model.device, non_blocking=True)
        return pixels

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
        """Give the device's cached memory back, and end the lanes."""
        if self._lanes is not None:
            self._lanes.close()
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()


def _fates(
    images: int, stages: Sequence[Stage], decisions: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens pruned and tokens pooled of each image, int64 [B] each."""
    pruned, pooled = np.zeros(images, np.int64), np.zeros(images, np.int64)
    for stage, decision in zip(stages, decisions, strict=True):
        rows = slice(stage.first, stage.first + len(decision))
        left = stage.departure.leave.shape[1]
        pruned[rows] += np.where(decision, left, 0)
        pooled[rows] += np.where(decision, 0, left)
    return pruned, pooled
