"""One row of an evaluation: a setting and its accuracy, measured here or by a server. It needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from prunepool.lab.accuracy_figures import AccuracyFigures
from prunepool.reduction.plan import ReductionPlan

#: The method of the row without reduction.
DENSE_ROW = "dense"


@dataclass(frozen=True, slots=True)
class AccuracyRow:
    """A measured setting.

    Attributes:
        method: see :class:`prunepool.lab.evaluate.Setting`.
        ratio: share of the patch tokens that is removed.
        gmacs: billions of multiply-accumulates for one image; with escalation, for the mean image.
        plan: the plan that was run; None if a server ran it.
        figures: its accuracy figures.
        escalate_below: see :class:`prunepool.lab.evaluate.Setting`.
        escalated: share of the images that were run a second time; None without escalation.
    """

    method: str
    ratio: float
    gmacs: float
    plan: ReductionPlan | None
    figures: AccuracyFigures
    escalate_below: float | None = None
    escalated: float | None = None
