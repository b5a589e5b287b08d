"""A family of plans: those that one converted pass runs, because they differ in counts and thresholds alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prunepool.models.dial import ModelDial
from prunepool.reduction.plan import DENSE, ReductionPlan
from prunepool.store.geometry import Geometry


@dataclass(frozen=True, slots=True)
class PlanFamily:
    """Plans that one dynamic pass runs: they differ in counts and thresholds alone.

    Attributes:
        method: of every plan.
        blocks: where any plan reduces, ascending.
    """

    method: str
    blocks: tuple[int, ...]

    @classmethod
    def all_of(cls, plans: Iterable[ReductionPlan]) -> list[PlanFamily]:
        """The fewest families that cover these plans; one without blocks where no plan reduces."""
        blocks: dict[str, set[int]] = defaultdict(set)
        for plan in plans:
            if not plan.dense:
                blocks[plan.method] |= set(plan.blocks)
        families = [cls(method, tuple(sorted(where))) for method, where in blocks.items()]
        return families or [cls(DENSE.method, ())]

    def counts(self, plan: ReductionPlan, geometry: Geometry) -> tuple[int, ...] | None:
        """Tokens after each of :attr:`blocks`, prefix included; None for a plan that is not of this family."""
        tokens = plan.tokens(geometry.tokens, geometry.prefix_tokens)
        left = {b: m for b, n, m in zip(plan.blocks, tokens, tokens[1:], strict=False) if m < n}
        if not left:
            return (geometry.tokens,) * len(self.blocks)
        if plan.method != self.method or not left.keys() <= set(self.blocks):
            return None
        counts = [geometry.tokens]
        for block in self.blocks:
            counts.append(left.get(block, counts[-1]))
        return tuple(counts[1:])

    def thresholds(self, plan: ReductionPlan) -> tuple[float, ...]:
        """The plan's threshold at each of :attr:`blocks`; 0 where it does not reduce."""
        limits = dict(zip(plan.blocks, plan.thresholds, strict=True))
        return tuple(limits.get(block, 0.0) for block in self.blocks)


def dial_plans(dial: ModelDial) -> Iterator[ReductionPlan]:
    """Every plan of a dial: one for each number of tokens that it can remove."""
    patches = dial.geometry.patches
    for removed in range(patches + 1):
        yield dial.plan(min(removed / patches, dial.max_ratio))
