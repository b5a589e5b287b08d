"""Variants of reduction steps that were measured; docs/notes/02-reduction-methods.md has the results.

Each is a :data:`prunepool.reduction.step.Step`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from prunepool.reduction.pool import pool
from prunepool.reduction.prune import prune
from prunepool.reduction.rows import gather_rows
from prunepool.reduction.scoring import score_variance
from prunepool.reduction.step import Reduced, Step, StepInputs, carry_out
from prunepool.reduction.tokens import TokenReduction, apply_reduction, choose


def _reduced(given: StepInputs, indices: TokenReduction, merged: Tensor) -> Reduced:
    """Merge each removed token where `merged` (bool [B, r]), else drop it."""
    keep, remove, target = indices
    size = given.sizes()
    kept_size, left_size = size.gather(1, keep), size.gather(1, remove) * merged
    total = kept_size.scatter_add(1, target, left_size)
    stay = gather_rows(given.x, keep) * kept_size[..., None]
    left = gather_rows(given.x, remove) * left_size[..., None]
    tokens = stay.scatter_add(1, target[..., None].expand_as(left), left) / total[..., None]
    zeros = torch.zeros(len(total), device=total.device)
    return Reduced(tokens.to(given.x.dtype), total, indices, zeros > 0, zeros)


def in_order(indices: TokenReduction) -> TokenReduction:
    """The same reduction with the kept tokens in their input order."""
    keep, order = indices.keep.sort(dim=-1)
    return TokenReduction(keep, indices.remove, order.argsort(dim=-1).gather(1, indices.target))


def ppt(given: StepInputs, scores: Tensor, *, ordered: bool = False) -> Reduced:
    """PPT by these scores."""
    variance = score_variance(scores)
    pruned = variance >= given.threshold
    indices = choose(
        pruned,
        prune(scores, given.removed, given.prefix),
        pool(given.mean_keys(), given.removed, given.prefix),
    )
    return carry_out(given, in_order(indices) if ordered else indices, pruned, variance)


def ppt_in_order(given: StepInputs) -> Reduced:
    """PPT with the spatial order kept."""
    return ppt(given, given.scores(), ordered=True)


@dataclass
class AveragedScores:
    """PPT on scores averaged with those of earlier reducing blocks, which stay with their tokens.

    Attributes:
        weight: of this block's own scores.
    """

    weight: float
    _before: Tensor | None = field(default=None, repr=False)

    def __call__(self, given: StepInputs) -> Reduced:
        """One step; while all sizes are 1 nothing came before."""
        scores = given.scores()
        if given.size is not None and self._before is not None:
            scores = self.weight * scores + (1 - self.weight) * self._before
            scores = scores / scores.sum(dim=-1, keepdim=True)
        reduced = ppt(given, scores)
        self._before = scores.gather(1, reduced.indices.keep[:, given.prefix :] - given.prefix)
        return reduced


@dataclass(frozen=True)
class PruneThenPool:
    """Drop the tokens with the lowest scores, then merge the most similar of the others, in one block.

    After Chen et al., "DiffRate", arXiv 2305.17997, without its learning of how many.

    Attributes:
        share: share of the removed tokens that is dropped.
    """

    share: float

    def __call__(self, given: StepInputs) -> Reduced:
        """One step."""
        scores = given.scores()
        # Pooling must be able to remove the rest: at most half of what remains.
        dropped = max(round(self.share * given.removed), 2 * given.removed - scores.shape[1])
        first = in_order(prune(scores, dropped, given.prefix))
        nothing = torch.ones(given.x.shape[0], dtype=torch.bool, device=given.x.device)
        x, size = apply_reduction(given.x, given.size, first, nothing)
        second = in_order(
            pool(gather_rows(given.mean_keys(), first.keep), given.removed - dropped, given.prefix)
        )
        return Reduced(*apply_reduction(x, size, second, ~nothing), second, ~nothing, score_variance(scores))


@dataclass(frozen=True)
class RestToken:
    """Merge the tokens with the lowest scores into one token, their mean weighted by size.

    Attributes:
        as_one: whether that token counts as one patch, or as all patches merged into it.
    """

    as_one: bool

    def __call__(self, given: StepInputs) -> Reduced:
        """One step; the merged token takes the place of the lowest-scored kept token."""
        scores = given.scores()
        indices = in_order(prune(scores, given.removed, given.prefix))
        lowest = scores.argsort(dim=-1, descending=True, stable=True)[:, -given.removed - 1] + given.prefix
        place = (indices.keep == lowest[:, None]).long().argmax(dim=-1, keepdim=True)
        target = place.expand(-1, given.removed)
        reduced = _reduced(given, TokenReduction(indices.keep, indices.remove, target), target >= 0)
        return reduced._replace(size=reduced.size.scatter(1, place, 1.0)) if self.as_one else reduced


@dataclass(frozen=True)
class SimilarOrPruned:
    """Merge pairs that are similar enough, and drop the remaining tokens to remove by score.

    Attributes:
        least: smallest cosine of a pair that is merged.
    """

    least: float

    def __call__(self, given: StepInputs) -> Reduced:
        """One step."""
        tokens, prefix = given.x.shape[1], given.prefix
        unit = F.normalize(given.mean_keys(), dim=-1)
        a, b = slice(prefix + prefix % 2, tokens, 2), slice(prefix + 1 - prefix % 2, tokens, 2)
        best, partner = (unit[:, a] @ unit[:, b].transpose(1, 2)).max(dim=-1)
        similar = best >= self.least
        position = torch.arange(tokens, device=unit.device)
        into = position.expand(len(unit), -1).clone()
        into[:, a] = position[b][partner]
        # Tokens of the lowest rank are removed first: similar pairs, then the others by score; receivers are
        # kept.
        rank = F.pad(given.scores(), (prefix, 0), value=torch.inf)
        receives = torch.zeros_like(rank).scatter_add(1, into[:, a], similar.float()) > 0
        rank = rank.masked_fill(receives, torch.inf)
        rank[:, a] = torch.where(similar, -1 - best, rank[:, a])
        order = rank.argsort(dim=-1, stable=True)
        remove, keep = order[:, : given.removed], order[:, given.removed :].sort(dim=-1).values
        joins = rank.gather(1, remove) < 0
        place = torch.arange(keep.shape[1], device=unit.device).expand_as(keep)
        spot = torch.zeros_like(order).scatter(1, keep, place)
        target = spot.gather(1, into.gather(1, remove)) * joins
        return _reduced(given, TokenReduction(keep, remove, target), joins)


#: Tried at the paper's blocks.
PPT_VARIANTS: dict[str, Step] = {
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
