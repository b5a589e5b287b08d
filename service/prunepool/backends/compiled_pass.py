"""A forward pass that OpenVINO runs on a CPU: any plans, any number of images, one conversion. It needs no torch.

Images of one plan run together, and plans one after the other, each on all threads: nothing is padded. Streams side
by side were no faster on two cores, and each has its own memory for activations, and the weights once more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

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


class StartedRun(Protocol):
    """A run that computes, or waits for those started before it."""

    def done(self) -> bool:
        """Whether it has ended, well or not."""

    def outputs(self) -> Arrays:
        """Wait for the outputs of the pass; called once at most.

        Raises:
            RuntimeError: OpenVINO cannot compute them.
        """


class Infer(Protocol):
    """Starts a run of a pass and returns at once; runs compute one after the other, in the order of their start."""

    def __call__(self, inputs: Arrays, when_done: Callable[[], object], /) -> StartedRun:
        """Start a run.

        Args:
            inputs: of the pass; not changed before the run is done.
            when_done: called from another thread once it is done or has failed.

        Raises:
            RuntimeError: OpenVINO takes no such inputs.
        """


class PassRun:
    """One run of a pass: neighbouring images of one plan.

    Args:
        owner: the pass.
        plan: of all images.
        first: index in the batch of the first image.
        images: normalised, float32 [B, 3, H, W].
    """

    def __init__(
        self, owner: CompiledPass, plan: ReductionPlan, first: int, images: NDArray[np.float32]
    ) -> None:
        self.owner = owner
        self._plan = plan
        self._first = first
        self._images = images
        self._started: StartedRun | None = None

    def start(self, when_done: Callable[[], object] = lambda: None) -> None:
        """Start it; see :class:`Infer`."""
        self._started = self.owner.start(self._images, self._plan, when_done)

    @property
    def started(self) -> bool:
        """Whether it was started."""
        return self._started is not None

    def done(self) -> bool:
        """Whether it was started and has ended."""
        return self._started is not None and self._started.done()

    def answers(self) -> Answers:
        """Wait for its answers; it was started.

        Raises:
            RuntimeError: OpenVINO cannot compute it.
        """
        assert self._started is not None
        logits, *rest = self._started.outputs()
        stages = self.owner.stages(self._plan, self._first, rest)
        return Answers(logits.astype(np.float32, copy=False), stages)


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
        #: Images in a run at most.
        self.at_once = max(1, min(AT_ONCE, AT_ONCE * _CHANNELS // geometry.width))

    def runs(self, plan: ReductionPlan) -> bool:
        """Whether a plan is of this family."""
        return self._family.counts(plan, self._geometry) is not None

    def start(
        self, images: NDArray[np.float32], plan: ReductionPlan, when_done: Callable[[], object]
    ) -> StartedRun:
        """Start a run of images of one plan; see :class:`Infer`."""
        stay = [np.zeros(count, np.float32) for count in self._counts(plan)]
        thresholds = np.array(self._family.thresholds(plan), np.float32)
        return self._infer([np.ascontiguousarray(images), thresholds, *stay], when_done)

    def stages(
        self, plan: ReductionPlan, first: int, outputs: Sequence[NDArray[np.generic]]
    ) -> list[StageArrays]:
        """The reductions that a run carried out, from its outputs after the logits."""
        counts = self._counts(plan)
        before = (self._geometry.tokens, *counts)
        found = []
        for i, (block, n, m) in enumerate(zip(self._family.blocks, before, counts, strict=False)):
            if m < n:
                own: Sequence[Any] = outputs[i * STAGE_ARRAYS : (i + 1) * STAGE_ARRAYS]
                keep, remove, target, pruned, variance = own
                found.append(StageArrays(block, first, (keep, remove, target), pruned, variance))
        return found

    def _counts(self, plan: ReductionPlan) -> tuple[int, ...]:
        counts = self._family.counts(plan, self._geometry)
        assert counts is not None, plan
        return counts


class CompiledPasses:
    """The passes of a compiled model, which together run every plan of its dial.

    Args:
        passes: the first that runs a plan is used for it.
    """

    def __init__(self, passes: Sequence[CompiledPass]) -> None:
        self._passes = tuple(passes)

    def runs(self, plan: ReductionPlan) -> bool:
        """Whether any pass runs a plan."""
        return any(one.runs(plan) for one in self._passes)

    def cut(self, images: NDArray[np.float32], groups: Sequence[Group]) -> list[PassRun]:
        """The runs that a batch takes.

        Args:
            images: normalised, float32 [B, 3, H, W]; images of one plan are neighbours.
            groups: the plans, and how many images follow each, in order.
        """
        runs = []
        first = 0
        for plan, count in groups:
            owner = next(one for one in self._passes if one.runs(plan))
            for share in even_shares(count, owner.at_once):
                runs.append(PassRun(owner, plan, first, images[first : first + share]))
                first += share
        return runs

    def __call__(self, images: NDArray[np.float32], groups: Sequence[Group]) -> Answers:
        """Answers of a batch, which :meth:`cut` describes, run after run.

        Raises:
            RuntimeError: OpenVINO cannot compute it.
        """
        answers = []
        for run in self.cut(images, groups):
            run.start()
            answers.append(run.answers())
        return joined(answers)


def joined(answers: Sequence[Answers]) -> Answers:
    """The answers of a batch from those of its runs."""
    stages = [stage for one in answers for stage in one.stages]
    return Answers(
        np.concatenate([one.logits for one in answers]),
        sorted(stages, key=lambda stage: (stage.block, stage.first)),
    )
