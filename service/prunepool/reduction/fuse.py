"""Fusing: the pairs of tokens whose merging loses least are merged. Our own method, beyond the paper.

PPT decides per image whether to prune all r tokens (they matter little) or to pool them (they are redundant).
Fusing decides per token. Merging tokens j and k into their mean loses, as in Ward's clustering, the scatter
around that mean, weighted by the scores s:

    loss_jk = s_j·s_k / (s_j + s_k) · (1 − cos(x_j, x_k)).

Of the less important half, the r tokens with the least loss each merge into a token with a higher score. A token
of no importance vanishes into its neighbour, which is pruning; a token with a near-duplicate merges with it, which
is pooling; there is no threshold. The merged token is the mean weighted by score, scaled to the mean length of its
parts: a plain mean of unlike vectors is shorter than they are, and what later blocks add to it would weigh more
than in the dense model. All of these choices were measured: see docs/notes/02-reduction-methods.md.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from prunepool.reduction.rows import gather_rows
from prunepool.reduction.scoring import score_variance
from prunepool.reduction.step import Reduced, StepInputs, same_for_all
from prunepool.reduction.tokens import TokenReduction, kept_in_order, merge, sums, unit_sizes

#: Lower bound of scores and lengths, so that nothing is divided by zero.
LEAST = 1e-12


def step(inputs: StepInputs) -> Reduced:
    """Merge the tokens with the least loss into more important ones."""
    scores = inputs.scores()
    fused = fuse(inputs.x, inputs.size, scores, inputs.removed, inputs.prefix)
    return Reduced(*fused, same_for_all(inputs, pruned=False), score_variance(scores))


class Fused(NamedTuple):
    """What fusing returns.

    Attributes:
        tokens: [B, N−r, C], in their input order.
        size: patches merged into each, float32 [B, N−r].
        indices: which tokens were kept, which were removed, and what those were merged into.
    """

    tokens: Tensor
    size: Tensor
    indices: TokenReduction


def fuse(x: Tensor, size: Tensor | None, scores: Tensor, removed: int, prefix: int) -> Fused:
    """Merge the `removed` tokens with the least loss into more important ones.

    Args:
        x: tokens, [B, N, C].
        size: patches merged into each token, float32 [B, N], or None while all are 1.
        scores: importance of the patch tokens, float32 [B, N−P].
        removed: r, tokens to remove, at most half of the N−P patch tokens.
        prefix: P, tokens in front, which are kept unchanged.

    Raises:
        ValueError: r is more than half of the patch tokens.
    """
    if not 0 <= removed <= scores.shape[1] // 2:
        half = f"{scores.shape[1] // 2}, half of {scores.shape[1]} patch tokens"
        raise ValueError(f"removed must be between 0 and {half}; got {removed}")
    scores = scores.clamp_min(LEAST)
    length = torch.linalg.vector_norm(x.float(), dim=-1).clamp_min(LEAST)
    indices = least_loss(x, length, scores, removed, prefix)
    tokens = merge_by_score(x, length, scores, indices, prefix)
    return Fused(tokens, sums(unit_sizes(x) if size is None else size, indices), indices)


def merge_by_score(x: Tensor, length: Tensor, scores: Tensor, indices: TokenReduction, prefix: int) -> Tensor:
    """Merge tokens into their mean by score, at the mean length of its parts.

    Args:
        x: tokens, [B, N, C].
        length: of each token, above 0, float32 [B, N].
        scores: importance of the patch tokens, above 0, float32 [B, N−P].
        indices: which tokens to keep, remove and merge.
        prefix: P, tokens in front, which are kept unchanged.

    Returns:
        [B, M, C] in x's dtype. A token that nothing was merged into is unchanged to the bit.
    """
    # Prefix tokens neither merge nor receive, so that any weight will do for them.
    weight = F.pad(scores, (prefix, 0), value=1.0)
    tokens, total = merge(x, weight, indices)
    wanted = sums(weight * length, indices)
    received = total > weight.gather(1, indices.keep)
    now = torch.linalg.vector_norm(tokens.float(), dim=-1).clamp_min(LEAST)
    factor = torch.where(received, wanted / (total * now), 1.0)
    tokens *= factor.to(x.dtype).unsqueeze(-1)
    return tokens


def least_loss(x: Tensor, length: Tensor, scores: Tensor, removed: int, prefix: int) -> TokenReduction:
    """Choose the tokens whose merging loses least, and their targets; the others keep their order.

    Args:
        x: tokens, [B, N, C].
        length: of each token, above 0, float32 [B, N].
        scores: importance of the patch tokens, above 0, float32 [B, N−P].
        removed: r, tokens to remove, at most half of the N−P patch tokens.
        prefix: P, tokens in front, which are kept.
    """
    batch, patches = scores.shape
    # By rank, most important first: who may receive is then the same triangle for every image.
    ranked, order = scores.sort(dim=-1, descending=True, stable=True)
    place = order + prefix
    unit = gather_rows(x, place).float() / length.gather(1, place).unsqueeze(-1)
    inverse = ranked.reciprocal()
    first = patches - patches // 2
    loss = 1 - torch.bmm(unit[:, first:], unit.transpose(1, 2))
    loss /= inverse[:, first:, None] + inverse[:, None]
    rank = torch.arange(patches, device=x.device)
    loss.masked_fill_(rank >= rank[first:, None], torch.inf)
    going = loss.amin(dim=-1).argsort(dim=-1, stable=True)[:, :removed]
    remove = place.gather(1, going + first)
    gone = torch.zeros(batch, patches, dtype=torch.bool, device=x.device).scatter_(1, going + first, True)
    into = gather_rows(loss, going).masked_fill_(gone.unsqueeze(1), torch.inf).argmin(dim=-1)
    return kept_in_order(remove, place.gather(1, into), x.shape[1])
