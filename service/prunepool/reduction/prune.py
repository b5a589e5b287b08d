"""Pruning: the tokens with the lowest scores are dropped.

Source: the pruning half of Wu et al., "PPT", arXiv 2310.01812.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prunepool.reduction.scoring import score_variance
from prunepool.reduction.step import Reduced, StepInputs, carry_out
from prunepool.reduction.tokens import TokenReduction


def step(inputs: StepInputs) -> Reduced:
    """Drop the tokens with the lowest scores, whatever the variance."""
    scores = inputs.scores()
    indices = prune(scores, inputs.removed, inputs.prefix)
    return carry_out(inputs, indices, pruned=True, variance=score_variance(scores))


def prune(scores: Tensor, removed: int, prefix: int) -> TokenReduction:
    """Keep the prefix and the best patch tokens, in descending order of their score.

    The order matters: the next block pairs even with odd positions when it pools.

    Args:
        scores: importance of the patch tokens, float32 [B, N−P].
        removed: r, tokens to remove, 0 … N−P.
        prefix: P, tokens in front, which are always kept.

    Returns:
        Which tokens to keep and to remove; ties keep their order.
    """
    batch, patches = scores.shape
    order = scores.argsort(dim=-1, descending=True, stable=True) + prefix
    front = torch.arange(prefix, device=scores.device).expand(batch, prefix)
    keep = torch.cat((front, order[:, : patches - removed]), dim=1)
    remove = order[:, patches - removed :]
    return TokenReduction(keep, remove, torch.zeros_like(remove))
