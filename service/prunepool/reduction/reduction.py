"""One reducing step: score, decide, let tokens leave, by one of several methods."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from prunepool.reduction.fusing import fuse
from prunepool.reduction.plan import Method
from prunepool.reduction.pooling import pool
from prunepool.reduction.pruning import prune
from prunepool.reduction.scoring import class_attention, score_variance, token_scores
from prunepool.reduction.tokens import Departure, choose, depart


class Reduced(NamedTuple):
    """What a reducing step leaves.

    Attributes:
        tokens: [B, N−r, C].
        size: patches behind each token, float32 [B, N−r].
        departure: which tokens left, and where to.
        pruned: bool [B], whether what left was dropped, or else merged.
        variance: of the scores, float32 [B]; zeros where the method does not look at it.
    """

    tokens: Tensor
    size: Tensor
    departure: Departure
    pruned: Tensor
    variance: Tensor


def reduce_tokens(
    x: Tensor,
    size: Tensor | None,
    *,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    removed: int,
    threshold: float | Tensor,
    prefix: int,
    method: Method = "ppt",
) -> Reduced:
    """Reduce B images by `removed` tokens each.

    Args:
        x: tokens after the block's attention, [B, N, C].
        size: patches behind each token, float32 [B, N], or None while all are 1.
        query: the block's queries, [B, H, N, D]; only the class token's are read.
        key: its keys, [B, H, N, D].
        value: its values, [B, H, N, D].
        scale: of its attention logits.
        removed: r, at most half of the patch tokens.
        threshold: with `ppt`, images whose score variance reaches it are pruned, the others pooled; a number, or
            a float32 scalar.
        prefix: P, tokens in front that always stay.
        method: how it is decided who leaves; see :data:`prunepool.reduction.plan.Method`.
    """
    zeros = torch.zeros(x.shape[0], device=x.device)
    if method in ("pool", "tome"):
        departure, pruned, variance = pool(key.float().mean(dim=1), removed, prefix), zeros > 0, zeros
    else:
        attention = class_attention(query[:, :, 0], key, scale, size)
        if method == "topk":
            departure = prune(attention.mean(dim=1)[:, prefix:], removed, prefix)
            pruned, variance = zeros == 0, zeros
        else:
            scores = token_scores(attention, value, prefix)
            variance = score_variance(scores)
            if method == "fuse":
                return Reduced(*fuse(x, size, scores, removed, prefix), zeros > 0, variance)
            if method == "prune":
                departure, pruned = prune(scores, removed, prefix), zeros == 0
            else:
                pruned = variance >= threshold
                pooling = pool(key.float().mean(dim=1), removed, prefix)
                departure = choose(pruned, prune(scores, removed, prefix), pooling)
    return Reduced(*depart(x, size, departure, pruned), departure, pruned, variance)
