"""A model's dial: the plan, token counts and cost of every reduction ratio. It needs no weights and no torch."""

from __future__ import annotations

from functools import lru_cache

from prunepool.errors import InvalidParameter, ManifestInvalid
from prunepool.reduction.curve import PlanCurve
from prunepool.reduction.methods import METHODS
from prunepool.reduction.plan import (
    DENSE,
    PlanError,
    ReductionPlan,
    default_blocks,
    max_ratio,
    method_named,
    plan_for_ratio,
)
from prunepool.store import Geometry, Manifest, ProfilePoint
from prunepool.store.manifest import PAPER


class ModelDial:
    """Maps reduction ratios to plans for one model.

    If the manifest's profile holds plans, the dial interpolates between them; otherwise one rule makes all plans.

    Args:
        manifest: of the model.
        geometry: of its network.

    Raises:
        ManifestInvalid: the profile's plans make no dial.
    """

    def __init__(self, manifest: Manifest, geometry: Geometry) -> None:
        self.manifest = manifest
        self.geometry = geometry
        self._curve = _curve_of(manifest, geometry)
        self._plan = lru_cache(maxsize=4096)(self._make_plan)
        self._gmacs = lru_cache(maxsize=4096)(geometry.gmacs)

    @property
    def max_ratio(self) -> float:
        """The largest ratio: half of the tokens at each stage, or the limit of the manifest."""
        if self._curve is None:
            limit = max_ratio(self.geometry.patches, len(self._rule()[1]))
        else:
            limit = self._curve.max_removed / self.geometry.patches
        return min(limit, self.manifest.reduction.max_ratio or limit)

    @property
    def profile(self) -> tuple[ProfilePoint, ...] | None:
        """The measured points of this dial, without those whose plan is not the dial's own."""
        if self.manifest.profile is None:
            return None
        points = [p for p in self.manifest.profile if p.ratio <= self.max_ratio]
        return tuple(p for p in points if not p.removed or plan_of(p) == self.plan(p.ratio))

    def plan(self, ratio: float) -> ReductionPlan:
        """The plan for a ratio, by the manifest's profile or else by its rule.

        Raises:
            InvalidParameter: the ratio is not a number from 0 to :attr:`max_ratio`; names both.
        """
        return self._plan(float(ratio))

    def _make_plan(self, ratio: float) -> ReductionPlan:
        if not 0 <= ratio <= self.max_ratio + 1e-9:
            # Rounded down, so that the limit that the message names is itself allowed.
            limit = int(self.max_ratio * 10_000) / 10_000
            raise InvalidParameter("reduction_ratio", ratio, f"between 0 and {limit}")
        if self._curve is not None:
            return self._curve.plan(min(round(ratio * self.geometry.patches), self._curve.max_removed))
        method, blocks = self._rule()
        paper = self.manifest.reduction.method == PAPER
        try:
            plan = plan_for_ratio(
                ratio,
                patches=self.geometry.patches,
                depth=self.geometry.depth,
                blocks=blocks,
                thresholds=None if paper else self.manifest.reduction.thresholds,
                method=method,
            )
        except PlanError as error:
            raise InvalidParameter(error.parameter, error.value, error.limit) from error
        return DENSE if plan.dense else plan

    def _rule(self) -> tuple[str, tuple[int, ...]]:
        """Method and blocks of a dial without measured plans."""
        reduction = self.manifest.reduction
        if reduction.method == PAPER:
            return "ppt", default_blocks(self.geometry.depth)
        return reduction.method, reduction.blocks or default_blocks(self.geometry.depth, reduction.method)

    def gmacs(self, ratio: float) -> float:
        """Billions of multiply-accumulates for one image at this ratio."""
        return self._gmacs(self.plan(ratio))

    def applied(self, ratio: float) -> float:
        """The share of patch tokens that a ratio's plan actually removes, never more than the ratio."""
        return min(ratio, sum(self.plan(ratio).removed) / self.geometry.patches)

    def tokens(self, plan: ReductionPlan) -> tuple[int, ...]:
        """Token counts, prefix included, before the first and after each reducing block."""
        return plan.tokens(self.geometry.tokens, self.geometry.prefix_tokens)


def plan_of(point: ProfilePoint) -> ReductionPlan:
    """The plan of a profile point that has one.

    Raises:
        PlanError: no forward pass can carry it out.
    """
    method = method_named(point.method).name
    return ReductionPlan(point.blocks or (), point.removed or (), point.thresholds or (), method)


def _curve_of(manifest: Manifest, geometry: Geometry) -> PlanCurve | None:
    try:
        points = [point for point in manifest.planned if sum(point.removed or ())]
        plans = [plan_of(point) for point in points]
        for point in points:
            gone = sum(point.removed or ())
            if round(point.ratio * geometry.patches) != gone:
                share = f"{gone}/{geometry.patches}, the share of patch tokens that its plan removes"
                raise PlanError("ratio", point.ratio, share)
        deepest = max((plan.blocks[-1] for plan in plans), default=0)
        if deepest >= geometry.depth:
            raise PlanError("blocks", deepest, f"below the model's depth of {geometry.depth}")
        return PlanCurve(plans, patches=geometry.patches) if plans else None
    except PlanError as error:
        raise ManifestInvalid(f"{manifest.name}: the profile makes no dial: {error}") from error


def check_served(manifest: Manifest) -> None:
    """Refuse a model whose plans are of a method that is measured, not served.

    Raises:
        ManifestInvalid: names the method, and those that are served.
    """
    named = [manifest.reduction.method, *(point.method for point in manifest.planned)]
    for method in named:
        if method in METHODS and not METHODS[method].served:
            served = ", ".join(name for name, known in METHODS.items() if known.served)
            raise ManifestInvalid(
                f"{manifest.name}: the reduction method {method!r} is for comparison alone and too slow to serve; "
                f"must be one of {served}"
            )
