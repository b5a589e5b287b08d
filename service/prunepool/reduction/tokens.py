"""Removing tokens: which are kept, which are removed, and what the removed ones merge into.

Pruning and pooling remove the same number of tokens, so both are a :class:`TokenReduction` of one static shape,
chosen per image by `torch.where`: no sub-batches, and nothing that waits for the device.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from prunepool.reduction.rows import add_rows, gather_rows


class TokenReduction(NamedTuple):
    """Indices of the tokens that are kept, removed and merged, of N tokens.

    Attributes:
        keep: int64 [B, M], the input index of each output token.
        remove: int64 [B, r], the input indices that are removed; r = N − M.
        target: int64 [B, r], the output index that each of them merges into, or
            :data:`~prunepool.reduction.methods.DROPPED`; undefined where an image is pruned.
    """

    keep: Tensor
    remove: Tensor
    target: Tensor


def kept_in_order(remove: Tensor, into: Tensor, tokens: int) -> TokenReduction:
    """The reduction that leaves the kept tokens in their input order.

    Args:
        remove: the input indices that are removed, each once, int64 [B, r].
        into: the input index of the kept token that each of them merges into, int64 [B, r].
        tokens: N, tokens at the input.
    """
    kept = torch.ones(remove.shape[0], tokens, dtype=torch.bool, device=remove.device)
    kept = kept.scatter(1, remove, False)
    after = kept.cumsum(dim=-1) - 1
    return TokenReduction(marked(kept, after, tokens - remove.shape[1]), remove, after.gather(1, into))


def marked(mark: Tensor, place: Tensor, count: int) -> Tensor:
    """The indices of the marked tokens in their order, int64 [B, count], without sorting.

    Args:
        mark: bool [B, N]; `count` of each row are true.
        place: of each marked token among them, int64 [B, N].
        count: of marked tokens.
    """
    index = torch.arange(mark.shape[1], device=mark.device).expand_as(place)
    # The others all go to one place more, which is cut off.
    wider = torch.zeros(mark.shape[0], count + 1, dtype=torch.int64, device=mark.device)
    return wider.scatter(1, place.masked_fill(~mark, count), index)[:, :count]


def choose(pruned: Tensor, pruning: TokenReduction, pooling: TokenReduction) -> TokenReduction:
    """Each image's own indices: those of `pruning` where `pruned` (bool [B]), else those of `pooling`."""
    mask = pruned.unsqueeze(-1)
    return TokenReduction(*(torch.where(mask, a, b) for a, b in zip(pruning, pooling, strict=True)))


def apply_reduction(
    x: Tensor, size: Tensor | None, indices: TokenReduction, pruned: Tensor
) -> tuple[Tensor, Tensor]:
    """Remove tokens: drop them where `pruned`, else merge them into their target by size-weighted mean.

    Args:
        x: tokens, [B, N, C], any float dtype.
        size: patches merged into each token, float32 [B, N], or None while all are 1.
        indices: which tokens to keep, remove and merge.
        pruned: bool [B]; where true, removed tokens are dropped.

    Returns:
        The tokens [B, M, C] in x's dtype, and their sizes, float32 [B, M]. A token that nothing was merged
        into is unchanged to the bit.
    """
    return merge(x, unit_sizes(x) if size is None else size, indices, pruned)


def unit_sizes(x: Tensor) -> Tensor:
    """One patch behind each of the tokens [B, N, C], float32 [B, N]."""
    return torch.ones(x.shape[:2], dtype=torch.float32, device=x.device)


def merge(
    x: Tensor, weight: Tensor, indices: TokenReduction, dropped: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Merge removed tokens into their targets by weighted mean.

    Args:
        x: tokens, [B, N, C], any float dtype.
        weight: of each token in the mean, above 0, float32 [B, N].
        indices: which tokens to keep, remove and merge.
        dropped: bool [B]; where true, removed tokens count for nothing.

    Returns:
        The tokens [B, M, C] in x's dtype, and the sum of the weights in each, float32 [B, M]. A token that
        nothing was merged into is unchanged to the bit.
    """
    keep, remove, target = indices
    kept_weight = weight.gather(1, keep)
    removed_weight = weight.gather(1, remove)
    if dropped is not None:
        removed_weight = removed_weight.masked_fill(dropped.unsqueeze(-1), 0.0)
    total = kept_weight.scatter_add(1, target, removed_weight)
    # Weights that sum to 1 per output token, so no division of whole rows is left to do.
    kept = gather_rows(x, keep)
    kept *= (kept_weight / total).to(x.dtype).unsqueeze(-1)
    removed = gather_rows(x, remove)
    removed *= (removed_weight / total.gather(1, target)).to(x.dtype).unsqueeze(-1)
    return add_rows(kept, target, removed), total


def sums(amount: Tensor, indices: TokenReduction) -> Tensor:
    """Sum of an amount [B, N] over what each kept token stands for afterwards, [B, M]."""
    return amount.gather(1, indices.keep).scatter_add(1, indices.target, amount.gather(1, indices.remove))
