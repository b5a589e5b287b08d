"""A forward pass that OpenVINO runs on a CPU, for batches whose images all follow one plan.

OpenVINO fuses what timm's modules do one by one, and lays the weights out for its own matrix products. One
converted pass serves every ratio and every number of images, so that the weights are in memory twice more, and
not once for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prunepool.backends.dynamic_pass import PlanFamily, stages_of
from prunepool.models.packing import even_shares, joined
from prunepool.models.vit import Forward
from prunepool.reduction.plan import ReductionPlan
from prunepool.reduction.step import StageRecord
from prunepool.store.geometry import Geometry

#: Images that OpenVINO computes at once: beyond that they get no cheaper, and it keeps memory for the most that it
#: has seen, on a DeiT-S some 23 MB an image.
AT_ONCE = 8

#: Inputs or outputs of a pass, in its order.
Arrays = Sequence[np.ndarray]


class Streams(NamedTuple):
    """Parallel inference streams over a converted :class:`~prunepool.backends.dynamic_pass.DynamicPass`.

    Attributes:
        width: how many streams; they share the threads.
        infer: maps the inputs of each stream to its outputs.
    """

    width: int
    infer: Callable[[Sequence[Arrays]], Sequence[Arrays]]


class OpenVinoPass:
    """The pass for all plans of one family; for one thread at a time.

    A batch is divided evenly over the streams, so that threads wait for each other once a run and not after each
    operation; the images left over run on a single stream with all threads.

    Args:
        streams: the single stream with all threads, then the parallel ones, if there are any.
        family: of the plans.
        geometry: of the network.
    """

    def __init__(self, streams: Sequence[Streams], family: PlanFamily, geometry: Geometry) -> None:
        self._streams = tuple(streams)
        self._family = family
        self._geometry = geometry

    @property
    def alone(self) -> OpenVinoPass:
        """The same on the single stream, with all threads, as a single image runs."""
        return OpenVinoPass(self._streams[:1], self._family, self._geometry)

    def runs(self, plan: ReductionPlan) -> bool:
        """Whether a plan is of this family."""
        return self._family.counts(plan, self._geometry) is not None

    def __call__(self, images: Tensor, plan: ReductionPlan) -> Forward:
        """What :class:`~prunepool.models.vit.ReducingViT` gives for these images, [B, 3, H, W], and one plan.

        Raises:
            RuntimeError: OpenVINO cannot compute it.
        """
        counts = self._family.counts(plan, self._geometry)
        assert counts is not None, plan
        limits = dict(zip(plan.blocks, plan.thresholds, strict=True))
        thresholds = np.array([limits.get(block, 0.0) for block in self._family.blocks], np.float32)
        stay = [np.zeros(count, np.float32) for count in counts]
        logits: list[Tensor] = []
        stages: list[StageRecord] = []
        first = 0
        for streams, sizes in self._shares(len(images)):
            share = images[first : first + sum(sizes)].float().contiguous()
            taken = [[part.numpy(), thresholds, *stay] for part in torch.split(share, sizes)]
            for size, given in zip(sizes, streams.infer(taken), strict=True):
                answer, *rest = map(torch.from_numpy, given)
                logits.append(answer)
                stages += stages_of(rest, self._family, counts, self._geometry.tokens, first)
                first += size
        return Forward(joined(logits), sorted(stages, key=lambda stage: (stage.block, stage.first)))

    def _shares(self, images: int) -> Iterator[tuple[Streams, list[int]]]:
        """What runs at a time: on which streams, and the images of each of them."""
        for streams in reversed(self._streams):
            each, images = divmod(images, streams.width)
            for share in even_shares(each, AT_ONCE // streams.width):
                yield streams, [share] * streams.width
