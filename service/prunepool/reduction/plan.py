"""The reduction plan: how many tokens are removed at which block, decided before any image is seen.

:func:`plan_for_ratio` turns one number, the reduction ratio ρ (the share of patch tokens that is removed at the
output), into a plan. A plan fixes every tensor shape of a forward pass; an image's content decides only *which*
tokens are removed, and whether they are pruned or pooled.

Source: Wu et al., "PPT: Token Pruning and Pooling for Efficient Vision Transformers", arXiv 2310.01812.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from prunepool.reduction.methods import METHODS, ReductionMethod

#: The paper's threshold on the variance of the normalised scores, the same at every stage.
DEFAULT_THRESHOLD = 7e-5


class PlanError(ValueError):
    """A plan that no forward pass can carry out.

    Args:
        parameter: the name of the quantity that is wrong.
        value: its value.
        limit: what is allowed, in words.
    """

    def __init__(self, parameter: str, value: object, limit: str) -> None:
        super().__init__(f"{parameter} must be {limit}; got {value!r}")
        self.parameter = parameter
        self.value = value
        self.limit = limit


def method_named(name: str | None) -> ReductionMethod:
    """The method of a name.

    Raises:
        PlanError: there is none.
    """
    if name is None or name not in METHODS:
        raise PlanError("method", name, "one of " + ", ".join(METHODS))
    return METHODS[name]


@dataclass(frozen=True, slots=True)
class ReductionPlan:
    """How many tokens are removed at which block.

    Attributes:
        blocks: 0-based indices of the reducing blocks, ascending.
        removed: tokens removed at each of them; clipped to half of the patch tokens there.
        thresholds: one for each of them; `ppt` prunes an image whose score variance reaches it, and pools it
            otherwise. Other methods ignore it.
        method: which tokens are removed and what becomes of them, a name in
            :data:`prunepool.reduction.methods.METHODS`.

    Raises:
        PlanError: lengths differ, blocks do not ascend, or a count or threshold is negative.
    """

    blocks: tuple[int, ...] = ()
    removed: tuple[int, ...] = ()
    thresholds: tuple[float, ...] = ()
    method: str = "ppt"

    def __post_init__(self) -> None:
        """Refuse what no forward pass could carry out."""
        if not len(self.blocks) == len(self.removed) == len(self.thresholds):
            lengths = (len(self.blocks), len(self.removed), len(self.thresholds))
            raise PlanError("blocks, removed, thresholds", lengths, "of one length")
        if any(b < 0 for b in self.blocks) or list(self.blocks) != sorted(set(self.blocks)):
            raise PlanError("blocks", self.blocks, "ascending indices from 0")
        if any(r < 0 for r in self.removed):
            raise PlanError("removed", self.removed, "counts of at least 0")
        method_named(self.method)
        if any(not t >= 0 for t in self.thresholds):
            raise PlanError("thresholds", self.thresholds, "numbers of at least 0")

    @property
    def dense(self) -> bool:
        """Whether no token is removed at all."""
        return not any(self.removed)

    def tokens(self, tokens: int, prefix: int) -> tuple[int, ...]:
        """Token counts, prefix included: before the first stage and after each.

        Args:
            tokens: N, tokens at the input, prefix included.
            prefix: P, prefix tokens, which are never removed.
        """
        counts = [tokens]
        for wanted in self.removed:
            counts.append(counts[-1] - removable(wanted, counts[-1], prefix))
        return tuple(counts)


DENSE = ReductionPlan()


def removable(wanted: int, tokens: int, prefix: int) -> int:
    """How many of `wanted` tokens can be removed from `tokens`: at most half of the patch tokens."""
    return min(wanted, (tokens - prefix) // 2)


def default_blocks(depth: int, method: str = "ppt") -> tuple[int, ...]:
    """The blocks where a method reduces by default, in a model of `depth` blocks: for `ppt` at 12, (3, 6, 9).

    Raises:
        PlanError: no such method, or a depth under 4, which leaves no three distinct blocks after the first.
    """
    if depth < 4:
        raise PlanError("depth", depth, "at least 4")
    return method_named(method).default_blocks(depth)


def _greedy(patches: int, budget: int, step: int, stages: int) -> tuple[int, ...]:
    """Remove up to `step` at each stage until `budget` is spent; never more than half of the tokens."""
    removed: list[int] = []
    for _ in range(stages):
        take = min(step, budget, patches // 2)
        removed.append(take)
        patches -= take
        budget -= take
    return tuple(removed)


def max_removed(patches: int, stages: int = 3) -> int:
    """The most patch tokens that `stages` stages can remove, half of them at each: 171 of 196 in 3."""
    return sum(_greedy(patches, patches, patches, stages))


def max_ratio(patches: int, stages: int = 3) -> float:
    """The largest reduction ratio for `patches` patch tokens: 171/196 = 0.872 for 196."""
    return max_removed(patches, stages) / patches


def split_evenly(patches: int, budget: int, stages: int) -> tuple[int, ...]:
    """Split `budget` removals over `stages` stages as evenly as possible, with at most half removed at each.

    The even share is ceil(budget / stages). If the last stages cannot take theirs, because half of what is left is
    less, the share grows to the smallest that spends the whole budget.

    Returns:
        The removals per stage; they sum to `budget`.

    Raises:
        PlanError: `budget` is more than :func:`max_removed`.
    """
    most = max_removed(patches, stages)
    if not 0 <= budget <= most:
        raise PlanError("removed", budget, f"between 0 and {most} of {patches} patch tokens")
    for step in range(math.ceil(budget / stages), patches // 2 + 1):
        removed = _greedy(patches, budget, step, stages)
        if sum(removed) == budget:
            return removed
    raise AssertionError("unreachable: half at every stage removes max_removed")


def plan_for_ratio(
    ratio: float,
    *,
    patches: int,
    depth: int,
    blocks: Sequence[int] | None = None,
    thresholds: Sequence[float] | None = None,
    method: str = "ppt",
) -> ReductionPlan:
    """The plan for a reduction ratio.

    Args:
        ratio: ρ, share of the patch tokens that is removed at the output, 0 … :func:`max_ratio`.
        patches: T, patch tokens at the input (196 for 224² and patch 16).
        depth: blocks of the model.
        blocks: the reducing blocks; those of :func:`default_blocks` by default.
        thresholds: one per reducing block; the paper's 7e-5 by default.
        method: a name in :data:`prunepool.reduction.methods.METHODS`.

    Returns:
        The plan; ρ = 0.755 of 196 patches in 12 blocks is (50, 50, 48) at (3, 6, 9), the paper's setting.

    Raises:
        PlanError: the ratio is not a number, is negative or too large, or a block is beyond the depth.
    """
    chosen = tuple(blocks) if blocks is not None else default_blocks(depth, method)
    limits = tuple(thresholds) if thresholds is not None else (DEFAULT_THRESHOLD,) * len(chosen)
    most = max_ratio(patches, len(chosen))
    if not 0 <= ratio <= most + 1e-9:
        # Rounded down, so that the limit that the message names is itself allowed.
        raise PlanError("reduction_ratio", ratio, f"between 0 and {math.floor(most * 1e4) / 1e4}")
    if any(b >= depth for b in chosen):
        raise PlanError("blocks", chosen, f"below the model's depth of {depth}")
    budget = min(round(ratio * patches), max_removed(patches, len(chosen)))
    return ReductionPlan(chosen, split_evenly(patches, budget, len(chosen)), limits, method)
