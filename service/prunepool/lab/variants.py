"""Other ways to carry out a reducing step, tried and measured; what lost is in docs/notes/02-reduction-methods.md.

Each takes the place of :func:`prunepool.reduction.reduction.reduce_tokens`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from prunepool.reduction.pooling import pool
from prunepool.reduction.pruning import prune
from prunepool.reduction.reduction import Reduced
from prunepool.reduction.scoring import class_attention, score_variance, token_scores
from prunepool.reduction.tokens import Departure, choose, depart, rows


class Inputs(NamedTuple):
    """What a reducing step is given; the names are those of `reduce_tokens`."""

    x: Tensor
    size: Tensor
    query: Tensor
    key: Tensor
    value: Tensor
    scale: float
    removed: int
    threshold: float
    prefix: int
    first: bool

    @property
    def scores(self) -> Tensor:
        """Importance of every patch token, float32 [B, N−P]."""
        size = None if self.first else self.size
        attention = class_attention(self.query[:, :, 0], self.key, self.scale, size)
        return token_scores(attention, self.value, self.prefix)

    @property
    def keys(self) -> Tensor:
        """Keys averaged over the heads, float32 [B, N, D]."""
        return self.key.float().mean(dim=1)


Variant = Callable[[Inputs], Reduced]


def step_of(variant: Variant) -> Callable[..., Reduced]:
    """A variant as `ReducingViT` calls it."""

    def step(x: Tensor, size: Tensor | None, *, method: str, **given: Any) -> Reduced:
        known = torch.ones(x.shape[:2], device=x.device) if size is None else size
        return variant(Inputs(x, known, first=size is None, **given))

    return step


def _reduced(given: Inputs, departure: Departure, kept: Tensor) -> Reduced:
    """Carry out a departure in which each token is merged where `kept` (bool [B, r]), else dropped."""
    keep, leave, target = departure
    kept_size, left_size = given.size.gather(1, keep), given.size.gather(1, leave) * kept
    total = kept_size.scatter_add(1, target, left_size)
    stay = rows(given.x, keep) * kept_size[..., None]
    left = rows(given.x, leave) * left_size[..., None]
    merged = stay.scatter_add(1, target[..., None].expand_as(left), left) / total[..., None]
    zeros = torch.zeros(len(total), device=total.device)
    return Reduced(merged.to(given.x.dtype), total, departure, zeros > 0, zeros)


def in_order(departure: Departure) -> Departure:
    """The same departure with the tokens that stay in the order that they had."""
    keep, order = departure.keep.sort(dim=-1)
    return Departure(keep, departure.leave, order.argsort(dim=-1).gather(1, departure.target))


def ppt(given: Inputs, scores: Tensor, *, ordered: bool = False) -> Reduced:
    """PPT by these scores."""
    variance = score_variance(scores)
    pruned = variance >= given.threshold
    departure = choose(
        pruned,
        prune(scores, given.removed, given.prefix),
        pool(given.keys, given.removed, given.prefix),
    )
    departure = in_order(departure) if ordered else departure
    return Reduced(*depart(given.x, given.size, departure, pruned), departure, pruned, variance)


def ppt_in_order(given: Inputs) -> Reduced:
    """PPT with the spatial order kept."""
    return ppt(given, given.scores, ordered=True)


@dataclass
class AveragedScores:
    """PPT on scores averaged with those of the reducing blocks before, which travel with their tokens.

    Attributes:
        weight: of this block's own scores.
    """

    weight: float
    _before: Tensor | None = field(default=None, repr=False)

    def __call__(self, given: Inputs) -> Reduced:
        """One step; while all sizes are 1 nothing came before."""
        scores = given.scores
        if not given.first and self._before is not None:
            scores = self.weight * scores + (1 - self.weight) * self._before
            scores = scores / scores.sum(dim=-1, keepdim=True)
        reduced = ppt(given, scores)
        self._before = scores.gather(1, reduced.departure.keep[:, given.prefix :] - given.prefix)
        return reduced


@dataclass(frozen=True)
class PruneThenPool:
    """First the lowest scores are dropped, then the most similar of the others merge, in one block.

    After Chen et al., "DiffRate", arXiv 2305.17997, without its learning of how many.

    Attributes:
        share: of what leaves, how much is dropped.
    """

    share: float

    def __call__(self, given: Inputs) -> Reduced:
        """One step."""
        scores = given.scores
        # What remains must be able to give up the rest: at most half of it.
        dropped = max(round(self.share * given.removed), 2 * given.removed - scores.shape[1])
        first = in_order(prune(scores, dropped, given.prefix))
        nothing = torch.ones(given.x.shape[0], dtype=torch.bool, device=given.x.device)
        x, size = depart(given.x, given.size, first, nothing)
        second = in_order(pool(rows(given.keys, first.keep), given.removed - dropped, given.prefix))
        return Reduced(*depart(x, size, second, ~nothing), second, ~nothing, score_variance(scores))


@dataclass(frozen=True)
class RestToken:
    """The lowest scores are kept together as one token, their mean weighted by size.

    Attributes:
        as_one: whether that token counts as one patch, or as all that are in it.
    """

    as_one: bool

    def __call__(self, given: Inputs) -> Reduced:
        """One step; the lowest-scored token of those that stay gives its place to the rest."""
        scores = given.scores
        departure = in_order(prune(scores, given.removed, given.prefix))
        lowest = scores.argsort(dim=-1, descending=True, stable=True)[:, -given.removed - 1] + given.prefix
        place = (departure.keep == lowest[:, None]).long().argmax(dim=-1, keepdim=True)
        target = place.expand(-1, given.removed)
        reduced = _reduced(given, Departure(departure.keep, departure.leave, target), target >= 0)
        return reduced._replace(size=reduced.size.scatter(1, place, 1.0)) if self.as_one else reduced


@dataclass(frozen=True)
class SimilarOrPruned:
    """Pairs that are similar enough merge; what must leave beyond them is dropped by score.

    Attributes:
        least: cosine from which a pair is similar enough.
    """

    least: float

    def __call__(self, given: Inputs) -> Reduced:
        """One step."""
        tokens, prefix = given.x.shape[1], given.prefix
        unit = F.normalize(given.keys, dim=-1)
        a, b = slice(prefix + prefix % 2, tokens, 2), slice(prefix + 1 - prefix % 2, tokens, 2)
        best, partner = (unit[:, a] @ unit[:, b].transpose(1, 2)).max(dim=-1)
        similar = best >= self.least
        position = torch.arange(tokens, device=unit.device)
        into = position.expand(len(unit), -1).clone()
        into[:, a] = position[b][partner]
        # Who leaves first has the lowest rank: similar pairs, then the others by score; receivers stay.
        rank = F.pad(given.scores, (prefix, 0), value=torch.inf)
        receives = torch.zeros_like(rank).scatter_add(1, into[:, a], similar.float()) > 0
        rank = rank.masked_fill(receives, torch.inf)
        rank[:, a] = torch.where(similar, -1 - best, rank[:, a])
        order = rank.argsort(dim=-1, stable=True)
        leave, keep = order[:, : given.removed], order[:, given.removed :].sort(dim=-1).values
        joins = rank.gather(1, leave) < 0
        place = torch.arange(keep.shape[1], device=unit.device).expand_as(keep)
        spot = torch.zeros_like(order).scatter(1, keep, place)
        target = spot.gather(1, into.gather(1, leave)) * joins
        return _reduced(given, Departure(keep, leave, target), joins)


#: Tried at the paper's blocks.
PPT_VARIANTS: dict[str, Variant] = {
    "PPT, spatial order kept": ppt_in_order,
    "PPT, scores averaged with earlier blocks', ½": AveragedScores(0.5),
    "PPT, scores averaged with earlier blocks', ¾": AveragedScores(0.75),
    "prune ¼ and pool ¾ in one block": PruneThenPool(0.25),
    "prune ½ and pool ½ in one block": PruneThenPool(0.5),
    "prune ¾ and pool ¼ in one block": PruneThenPool(0.75),
    "prune into a rest token, counted as one": RestToken(as_one=True),
    "prune into a rest token, counted in full": RestToken(as_one=False),
    "pool where cos ≥ 0.5, else prune": SimilarOrPruned(0.5),
    "pool where cos ≥ 0.7, else prune": SimilarOrPruned(0.7),
    "pool where cos ≥ 0.9, else prune": SimilarOrPruned(0.9),
}
