"""A model's dial: from a reduction ratio to a plan, its tokens and its cost. Needs no weights."""

from __future__ import annotations

from functools import lru_cache

from prunepool.errors import InvalidParameter
from prunepool.models.geometry import Geometry
from prunepool.ppt.plan import DENSE, PlanError, ReductionPlan, max_ratio, plan_for_ratio
from prunepool.store import Manifest


class ModelDial:
    """What each setting of the ratio means for one model.

    Args:
        manifest: what the store says of the model.
        geometry: the numbers of its network.
    """

    def __init__(self, manifest: Manifest, geometry: Geometry) -> None:
        self.manifest = manifest
        self.geometry = geometry
        self._plan = lru_cache(maxsize=4096)(self._make_plan)
        self._gmacs = lru_cache(maxsize=4096)(geometry.gmacs)

    @property
    def max_ratio(self) -> float:
        """The largest ratio: what half of the tokens at each stage allows, or less by manifest."""
        stages = len(self.manifest.reduction.blocks or (0, 0, 0))
        limit = max_ratio(self.geometry.patches, stages)
        return min(limit, self.manifest.reduction.max_ratio or limit)

    def plan(self, ratio: float) -> ReductionPlan:
        """The plan for a ratio, with the blocks and thresholds that the manifest gives.

        Raises:
            InvalidParameter: the ratio is not a number from 0 to :attr:`max_ratio`; names both.
        """
        return self._plan(float(ratio))

    def _make_plan(self, ratio: float) -> ReductionPlan:
        if not 0 <= ratio <= self.max_ratio + 1e-9:
            # Rounded down, so that the limit that the message names is itself allowed.
            limit = int(self.max_ratio * 10_000) / 10_000
            raise InvalidParameter("reduction_ratio", ratio, f"between 0 and {limit}")
        reduction = self.manifest.reduction
        try:
            plan = plan_for_ratio(
                ratio,
                patches=self.geometry.patches,
                depth=self.geometry.depth,
                blocks=reduction.blocks,
                thresholds=reduction.thresholds,
            )
        except PlanError as error:
            raise InvalidParameter(error.parameter, error.value, error.limit) from error
        return DENSE if plan.dense else plan

    def gmacs(self, ratio: float) -> float:
        """Billions of multiply-accumulates for one image at this ratio."""
        return self._gmacs(self.plan(ratio))

    def applied(self, ratio: float) -> float:
        """The share of patch tokens that a ratio's plan really removes, and never more than the ratio."""
        return min(ratio, sum(self.plan(ratio).removed) / self.geometry.patches)

    def tokens(self, plan: ReductionPlan) -> tuple[int, ...]:
        """Token counts, prefix included, before the first and after each reducing block."""
        return plan.tokens(self.geometry.tokens, self.geometry.prefix)
