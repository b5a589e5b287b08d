"""Fusing: of all matched pairs, those leave whose merging loses least. Our own step beyond the paper.

PPT decides per image whether all that leaves is pruned (for it matters little) or pooled (for it resembles
another). Here each token answers for itself: what is lost by merging token j into its partner grows with how
much j matters and with how little they resemble each other, so

    loss_j = s_j^¾ · (1 − cos(x_j, x_partner)),

and the r tokens of least loss leave. A token that does not matter vanishes into its neighbour at no cost,
which is pruning; one that has a twin merges with it, which is pooling; no threshold is left to tune.
Similarity is measured on the tokens themselves, and the output keeps its order, so that the next even/odd
split pairs neighbours in the image again. The exponent and both choices were measured: see docs/accuracy.md.
"""

from __future__ import annotations

from torch import Tensor

from prunepool.ppt.pooling import match
from prunepool.ppt.tokens import Departure

#: Between 0 (similarity alone) and 1 (linear in the score).
SCORE_EXPONENT = 0.75


def fuse(x: Tensor, scores: Tensor, removed: int, prefix: int) -> Departure:
    """Merge the `removed` tokens that are missed least into their partners.

    Args:
        x: the tokens, [B, N, C].
        scores: their importance, float32 [B, N−P].
        removed: r, at most half of the N−P patch tokens.
        prefix: P, tokens in front, which stay as they are.

    Returns:
        Which tokens stay, in their order, and who merges into whom.

    Raises:
        ValueError: r is more than half of the patch tokens.
    """
    first = prefix % 2  # of the matching's tokens, in the sequence without its prefix
    weight = scores[:, first::2].pow(SCORE_EXPONENT)
    return _in_order(match(x, removed, prefix, lambda similarity: weight * (1 - similarity)))


def _in_order(departure: Departure) -> Departure:
    """The same departure with the tokens that stay in the order that they had."""
    keep, order = departure.keep.sort(dim=-1)
    return Departure(keep, departure.leave, order.argsort(dim=-1).gather(1, departure.target))
