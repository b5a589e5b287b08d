"""`prunepool` with the reduction switched off behind the same API: every image runs dense."""

from __future__ import annotations

from prunepool.cli import main
from prunepool.models.loaded_model import LoadedModel
from prunepool.reduction.plan import DENSE, ReductionPlan


def dense(self: LoadedModel, ratio: float) -> ReductionPlan:
    return DENSE


LoadedModel.plan = dense  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
