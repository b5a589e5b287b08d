"""A forward pass that OpenVINO runs on a CPU: any plans, any number of images, one conversion. It needs no torch.

Images of one plan run together. Images of different plans run side by side, each plan on a stream of its own, or
one after the other: nothing is padded, and no plan waits for another one's batch.
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

#: Images that OpenVINO computes at once: beyond that they get no cheaper, and it keeps memory for the most that it
#: has seen, on a DeiT-S some 23 MB an image.
AT_ONCE = 8

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
    """

    block: int
    first: int
    indices: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
    pruned: NDArray[np.bool_]
    variance: NDArray[np.float32]


class Answers(NamedTuple):
    """What a pass gives for a batch.

    Attributes:
        logits: float32 [B, classes], in the order of the images.
        stages: every reduction that was carried out, ordered by block, then by image.
    """

    logits: NDArray[np.float32]
    stages: list[StageArrays]


class Streams(NamedTuple):
    """Parallel inference streams over one converted pass.

    Attributes:
        width: how many streams; they share the threads.
        infer: maps the inputs of up to `width` streams to the outputs of each.
    """

    width: int
    infer: Callable[[Sequence[Arrays]], Sequence[Arrays]]


class Job(NamedTuple):
    """Images of one plan that one stream runs at once.

    Attributes:
        plan: of all of them.
        first: index in the batch of the first one.
        images: how many.
    """

    plan: ReductionPlan
    first: int
    images: int


class CompiledPass:
    """The pass for all plans of one family; for one thread at a time.

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
    def alone(self) -> CompiledPass:
        """The same on the single stream, with all threads, as a single image runs."""
        return CompiledPass(self._streams[:1], self._family, self._geometry)

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
        found: dict[int, NDArray[np.float32]] = {}
        stages: list[StageArrays] = []
        for streams, jobs in self._rounds(groups):
            given = [self._inputs(images, job) for job in jobs]
            for job, (logits, *rest) in zip(jobs, streams.infer(given), strict=True):
                found[job.first] = logits.astype(np.float32, copy=False)
                stages += self._stages(job, rest)
        return Answers(
            np.concatenate([found[first] for first in sorted(found)]),
            sorted(stages, key=lambda stage: (stage.block, stage.first)),
        )

    def _inputs(self, images: NDArray[np.float32], job: Job) -> Arrays:
        counts = self._counts(job.plan)
        stay = [np.zeros(count, np.float32) for count in counts]
        thresholds = np.array(self._family.thresholds(job.plan), np.float32)
        return [np.ascontiguousarray(images[job.first : job.first + job.images]), thresholds, *stay]

    def _stages(self, job: Job, outputs: Sequence[NDArray[np.generic]]) -> Iterator[StageArrays]:
        """The reductions of a job that were carried out, from its outputs after the logits."""
        counts = self._counts(job.plan)
        before = (self._geometry.tokens, *counts)
        for i, (block, n, m) in enumerate(zip(self._family.blocks, before, counts, strict=False)):
            if m < n:
                own: Sequence[Any] = outputs[i * STAGE_ARRAYS : (i + 1) * STAGE_ARRAYS]
                keep, remove, target, pruned, variance = own
                yield StageArrays(block, job.first, (keep, remove, target), pruned, variance)

    def _counts(self, plan: ReductionPlan) -> tuple[int, ...]:
        counts = self._family.counts(plan, self._geometry)
        assert counts is not None, plan
        return counts

    def _rounds(self, groups: Sequence[Group]) -> Iterator[tuple[Streams, list[Job]]]:
        """What runs at a time: on which streams, and the job of each of them.

        As many images of a plan as divide evenly are shared out over the parallel streams, so that threads wait for
        each other once a round and not after each operation. What is left over of several plans runs side by side
        as well; what is left over of one plan runs on the single stream with all threads.
        """
        widest, single = self._streams[-1], self._streams[0]
        left: list[Job] = []
        first = 0
        for plan, images in groups:
            each, rest = divmod(images, widest.width)
            for share in even_shares(each, AT_ONCE // widest.width):
                yield widest, [Job(plan, first + i * share, share) for i in range(widest.width)]
                first += widest.width * share
            if rest:
                left.append(Job(plan, first, rest))
                first += rest
        if len(left) > 1 and widest.width > 1:
            left = [Job(job.plan, job.first + i, 1) for job in left for i in range(job.images)]
            # Neighbours in cost, so that no stream waits long for another one.
            left.sort(key=lambda job: sum(self._counts(job.plan)), reverse=True)
            while len(left) > 1:
                yield widest, left[: widest.width]
                left = left[widest.width :]
        for job in left:
            for share in even_shares(job.images, AT_ONCE):
                yield single, [Job(job.plan, job.first, share)]
                job = job._replace(first=job.first + share)
