"""A forward pass with dynamic shapes, for export: one program for any number of images and any ratio."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from prunepool.backends.plan_family import PlanFamily
from prunepool.models.vit import ReducingViT
from prunepool.reduction.methods import METHODS
from prunepool.reduction.plan import ReductionPlan
from prunepool.reduction.step import Reduced, StepInputs

#: Images of the traced batch: 0 and 1 would be specialised to constants.
_TRACED = 3

#: Tokens removed at each block while tracing.
_REMOVED = 2


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
        self.network = type(network)(vit, self._reduce, exported=True)

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
        removed = tuple(n - one.shape[0] for n, one in zip(before, after, strict=False))
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
        """The method's step; where it removes nothing, tokens stay where they are, as if there were no step."""
        reduced = self._step(inputs._replace(threshold=self._thresholds[-1][int(inputs.threshold)]))
        if METHODS[self._family.method].keeps_order:
            return reduced
        # Pooling and pruning reorder tokens even then, after which the next block would pair others. How many are
        # removed is known when the pass runs, by the length of the indices alone.
        nothing = torch.ones_like(reduced.indices.remove).sum(dim=1, keepdim=True) == 0
        left = reduced.tokens.shape[1]
        tokens = torch.where(nothing.unsqueeze(-1), inputs.x[:, :left], reduced.tokens)
        size = torch.where(nothing, inputs.sizes()[:, :left], reduced.size)
        return reduced._replace(tokens=tokens, size=size)

    @torch.no_grad()
    def exported(self, size: int) -> torch.export.ExportedProgram:
        """Export the program for an input resolution, in pixels a side."""
        tokens = self.network.geometry.tokens
        counts = [tokens - _REMOVED * (i + 1) for i in range(len(self._family.blocks))]
        example = (torch.zeros(_TRACED, 3, size, size), torch.zeros(len(counts)), *map(torch.zeros, counts))
        dynamic = {0: torch.export.Dim.DYNAMIC}
        # Without a reducing block there are no further inputs, for which a specification would be one too many.
        shapes = (dynamic, None, *([tuple(dynamic for _ in counts)] if counts else []))
        return torch.export.export(self, example, dynamic_shapes=shapes)
