"""Top-k: the tokens that the class token attends to least are dropped.

Source: Liang et al., "Not All Patches are What You Need" (EViT), arXiv 2202.07800, without its fused token.
"""

from __future__ import annotations

from prunepool.reduction.prune import prune
from prunepool.reduction.step import Reduced, StepInputs, carry_out


def step(inputs: StepInputs) -> Reduced:
    """Drop the tokens with the lowest class attention, averaged over the heads."""
    attention = inputs.class_attention().mean(dim=1)[:, inputs.prefix :]
    indices = prune(attention, inputs.removed, inputs.prefix)
    return carry_out(inputs, indices, pruned=True)
