"""A curve of plans: for every number of removed tokens, a plan interpolated between measured ones.

A plan's cost depends only on its cumulative removals: how many tokens have been removed after each block. The curve
interpolates cumulative removals linearly between measured plans. A plan that removes more tokens therefore has no
more tokens at any block than one that removes fewer, and never costs more.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, pairwise

from prunepool.reduction.plan import DENSE, PlanError, ReductionPlan, max_removed, split_evenly


def split_by_shares(patches: int, budget: int, shares: Sequence[float]) -> tuple[int, ...]:
    """Split removals over stages in given proportions, with at most half of the tokens removed at each stage.

    Args:
        patches: T, patch tokens at the input.
        budget: R, tokens to remove in all.
        shares: one for each stage, above 0; only their proportions count.

    Returns:
        The removals per stage; they sum to `budget`. Earlier stages take what later ones cannot. A budget that is
        larger by one never lowers the cumulative removals at any stage.

    Raises:
        PlanError: `budget` is more than half at every stage, or a share is not above 0.
    """
    most = max_removed(patches, len(shares))
    if not 0 <= budget <= most:
        raise PlanError("removed", budget, f"between 0 and {most} of {patches} patch tokens")
    if not all(share > 0 for share in shares):
        raise PlanError("shares", tuple(shares), "numbers above 0")
    total = sum(shares)
    wanted = [round(budget * part / total) for part in accumulate(shares)]
    return _differences(_settled([*wanted[:-1], budget], patches))


def _settled(cumulative: Sequence[int], patches: int) -> list[int]:
    """The nearest cumulative removals in which no stage removes more than half of its tokens; the last stays.

    First, no stage may exceed half at every stage so far. Then, removing at most half of the T − c₍ᵢ₋₁₎ tokens that
    are left means c₍ᵢ₋₁₎ ≥ 2·cᵢ − T: where a stage would remove too many, the earlier ones remove more.
    """
    settled, most = [], 0
    for count in cumulative:
        most = (patches + most) // 2
        settled.append(min(count, most))
    for i in range(len(settled) - 1, 0, -1):
        settled[i - 1] = max(min(settled[i - 1], settled[i]), 2 * settled[i] - patches)
    return settled


def _differences(cumulative: Sequence[int]) -> tuple[int, ...]:
    return tuple(b - a for a, b in pairwise((0, *cumulative)))


class PlanCurve:
    """Plans for every number of removed tokens, interpolated between measured plans.

    Args:
        plans: in ascending order of the tokens that they remove; at most half at each stage.
        patches: T, patch tokens at the input.

    Raises:
        PlanError: there is no plan, a plan removes more than half at a stage, plans do not ascend, or a plan has
            removed fewer tokens after some block than the plan before it.
    """

    def __init__(self, plans: Sequence[ReductionPlan], *, patches: int) -> None:
        if not plans:
            raise PlanError("profile", "no plan", "one plan or more")
        self.patches = patches
        self._blocks = sorted({block for plan in plans for block in plan.blocks})
        last = plans[-1]
        end = _end_after(last, patches)
        self._plans = list(plans) if end is last else [*plans, end]
        self._totals = [0, *map(_total, self._plans)]
        self._curve = [[0] * len(self._blocks), *map(self._cumulative, self._plans)]
        self._measured = list(plans)
        self._check()

    @property
    def max_removed(self) -> int:
        """The most tokens that a plan of the curve can remove."""
        return self._totals[-1]

    def plan(self, removed: int) -> ReductionPlan:
        """The plan that removes a number of tokens.

        A measured plan is returned unchanged. Any other takes its method and thresholds from the nearest measured
        plan. Thresholds are scaled to the number n of tokens at the stage, for the variance of normalised scores
        is proportional to 1/n².

        Raises:
            PlanError: `removed` is negative or more than :attr:`max_removed`.
        """
        if not 0 <= removed <= self.max_removed:
            raise PlanError("removed", removed, f"between 0 and {self.max_removed}")
        if removed == 0:
            return DENSE
        nearest = min(self._measured, key=lambda plan: abs(_total(plan) - removed))
        if _total(nearest) == removed:
            return nearest
        after = bisect_left(self._totals, removed)
        low, high = self._totals[after - 1], self._totals[after]
        share = (removed - low) / (high - low)
        wanted = [
            round(a + share * (b - a))
            for a, b in zip(self._curve[after - 1], self._curve[after], strict=True)
        ]
        counts = _differences(_settled([*wanted[:-1], removed], self.patches))
        stages = [(block, count) for block, count in zip(self._blocks, counts, strict=True) if count]
        blocks, left = zip(*stages, strict=True)
        return ReductionPlan(blocks, left, self._thresholds(nearest, blocks, left), nearest.method)

    def _thresholds(
        self, nearest: ReductionPlan, blocks: Sequence[int], removed: Sequence[int]
    ) -> tuple[float, ...]:
        """The nearest plan's thresholds; at a block where it has none, that of its previous stage."""
        theirs = nearest.tokens(self.patches, 0)
        here = (self.patches, *(self.patches - gone for gone in accumulate(removed)))
        thresholds = []
        for n, block in zip(here, blocks, strict=False):
            stage = max(0, sum(b <= block for b in nearest.blocks) - 1)
            thresholds.append(nearest.thresholds[stage] * (theirs[stage] / n) ** 2)
        return tuple(thresholds)

    def _cumulative(self, plan: ReductionPlan) -> list[int]:
        """Tokens removed up to and including each block of the curve."""
        removed = dict(zip(plan.blocks, plan.removed, strict=True))
        return list(accumulate(removed.get(block, 0) for block in self._blocks))

    def _check(self) -> None:
        for plan in self._measured:
            counts = plan.tokens(self.patches, 0)
            if self.patches - counts[-1] != _total(plan):
                raise PlanError("removed", plan.removed, "at most half of the patch tokens at each stage")
        for i, (before, after) in enumerate(pairwise(self._curve[: len(self._measured) + 1])):
            if self._totals[i] >= self._totals[i + 1]:
                raise PlanError("removed", self._measured[i].removed, "more than in the plan before it")
            if any(a > b for a, b in zip(before, after, strict=True)):
                raise PlanError(
                    "removed",
                    self._measured[i].removed,
                    "such that after each block at least as many tokens are removed as in the plan before it",
                )


def _end_after(last: ReductionPlan, patches: int) -> ReductionPlan:
    """The plan at the end of the curve: it removes as many tokens as the paper's three stages can.

    It is the last measured plan if that removes as many. More stages could remove nearly all tokens, but what that
    costs in accuracy was not measured. The split is even, but never below the measured plan's cumulative removals:
    the larger of two plans' cumulative removals keeps to half at each stage if both plans do.
    """
    stages = len(last.blocks)
    most = max_removed(patches, min(stages, 3))
    if most <= _total(last):
        return last
    even = accumulate(split_evenly(patches, most, stages))
    ahead = [max(pair) for pair in zip(accumulate(last.removed), even, strict=True)]
    return ReductionPlan(last.blocks, _differences(ahead), last.thresholds, last.method)


def _total(plan: ReductionPlan) -> int:
    return sum(plan.removed)
