"""Fusing: the pairs merge whose merging loses least. Our own step beyond the paper.

PPT decides per image whether all that leaves is pruned (for it matters little) or pooled (for it resembles
another). Here each token answers for itself. What is lost by merging tokens j and k into their mean is, as in
Ward's clustering, the scatter around that mean, each weighing what it matters:

    loss_jk = s_j·s_k / (s_j + s_k) · (1 − cos(x_j, x_k)).

Of the less important half, the r tokens leave that lose least, each into a token that matters more. One that
does not matter vanishes into its neighbour, which is pruning; one that has a twin merges with it, which is
pooling; there is no threshold. The merged token is the mean by score, as long as its parts were on average: a
plain mean of unlike vectors is shorter than they are, and what the later blocks add would then count for more
than in the dense model. All of these choices were measured: see docs/notes/02-reduction-methods.md.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from prunepool.reduction.tokens import Departure, merge, rows

#: Scores and lengths below this count as this: nothing is divided by zero.
_LEAST = 1e-12


class Fused(NamedTuple):
    """What fusing leaves.

    Attributes:
        tokens: [B, N−r, C], in their order.
        size: patches behind each, float32 [B, N−r].
        departure: who left, and into whom.
    """

    tokens: Tensor
    size: Tensor
    departure: Departure


def fuse(x: Tensor, size: Tensor | None, scores: Tensor, removed: int, prefix: int) -> Fused:
    """Merge the `removed` tokens that are missed least into more important ones.

    Args:
        x: the tokens, [B, N, C].
        size: patches behind each token, float32 [B, N], or None while all are 1.
        scores: importance of the patch tokens, float32 [B, N−P].
        removed: r, at most half of the N−P patch tokens.
        prefix: P, tokens in front, which stay as they are.

    Raises:
        ValueError: r is more than half of the patch tokens.
    """
    if not 0 <= removed <= scores.shape[1] // 2:
        half = f"{scores.shape[1] // 2}, half of {scores.shape[1]} patch tokens"
        raise ValueError(f"removed must be between 0 and {half}; got {removed}")
    scores = scores.clamp_min(_LEAST)
    length = torch.linalg.vector_norm(x.float(), dim=-1).clamp_min(_LEAST)
    departure = least_missed(x, length, scores, removed, prefix)
    # Prefix tokens neither merge nor receive, so that any weight will do for them.
    weight = F.pad(scores, (prefix, 0), value=1.0)
    tokens, total = merge(x, weight, departure)
    wanted, _ = _gathered(weight * length, departure)
    received = total > weight.gather(1, departure.keep)
    now = torch.linalg.vector_norm(tokens.float(), dim=-1).clamp_min(_LEAST)
    factor = torch.where(received, wanted / (total * now), 1.0)
    tokens *= factor.to(x.dtype).unsqueeze(-1)
    if size is None:
        size = torch.ones_like(length)
    return Fused(tokens, _gathered(size, departure)[0], departure)


def _gathered(amount: Tensor, departure: Departure) -> tuple[Tensor, Tensor]:
    """What each token that stays holds afterwards, and what each that leaves brings; both float32."""
    left = amount.gather(1, departure.leave)
    return amount.gather(1, departure.keep).scatter_add(1, departure.target, left), left


def least_missed(x: Tensor, length: Tensor, scores: Tensor, removed: int, prefix: int) -> Departure:
    """Who leaves, and into whom; the others stay in their order.

    Args:
        x: the tokens, [B, N, C].
        length: of each, above 0, float32 [B, N].
        scores: importance of the patch tokens, above 0, float32 [B, N−P].
        removed: r, at most half of the N−P patch tokens.
        prefix: P, tokens in front, which stay.
    """
    batch, patches = scores.shape
    # By rank, most important first: who may receive is then the same triangle for every image.
    order = scores.argsort(dim=-1, descending=True, stable=True)
    place = order + prefix
    unit = rows(x, place).float() / length.gather(1, place).unsqueeze(-1)
    inverse = scores.gather(1, order).reciprocal()
    first = patches - patches // 2
    loss = 1 - unit[:, first:] @ unit.transpose(1, 2)
    loss /= inverse[:, first:, None] + inverse[:, None]
    rank = torch.arange(patches, device=x.device)
    loss.masked_fill_(rank >= rank[first:, None], torch.inf)
    going = loss.amin(dim=-1).argsort(dim=-1, stable=True)[:, :removed]
    leave = place.gather(1, going + first)
    gone = torch.zeros(batch, patches, dtype=torch.bool, device=x.device).scatter_(1, going + first, True)
    into = rows(loss, going).masked_fill_(gone.unsqueeze(1), torch.inf).argmin(dim=-1)
    stays = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device).scatter_(1, leave, False)
    keep = stays.byte().argsort(dim=-1, descending=True, stable=True)[:, : x.shape[1] - removed]
    target = (stays.cumsum(dim=-1) - 1).gather(1, place.gather(1, into))
    return Departure(keep, leave, target)
