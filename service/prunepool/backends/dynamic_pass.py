"""A forward pass with dynamic shapes, for export: one program for any number of images and any ratio."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prunepool.models.packing import RaggedSegment
from prunepool.models.vit import ReducingViT
from prunepool.reduction.methods import METHODS
from prunepool.reduction.plan import DENSE, ReductionPlan
from prunepool.reduction.step import Reduced, StageRecord, StepInputs
from prunepool.reduction.tokens import TokenReduction
from prunepool.store.geometry import Geometry

#: Images of the traced batch: 0 and 1 would be specialised to constants.
_TRACED = 3

#: Tokens removed at each block while tracing.
_REMOVED = 2

#: Tensors of a stage: its indices (3), which images were pruned, and their variance.
_STAGE_TENSORS = 5


@dataclass(frozen=True, slots=True)
class PlanFamily:
    """Plans that one dynamic pass runs: they differ in counts and thresholds alone.

    Attributes:
        method: of every plan.
        blocks: where any plan reduces, ascending.
    """

    method: str
    blocks: tuple[int, ...]

    @classmethod
    def all_of(cls, plans: Iterable[ReductionPlan]) -> list[PlanFamily]:
        """The fewest families that cover these plans; one without blocks where no plan reduces."""
        blocks: dict[str, set[int]] = defaultdict(set)
        for plan in plans:
            if not plan.dense:
                blocks[plan.method] |= set(plan.blocks)
        families = [cls(method, tuple(sorted(where))) for method, where in blocks.items()]
        return families or [cls(DENSE.method, ())]

    def counts(self, plan: ReductionPlan, geometry: Geometry) -> tuple[int, ...] | None:
        """Tokens after each of :attr:`blocks`, prefix included; None for a plan that is not of this family.

        A block that removes no token still reorders the tokens, after which pooling would find other pairs, unless
        the method keeps the order. So a plan of another method must start at the first block and skip none.
        """
        tokens = plan.tokens(geometry.tokens, geometry.prefix_tokens)
        left = {b: m for b, n, m in zip(plan.blocks, tokens, tokens[1:], strict=False) if m < n}
        if not left:
            return (geometry.tokens,) * len(self.blocks)
        if plan.method != self.method or not left.keys() <= set(self.blocks):
            return None
        if not METHODS[self.method].keeps_order and tuple(left) != self.blocks[: len(left)]:
            return None
        counts = [geometry.tokens]
        for block in self.blocks:
            counts.append(left.get(block, counts[-1]))
        return tuple(counts[1:])


class _DynamicViT(ReducingViT):
    """Takes a plan's counts as they are: clipping a dynamic count would have to be exported as well."""

    def _removed(self, index: int, segment: RaggedSegment) -> int:
        plan = segment.plan
        return plan.removed[plan.blocks.index(index)] if index in plan.blocks else 0


class DynamicPass(nn.Module):
    """Runs any plan of one family over any number of images, tensors in and out, in float32.

    Args:
        network: on a CPU; copied.
        family: of the plans.
    """

    def __init__(self, network: ReducingViT, family: PlanFamily) -> None:
        super().__init__()
        self._family = family
        self._step = METHODS[family.method].load()
        self._thresholds: list[Tensor] = []
        vit = copy.deepcopy(network.vit).float()
        self.network = _DynamicViT(vit, self._reduce)

    def forward(self, images: Tensor, thresholds: Tensor, *after: Tensor) -> tuple[Tensor, ...]:
        """Logits, then five tensors for each block of the family.

        Args:
            images: normalised, float32 [B, 3, H, W].
            thresholds: one for each block, float32 [S].
            after: for each block a tensor [M] whose values are not read: M is the number of tokens after it. From
                a number r of removed tokens, PyTorch would export half of N − r as N/2 + ⌊−r/2⌋, which OpenVINO
                rounds towards zero.
        """
        before = (self.network.geometry.tokens, *(one.shape[0] for one in after[:-1]))
        removed = tuple(n - one.shape[0] for n, one in zip(before, after, strict=True))
        # A plan's thresholds are numbers; these are indices into the tensor.
        indices = tuple(float(i) for i in range(len(removed)))
        plan = ReductionPlan(self._family.blocks, removed, indices, self._family.method)
        self._thresholds.append(thresholds)
        try:
            logits, stages = self.network.one_pass(images, [(plan, images.shape[0])])
        finally:
            self._thresholds.clear()
        return logits, *(t for s in stages for t in (*s.indices, s.pruned, s.variance))

    def _reduce(self, inputs: StepInputs) -> Reduced:
        return self._step(inputs._replace(threshold=self._thresholds[-1][int(inputs.threshold)]))

    @torch.no_grad()
    def exported(self, size: int) -> torch.export.ExportedProgram:
        """Export the program for an input resolution, in pixels a side."""
        tokens = self.network.geometry.tokens
        counts = [tokens - _REMOVED * (i + 1) for i in range(len(self._family.blocks))]
        example = (torch.zeros(_TRACED, 3, size, size), torch.zeros(len(counts)), *map(torch.zeros, counts))
        dynamic = {0: torch.export.Dim.DYNAMIC}
        shapes = (dynamic, None, tuple(dynamic for _ in counts))
        return torch.export.export(self, example, dynamic_shapes=shapes)


def stages_of(
    outputs: list[Tensor], family: PlanFamily, counts: tuple[int, ...], tokens: int, first: int = 0
) -> list[StageRecord]:
    """The reductions that were carried out, from the outputs of a pass after its logits.

    Args:
        outputs: five tensors for each block.
        family: of the plans.
        counts: tokens after each block.
        tokens: before the first.
        first: index in the batch of the pass's first image.
    """
    stages = []
    for i, (block, n, m) in enumerate(zip(family.blocks, (tokens, *counts), counts, strict=False)):
        if m < n:
            keep, remove, target, pruned, variance = outputs[i * _STAGE_TENSORS : (i + 1) * _STAGE_TENSORS]
            stages.append(StageRecord(block, first, TokenReduction(keep, remove, target), pruned, variance))
    return stages
