"""Pruning: the tokens with the lowest scores leave."""

from __future__ import annotations

import torch
from torch import Tensor

from prunepool.reduction.tokens import Departure


def prune(scores: Tensor, removed: int, prefix: int) -> Departure:
    """Keep the prefix and the best patch tokens, in descending order of their score.

    The order matters: the next block pairs even with odd positions when it pools.

    Args:
        scores: float32 [B, N−P].
        removed: r, tokens that leave, 0 … N−P.
        prefix: P, tokens in front, which always stay.

    Returns:
        Which tokens stay and leave; ties keep their order.
    """
    batch, patches = scores.shape
    order = scores.argsort(dim=-1, descending=True, stable=True) + prefix
    front = torch.arange(prefix, device=scores.device).expand(batch, prefix)
    keep = torch.cat((front, order[:, : patches - removed]), dim=1)
    leave = order[:, patches - removed :]
    return Departure(keep, leave, torch.zeros_like(leave))
