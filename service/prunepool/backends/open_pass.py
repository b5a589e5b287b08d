"""A forward pass whose counts of images and tokens are left open, for an exporter: one for all ratios."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunepool.models.geometry import Geometry
from prunepool.models.packing import Rectangle
from prunepool.models.vit import ReducingViT
from prunepool.reduction.plan import DENSE, Method, ReductionPlan
from prunepool.reduction.reduction import Reduced, reduce_tokens
from prunepool.reduction.tokens import Departure, Stage

#: Images of the batch that is traced: neither one nor none, which would be taken for constants.
_TRACED = 3

#: Tokens that leave at each block meanwhile.
_LEAVING = 2

#: Tensors that a stage gives: those of its departure, which images were pruned, and their variance.
_OF_A_STAGE = 5


@dataclass(frozen=True, slots=True)
class Kind:
    """Plans that one open pass runs: they differ in counts and thresholds alone.

    Attributes:
        method: theirs.
        blocks: where any of them reduces, ascending.
    """

    method: Method
    blocks: tuple[int, ...]

    @classmethod
    def all_of(cls, plans: Iterable[ReductionPlan]) -> list[Kind]:
        """The fewest kinds that hold these plans; one without blocks where no plan reduces."""
        blocks: dict[Method, set[int]] = defaultdict(set)
        for plan in plans:
            if not plan.dense:
                blocks[plan.method] |= set(plan.blocks)
        kinds = [cls(method, tuple(sorted(where))) for method, where in blocks.items()]
        return kinds or [cls(DENSE.method, ())]

    def counts(self, plan: ReductionPlan, geometry: Geometry) -> tuple[int, ...] | None:
        """Tokens after each of :attr:`blocks`, prefix included; None for a plan that is not of this kind.

        Where no token leaves, the pass still puts tokens into another order, after which pooling would find
        other pairs; only fusing keeps it. So a plan of the other methods has to begin at the first block and
        to leave none out.
        """
        tokens = plan.tokens(geometry.tokens, geometry.prefix)
        left = {b: m for b, n, m in zip(plan.blocks, tokens, tokens[1:], strict=False) if m < n}
        if not left:
            return (geometry.tokens,) * len(self.blocks)
        if plan.method != self.method or not left.keys() <= set(self.blocks):
            return None
        if self.method != "fuse" and tuple(left) != self.blocks[: len(left)]:
            return None
        counts = [geometry.tokens]
        for block in self.blocks:
            counts.append(left.get(block, counts[-1]))
        return tuple(counts[1:])


class _OpenViT(ReducingViT):
    """Takes a plan's counts as they are: a bound on what is open would itself have to be exported."""

    def _removed(self, index: int, r: Rectangle) -> int:
        return r.plan.removed[r.plan.blocks.index(index)] if index in r.plan.blocks else 0


class OpenPass(nn.Module):
    """Any plan of one kind over any number of images, as tensors in and out; in float32.

    Args:
        network: on a processor; copied.
        kind: of the plans.
    """

    def __init__(self, network: ReducingViT, kind: Kind) -> None:
        super().__init__()
        self._kind = kind
        self._thresholds: list[Tensor] = []
        vit = copy.deepcopy(network.vit).float()
        self.network = _OpenViT(vit, self._reduce)

    def forward(self, images: Tensor, thresholds: Tensor, *after: Tensor) -> tuple[Tensor, ...]:
        """Logits, then five tensors for each block of the kind.

        Args:
            images: normalised, float32 [B, 3, H, W].
            thresholds: one for each block, float32 [S].
            after: for each block a tensor [M] of no matter what, M tokens staying there; its shape is what
                counts. Were it r that leave, PyTorch would export half of N − r as N/2 + ⌊−r/2⌋, which
                OpenVINO rounds towards zero.
        """
        before = (self.network.geometry.tokens, *(one.shape[0] for one in after[:-1]))
        removed = tuple(n - one.shape[0] for n, one in zip(before, after, strict=True))
        # A plan's thresholds are numbers. These say which of the tensor's is meant.
        which = tuple(float(i) for i in range(len(removed)))
        plan = ReductionPlan(self._kind.blocks, removed, which, self._kind.method)
        self._thresholds.append(thresholds)
        try:
            logits, stages = self.network.one_pass(images, [(plan, images.shape[0])])
        finally:
            self._thresholds.clear()
        return logits, *(t for s in stages for t in (*s.departure, s.pruned, s.variance))

    def _reduce(self, *args: Any, threshold: float, **kwargs: Any) -> Reduced:
        return reduce_tokens(*args, threshold=self._thresholds[-1][int(threshold)], **kwargs)

    @torch.no_grad()
    def exported(self, size: int) -> torch.export.ExportedProgram:
        """The program for images of so many pixels a side."""
        tokens = self.network.geometry.tokens
        counts = [tokens - _LEAVING * (i + 1) for i in range(len(self._kind.blocks))]
        example = (torch.zeros(_TRACED, 3, size, size), torch.zeros(len(counts)), *map(torch.zeros, counts))
        open_ = {0: torch.export.Dim.DYNAMIC}
        shapes = (open_, None, tuple(open_ for _ in counts))
        return torch.export.export(self, example, dynamic_shapes=shapes)


def stages_of(
    outputs: list[Tensor], kind: Kind, counts: tuple[int, ...], tokens: int, first: int = 0
) -> list[Stage]:
    """The reductions that were carried out, from what a pass gave after its logits.

    Args:
        outputs: five tensors for each block.
        kind: of the plans.
        counts: tokens after each block.
        tokens: before the first.
        first: index in the batch of the pass's first image.
    """
    stages = []
    for i, (block, n, m) in enumerate(zip(kind.blocks, (tokens, *counts), counts, strict=False)):
        if m < n:
            keep, leave, target, pruned, variance = outputs[i * _OF_A_STAGE : (i + 1) * _OF_A_STAGE]
            stages.append(Stage(block, first, Departure(keep, leave, target), pruned, variance))
    return stages
