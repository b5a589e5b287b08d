"""A reduction method of a few lines: the last patch tokens are dropped, whatever they show."""

from __future__ import annotations

import torch

from prunepool.reduction.methods import ReductionMethod
from prunepool.reduction.step import Reduced, StepInputs, carry_out
from prunepool.reduction.tokens import TokenReduction


def step(inputs: StepInputs) -> Reduced:
    """Drop the last `removed` tokens of each image."""
    batch, tokens, _ = inputs.x.shape
    index = torch.arange(tokens, device=inputs.x.device).expand(batch, tokens)
    kept, removed = index[:, : tokens - inputs.removed], index[:, tokens - inputs.removed :]
    indices = TokenReduction(kept, removed, torch.zeros_like(removed))
    return carry_out(inputs, indices, pruned=True)


TOY = ReductionMethod("toy", "drop the last", lambda: step, keeps_order=True)
