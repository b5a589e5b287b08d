"""Turn measured figures into the points of a profile."""

from __future__ import annotations

from prunepool.lab.accuracy_figures import AccuracyFigures
from prunepool.reduction.plan import ReductionPlan
from prunepool.store import ProfilePoint, Speed


def point(
    ratio: float, gmacs: float, plan: ReductionPlan | None, f: AccuracyFigures, speed: Speed | None
) -> ProfilePoint:
    """A point of a profile, with figures rounded to their precision.

    Args:
        ratio: of the plan.
        gmacs: of the plan.
        plan: None for the dense model.
        f: its accuracy figures.
        speed: its speed, if it was timed.
    """

    def rounded(value: float | None, digits: int) -> float | None:
        return None if value is None else round(value, digits)

    return ProfilePoint(
        ratio=ratio,
        gmacs=round(gmacs, 6),
        method=None if plan is None else plan.method,
        blocks=None if plan is None else plan.blocks,
        removed=None if plan is None else plan.removed,
        thresholds=None if plan is None else plan.thresholds,
        images=f.images,
        top1=rounded(f.top1, 4),
        top5=rounded(f.top5, 4),
        agreement=round(f.agreement, 4),
        kl=rounded(f.kl, 5),
        drop=round(f.drop, 2),
        intervals={
            name: (round(low, digits), round(high, digits))
            for name, (low, high) in f.intervals.items()
            for digits in (2 if name == "drop" else 5,)
        },
        speed=speed,
    )
