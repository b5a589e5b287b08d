"""A forward pass that OpenVINO runs on a CPU: any plans, any number of images, one conversion. It needs no torch.

Images of one plan run together, and plans one after the other, each on all threads: nothing is padded. Streams side
by side were no faster on two cores, and each has its own memory for activations, and the weights once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prunepool.backends.plan_family import PlanFamily
from prunepool.models.shares import even_shares
from prunepool.reduction.plan import ReductionPlan
from prunepool.store.geometry import Geometry

#: Images that OpenVINO computes at once, of a model of 192 channels; of wider ones fewer. A run has a fixed cost,
#: but OpenVINO keeps memory for the most images that it has seen, on a DeiT-S some 20 MB an image. (On two cores a
#: DeiT-S in int8 takes 44.6 ms of a core an image in batches of 2, 42.0 in batches of 4, 44.4 in batches of 8; at
#: ratio 0.755 28.2, 27.1 and 31.0.)
AT_ONCE, _CHANNELS = 8, 192

#: Arrays of a stage: its indices (3), which images were pruned, and their variance.
STAGE_ARRAYS = 5

#: Inputs or outputs of a pass, in its order.
Arrays = Sequence[NDArray[np.generic]]

#: Neighbouring images of one plan in a batch: the plan and the number of images.
Group = tuple[ReductionPlan, int]


class StageArrays(NamedTuple):
    """One reduction of neighbouring images of a batch, as arrays.

    Attributes:
        block: index of the reducing block.
        first: index in the batch of the first image.
        indices: which tokens were kept, which were removed, and what those were merged into, int64 [B, …] each.
        pruned: bool [B], whether each image's removed tokens were dropped.
        variance: float32 [B], variance of the scores that this was decided on.
        dropped: tokens of each image that were dropped though it was not pruned; no converted method does that.
    """

    block: int
    first: int
    indices: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
    pruned: NDArray[np.bool_]
    variance: NDArray[np.float32]
    dropped: int = 0


class Answers(NamedTuple):
    """What a pass gives for a batch.

    Attributes:
        logits: float32 [B, classes], in the order of the images.
        stages: every reduction that was carried out, ordered by block, then by image.
    """

    logits: NDArray[np.float32]
    stages: list[StageArrays]


#: Maps the inputs of a pass to its outputs.
Infer = Callable[[Arrays], Arrays]


class CompiledPass:
    """The pass for all plans of one family; for one thread at a time.

    Args:
        infer: runs it.
        family: of the plans.
        geometry: of the network.
    """

    def __init__(self, infer: Infer, family: PlanFamily, geometry: Geometry) -> None:
        self._infer = infer
        self._family = family
        self._geometry = geometry
        self._at_once = max(1, min(AT_ONCE, AT_ONCE * _CHANNELS // geometry.width))

    def runs(self, plan: ReductionPlan) -> bool:
        """Whether a plan is of this family."""
        return self._family.counts(plan, self._geometry) is not None

    def __call__(self, images: NDArray[np.float32], groups: Sequence[Group]) -> Answers:
        """Logits of a batch.

        Args:
            images: normalised, float32 [B, 3, H, W]; images of one plan are neighbours.
            groups: the plans, all of this family, and how many images follow each, in order.

        Raises:
            RuntimeError: OpenVINO cannot compute it.
        """
        logits: list[NDArray[np.float32]] = []
        stages: list[StageArrays] = []
        first = 0
        for plan, count in groups:
            for share in even_shares(count, self._at_once):
                found, *rest = self._infer(self._inputs(images[first : first + share], plan))
                logits.append(found.astype(np.float32, copy=False))
                stages += self._stages(plan, first, rest)
                first += share
        return Answers(np.concatenate(logits), sorted(stages, key=lambda stage: (stage.block, stage.first)))

    def _inputs(self, images: NDArray[np.float32], plan: ReductionPlan) -> Arrays:
        stay = [np.zeros(count, np.float32) for count in self._counts(plan)]
        thresholds = np.array(self._family.thresholds(plan), np.float32)
        return [np.ascontiguousarray(images), thresholds, *stay]

    def _stages(
        self, plan: ReductionPlan, first: int, outputs: Sequence[NDArray[np.generic]]
    ) -> Iterator[StageArrays]:
        """The reductions that were carried out, from the outputs of a pass after the logits."""
        counts = self._counts(plan)
        before = (self._geometry.tokens, *counts)
        for i, (block, n, m) in enumerate(zip(self._family.blocks, before, counts, strict=False)):
            if m < n:
                own: Sequence[Any] = outputs[i * STAGE_ARRAYS : (i + 1) * STAGE_ARRAYS]
                keep, remove, target, pruned, variance = own
                yield StageArrays(block, first, (keep, remove, target), pruned, variance)

    def _counts(self, plan: ReductionPlan) -> tuple[int, ...]:
        counts = self._family.counts(plan, self._geometry)
        assert counts is not None, plan
        return counts
