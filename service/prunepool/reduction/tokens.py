"""Carrying out a reduction: which tokens stay, which leave, and what becomes of those that leave.

Pruning and pooling leave the same number of tokens, so both are one :class:`Departure` of one static shape,
chosen per image by `torch.where`: no sub-batches, and nothing that waits for the device.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Departure(NamedTuple):
    """Which of N tokens stay, in which order, and where those that leave go.

    Attributes:
        keep: int64 [B, M], the position (of N) that each output token comes from.
        leave: int64 [B, r], the positions that leave; r = N − M.
        target: int64 [B, r], the output token (of M) that each of them is merged into; where an image is
            pruned it has no meaning.
    """

    keep: Tensor
    leave: Tensor
    target: Tensor


class Stage(NamedTuple):
    """One reduction as it was carried out, kept on the device until somebody asks.

    Attributes:
        block: index of the reducing block.
        first: index in the batch of the first image it holds.
        departure: where the tokens went.
        pruned: bool [B], pruned or else pooled.
        variance: float32 [B], what that was decided on.
    """

    block: int
    first: int
    departure: Departure
    pruned: Tensor
    variance: Tensor


def choose(pruned: Tensor, prune: Departure, pool: Departure) -> Departure:
    """Each image's own departure: that of pruning where `pruned` (bool [B]), else that of pooling."""
    mask = pruned.unsqueeze(-1)
    return Departure(*(torch.where(mask, a, b) for a, b in zip(prune, pool, strict=True)))


def depart(x: Tensor, size: Tensor | None, departure: Departure, pruned: Tensor) -> tuple[Tensor, Tensor]:
    """Let tokens leave: pruned ones vanish, pooled ones go into their target by size-weighted mean.

    Args:
        x: tokens, [B, N, C], any float dtype.
        size: patches behind each token, float32 [B, N], or None while all are 1.
        departure: who goes where.
        pruned: bool [B]; where true, what leaves is dropped.

    Returns:
        The tokens [B, M, C] in x's dtype, and their sizes, float32 [B, M]. A token that nothing was merged
        into is unchanged to the bit.
    """
    if size is None:
        size = torch.ones(x.shape[:2], dtype=torch.float32, device=x.device)
    return merge(x, size, departure, pruned)


def merge(
    x: Tensor, weight: Tensor, departure: Departure, dropped: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Merge what leaves into its targets by weighted mean.

    Args:
        x: tokens, [B, N, C], any float dtype.
        weight: of each, above 0, float32 [B, N].
        departure: who goes where.
        dropped: bool [B]; where true, what leaves counts for nothing.

    Returns:
        The tokens [B, M, C] in x's dtype, and the sum of the weights in each, float32 [B, M]. A token that
        nothing was merged into is unchanged to the bit.
    """
    keep, leave, target = departure
    batch, _, channels = x.shape
    kept_weight = weight.gather(1, keep)
    left_weight = weight.gather(1, leave)
    if dropped is not None:
        left_weight = left_weight.masked_fill(dropped.unsqueeze(-1), 0.0)
    total = kept_weight.scatter_add(1, target, left_weight)
    kept = rows(x, keep).view(-1, channels)
    left = rows(x, leave).view(-1, channels)
    # Weights that sum to 1 per output token, so no division of whole rows is left to do.
    kept *= (kept_weight / total).to(x.dtype).view(-1, 1)
    left *= (left_weight / total.gather(1, target)).to(x.dtype).view(-1, 1)
    kept.index_add_(0, _flat(target, keep.shape[1]), left)
    return kept.view(batch, keep.shape[1], channels), total


def rows(x: Tensor, index: Tensor) -> Tensor:
    """Copies of the rows of x [B, N, C] at index [B, M]."""
    batch, tokens, channels = x.shape
    found = x.reshape(batch * tokens, channels).index_select(0, _flat(index, tokens))
    return found.view(batch, index.shape[1], channels)


def _flat(index: Tensor, length: int) -> Tensor:
    """Positions in rows of `length` as positions in the flattened matrix, int64 [B · n].

    Whole rows are then moved at once, which is ten times faster than a gather with an expanded index.
    """
    offset = torch.arange(index.shape[0], device=index.device).unsqueeze(-1) * length
    return (index + offset).flatten()
