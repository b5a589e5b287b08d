"""`prunepool` with the reduction switched off behind the same API: every image runs dense, whatever is asked."""

from __future__ import annotations

from prunepool.cli import main
from prunepool.models.model import Model
from prunepool.reduction.plan import DENSE, ReductionPlan


def dense(self: Model, ratio: float) -> ReductionPlan:
    return DENSE


Model.plan = dense  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
