"""Pooling: the tokens that are most similar to another merge into it, by bipartite matching.

Sources: the pooling half of Wu et al., "PPT", arXiv 2310.01812; Bolya et al., "Token Merging", arXiv 2210.09461.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from prunepool.reduction.step import Reduced, StepInputs, carry_out
from prunepool.reduction.tokens import TokenReduction


def step(inputs: StepInputs) -> Reduced:
    """Merge the pairs with the most similar keys, averaged over the heads; no score is computed."""
    indices = pool(inputs.mean_keys(), inputs.removed, inputs.prefix)
    return carry_out(inputs, indices, pruned=False)


def pool(metric: Tensor, removed: int, prefix: int) -> TokenReduction:
    """Match even with odd positions and merge the `removed` most similar pairs.

    Set A is the even and set B the odd positions of the whole sequence, prefix included. Each token of A
    points to its most similar token of B (cosine). Prefix tokens neither merge nor receive.

    Args:
        metric: what similarity is measured on, [B, N, D]; in PPT, the keys averaged over the heads.
        removed: r, tokens to remove, at most half of the N−P patch tokens.
        prefix: P, tokens in front, which are kept unchanged.

    Returns:
        The output order is the prefix, the unmerged patch tokens of A in their order, then those of B.

    Raises:
        ValueError: r is more than half of the patch tokens.
    """
    tokens = metric.shape[1]
    if not 0 <= removed <= (tokens - prefix) // 2:
        raise ValueError(
            f"removed must be between 0 and {(tokens - prefix) // 2}, "
            f"half of {tokens - prefix} patch tokens; got {removed}"
        )
    unit = F.normalize(metric.float(), dim=-1)
    a, b = sides(prefix)
    return merge_best(unit[:, a] @ unit[:, b].transpose(1, 2), removed, tokens, prefix)


def sides(prefix: int) -> tuple[slice, slice]:
    """The even and the odd positions of a sequence without its P prefix tokens, which neither merge nor receive."""
    return slice(prefix + prefix % 2, None, 2), slice(prefix + 1 - prefix % 2, None, 2)


def merge_best(worth: Tensor, removed: int, tokens: int, prefix: int) -> TokenReduction:
    """Merge the `removed` even positions of highest worth into odd ones.

    Args:
        worth: of merging each even position into each odd one, float32 [B, A, B].
        removed: r, tokens to remove, at most half of the N−P patch tokens.
        tokens: N, tokens at the input.
        prefix: P, tokens in front, which are kept unchanged.

    Returns:
        The output order is the prefix, the unmerged patch tokens of A in their order, then those of B.
    """
    batch = worth.shape[0]
    first_a, first_b = (side.start for side in sides(prefix))
    best, partner = worth.max(dim=-1)
    order = best.neg().argsort(dim=-1, stable=True)
    merging, kept = order[:, :removed], order[:, removed:].sort(dim=-1).values

    device = worth.device
    front = torch.arange(prefix, device=device).expand(batch, prefix)
    receivers = torch.arange(first_b, tokens, 2, device=device).expand(batch, -1)
    keep = torch.cat((front, kept * 2 + first_a, receivers), dim=1)
    remove = merging * 2 + first_a
    target = partner.gather(1, merging) + (prefix + kept.shape[1])
    return TokenReduction(keep, remove, target)
