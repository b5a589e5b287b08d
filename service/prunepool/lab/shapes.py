"""Shapes of plans: at which blocks, in which proportions and by which method tokens are removed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from prunepool.reduction.curve import split_by_shares
from prunepool.reduction.methods import METHODS
from prunepool.reduction.plan import (
    DEFAULT_THRESHOLD,
    ReductionPlan,
    default_blocks,
    max_removed,
    split_evenly,
)
from prunepool.store import Geometry

#: Factors from one stage's removals to the next one's, falling; at a half each stage removes all that it can.
_FACTORS = tuple((750 - i) / 500 for i in range(501))

#: Thresholds on the variance of normalised scores times n², which mean the same at any number n of tokens.
Tau = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """A plan without the number of tokens that it removes.

    Attributes:
        name: as in reports.
        method: its reduction method.
        blocks: the reducing blocks.
        shares: proportions of the removals, one for each block; None for the paper's even split.
        taus: for `ppt`, thresholds on variance · n², one for each block; None for the paper's 7e-5.
    """

    name: str
    method: str
    blocks: tuple[int, ...]
    shares: tuple[float, ...] | None = None
    taus: Tau | None = None

    def plan(self, removed: int, patches: int) -> ReductionPlan:
        """The plan that removes `removed` of `patches` patch tokens.

        Raises:
            PlanError: `removed` is more than half at every stage.
        """
        stages = len(self.blocks)
        if self.shares is None:
            counts = split_evenly(patches, removed, stages)
        else:
            counts = split_by_shares(patches, removed, self.shares)
        limits = (DEFAULT_THRESHOLD if METHODS[self.method].uses_threshold else 0.0,) * stages
        if self.taus is not None:
            seen = (patches, *(patches - gone for gone in accumulate(counts)))
            limits = tuple(tau / n**2 for tau, n in zip(self.taus, seen, strict=False))
        return ReductionPlan(self.blocks, counts, limits, self.method)

    def most(self, patches: int) -> int:
        """The most tokens that the shape can remove."""
        return max_removed(patches, len(self.blocks))

    def within(self, gmacs: float, removed: int, geometry: Geometry) -> Shape | None:
        """The same shape with removals as late as a cost allows, falling by one factor from each stage to the
        next.

        Args:
            gmacs: the limit of the cost.
            removed: tokens to remove in all.
            geometry: of the model.

        Returns:
            None if no factor suffices, or if its blocks cannot remove so many.
        """
        if removed > self.most(geometry.patches):
            return None
        even = replace(self, shares=None)
        if math.isclose(geometry.gmacs(even.plan(removed, geometry.patches)), gmacs):
            return even  # at the paper's blocks, the paper's split
        for factor in _FACTORS:
            shape = replace(self, shares=tuple(factor**i for i in range(len(self.blocks))))
            if geometry.gmacs(shape.plan(removed, geometry.patches)) <= gmacs:
                return shape
        return None


def paper(depth: int) -> Shape:
    """PPT as published: blocks, even split and threshold."""
    return Shape("PPT, the paper's", "ppt", default_blocks(depth))


def candidates(depth: int) -> tuple[Shape, ...]:
    """The shapes that are tried on every model; the paper's own first."""
    paper_blocks = default_blocks(depth)
    quarter, sixth, last = depth // 4, depth // 6, depth - 2
    earlier = tuple(block - 1 for block in paper_blocks)
    spread = {
        f"{first} … {last}{every}": tuple(range(first, last + 1, step))
        for first, step, every in (
            (quarter, 1, ""),
            (quarter, 2, ", every second"),
            (max(1, sixth), 1, ""),
            (max(1, sixth), 2, ", every second"),
        )
    }
    return (
        paper(depth),
        Shape("PPT, a block earlier", "ppt", earlier),
        Shape("prune", "prune", paper_blocks),
        Shape("pool", "pool", paper_blocks),
        Shape("pool at " + next(iter(spread)), "pool", next(iter(spread.values()))),
        Shape("ToMe", "tome", tuple(range(depth))),
        Shape("fuse at the paper's blocks", "fuse", paper_blocks),
        *(Shape(f"fuse at {name}", "fuse", blocks) for name, blocks in spread.items()),
        *(Shape(f"ward at {name}", "ward", blocks) for name, blocks in spread.items()),
    )


def with_tau(shape: Shape, stage: int, tau: float, patches: int, removed: int) -> Shape:
    """The shape with another threshold at one stage.

    Args:
        shape: of method `ppt`.
        stage: index of the stage.
        tau: the threshold on variance · n².
        patches: T, patch tokens at the input.
        removed: tokens that the plan removes at which a threshold of 7e-5 is converted into one on variance ·
            n².
    """
    taus = list(shape.taus or paper_taus(shape, patches, removed))
    taus[stage] = tau
    return replace(shape, name="PPT, thresholds chosen", taus=tuple(taus))


def paper_taus(shape: Shape, patches: int, removed: int) -> Tau:
    """The thresholds of a shape's plan as thresholds on variance · n²."""
    plan = shape.plan(removed, patches)
    seen: Sequence[int] = plan.tokens(patches, 0)
    return tuple(limit * n**2 for limit, n in zip(plan.thresholds, seen, strict=False))
