"""One reducing step: score, decide per image, let tokens leave."""

from __future__ import annotations

from torch import Tensor

from prunepool.ppt.pooling import pool
from prunepool.ppt.pruning import prune
from prunepool.ppt.scoring import class_attention, score_variance, token_scores
from prunepool.ppt.tokens import Departure, choose, depart


def reduce_tokens(
    x: Tensor,
    size: Tensor | None,
    *,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    removed: int,
    threshold: float,
    prefix: int,
) -> tuple[Tensor, Tensor, Departure, Tensor, Tensor]:
    """Reduce B images by `removed` tokens each, every one in the way that its own scores call for.

    Args:
        x: tokens after the block's attention, [B, N, C].
        size: patches behind each token, float32 [B, N], or None while all are 1.
        query: the block's queries, [B, H, N, D]; only the class token's are read.
        key: its keys, [B, H, N, D].
        value: its values, [B, H, N, D].
        scale: of its attention logits.
        removed: r, at most half of the patch tokens.
        threshold: images whose score variance reaches it are pruned, the others pooled.
        prefix: P, tokens in front that always stay.

    Returns:
        Tokens [B, N−r, C], sizes float32 [B, N−r], the departure, and per image whether it was pruned
        (bool [B]) and the score variance (float32 [B]).
    """
    attention = class_attention(query[:, :, 0], key, scale, size)
    scores = token_scores(attention, value, prefix)
    variance = score_variance(scores)
    pruned = variance >= threshold
    departure = choose(pruned, prune(scores, removed, prefix), pool(key.float().mean(dim=1), removed, prefix))
    reduced, new_size = depart(x, size, departure, pruned)
    return reduced, new_size, departure, pruned, variance
