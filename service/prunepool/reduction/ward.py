"""Ward: the pairs of tokens whose merging loses least merge, in two rounds; they count by how alike they are.

The loss of a pair is that of :mod:`~prunepool.reduction.fuse`, s_j·s_k / (s_j + s_k) · (1 − cos(x_j, x_k)). What is
different:

* Any token but the most important quarter may leave, not only one of the less important half.
* What merges in the first round counts with the score of its whole cluster in the second, and may leave with it:
  what sequential agglomeration (Ward's) gains over one matching, in a static shape.
* Attention does not count a merged token as often as it has patches. Each patch counts by its cosine with the
  merged token, and in the first quarter of the blocks a token's count grows by a smaller power still. Counted in
  full, it draws too much attention: it is one direction, where its parts were several.

All of these choices were measured: see docs/methods.md. Related: Haurum et al., "Agglomerative Token Clustering",
arXiv 2409.11923; merge errors of n_j·n_k / (n_j + n_k) · (1 − cos) in ATM, arXiv 2505.15160; means that keep the
norm in ToFu, arXiv 2312.01026; means weighted by score in AdaMerge, arXiv 2605.27465.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prunepool.reduction.fuse import LEAST, merge_by_score
from prunepool.reduction.rows import gather_rows
from prunepool.reduction.scoring import score_variance
from prunepool.reduction.step import Reduced, StepInputs, same_for_all
from prunepool.reduction.tokens import TokenReduction, kept_in_order, marked, sums

#: How fast counts come to grow in full: with the depth l/L times this, up to 1.
_FULL = 4.0


def step(inputs: StepInputs) -> Reduced:
    """Merge the pairs that lose least."""
    x, prefix = inputs.x, inputs.prefix
    scores = inputs.scores()
    least = scores.clamp_min(LEAST)
    length = torch.linalg.vector_norm(x.float(), dim=-1).clamp_min(LEAST)
    indices = two_rounds(x, length, least, inputs.removed, prefix)
    tokens = merge_by_score(x, length, least, indices, prefix)
    sizes = inputs.sizes()
    counts = inputs.counts()
    counted = counted_after(
        x, length, tokens, sizes if counts is None else counts, indices, power=min(1.0, _FULL * inputs.depth)
    )
    return Reduced(
        tokens,
        sums(sizes, indices),
        indices,
        same_for_all(inputs, pruned=False),
        score_variance(scores),
        counted=counted,
    )


def two_rounds(x: Tensor, length: Tensor, scores: Tensor, removed: int, prefix: int) -> TokenReduction:
    """Choose the tokens whose merging loses least, and their targets; the others keep their order.

    Args:
        x: tokens, [B, N, C].
        length: of each token, above 0, float32 [B, N].
        scores: importance of the patch tokens, above 0, float32 [B, N−P].
        removed: r, tokens to remove, at most half of the N−P patch tokens.
        prefix: P, tokens in front, which are kept.
    """
    patches = scores.shape[1]
    # By rank, most important first: who may receive is then the same triangle for every image.
    order = scores.argsort(dim=-1, descending=True, stable=True)
    place = order + prefix
    unit = gather_rows(x, place).float() / length.gather(1, place).unsqueeze(-1)
    own = scores.gather(1, order)
    rank = torch.arange(patches, device=x.device)
    # The most important quarter stays: no row is computed for it.
    stays = patches // 4
    never = torch.zeros(patches - stays, patches, device=x.device)
    never = never.masked_fill(rank >= rank[stays:, None], torch.inf)
    apart = torch.baddbmm(never + 1, unit[:, stays:], unit.transpose(1, 2), alpha=-1)
    nobody = torch.zeros_like(order, dtype=torch.bool)

    # The first half of all that leave, but for tokens whose target leaves itself in this round.
    loss = _losses(apart, own, stays)
    rows = loss.amin(dim=-1).argsort(dim=-1, stable=True)[:, :removed]
    leavers = rows + stays
    chosen = 2 * torch.ones_like(leavers).cumsum(dim=-1) <= removed
    leaving = nobody.scatter(1, leavers, chosen)
    targets = gather_rows(loss, rows).argmin(dim=-1)
    chosen = chosen & ~leaving.gather(1, targets)
    first = nobody.scatter(1, leavers, chosen)
    into = rank.expand_as(order).scatter(1, leavers, targets)

    # The others, by the scores of what the first made.
    own = own.scatter_add(1, targets, own.gather(1, leavers) * chosen)
    gone = torch.zeros_like(own).masked_fill(first, torch.inf)
    loss = _losses(apart, own, stays).add_(gone[:, stays:].unsqueeze(2)).add_(gone.unsqueeze(1))
    rows = loss.amin(dim=-1).argsort(dim=-1, stable=True)[:, :removed]
    leavers = rows + stays
    left = removed - chosen.sum(dim=-1, keepdim=True)
    chosen = torch.ones_like(leavers).cumsum(dim=-1) <= left
    second = nobody.scatter(1, leavers, chosen)
    staying = gather_rows(loss, rows) + torch.zeros_like(own).masked_fill(second, torch.inf).unsqueeze(1)
    onward = rank.expand_as(order).scatter(1, leavers, staying.argmin(dim=-1))

    # Where each ends: what left first goes on with its target, if that left too.
    into = torch.where(first, into, rank)
    into = torch.where(second.gather(1, into), onward.gather(1, into), into)
    both = first | second
    leaving = marked(both, both.cumsum(dim=-1) - 1, removed)
    return kept_in_order(place.gather(1, leaving), place.gather(1, into.gather(1, leaving)), x.shape[1])


def _losses(apart: Tensor, scores: Tensor, stays: int) -> Tensor:
    """The loss of each pair, float32 [B, T−stays, T].

    Args:
        apart: 1 − cos, or infinite where a pair may not merge, float32 [B, T−stays, T].
        scores: of all tokens, above 0, float32 [B, T].
        stays: how many of the first tokens have no row.
    """
    inverse = scores.reciprocal()
    return apart / (inverse[:, stays:, None] + inverse[:, None])


def counted_after(
    x: Tensor, length: Tensor, tokens: Tensor, counted: Tensor, indices: TokenReduction, *, power: float
) -> Tensor:
    """How often attention counts each token after a merge.

    Args:
        x: tokens before it, [B, N, C].
        length: of each of them, above 0, float32 [B, N].
        tokens: after it, [B, M, C].
        counted: how often each token was counted, float32 [B, N].
        indices: which tokens were kept, removed and merged.
        power: of the growth; 1 for all of it.

    Returns:
        float32 [B, M].
    """
    keep, remove, target = indices
    merged = gather_rows(tokens, target).float()
    far = torch.linalg.vector_norm(merged, dim=-1).clamp_min(LEAST) * length.gather(1, remove)
    alike = ((gather_rows(x, remove).float() * merged).sum(dim=-1) / far).clamp_min(0.0)
    own = counted.gather(1, keep)
    more = own.scatter_add(1, target, counted.gather(1, remove) * alike)
    return more if power == 1 else own * (more / own).pow(power)
