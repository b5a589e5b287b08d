"""Evaluate the accuracy of reduction ratios, by the model's own dial and by other methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from prunepool.errors import InvalidParameter
from prunepool.lab.accuracy_figures import figures
from prunepool.lab.accuracy_row import DENSE_ROW, AccuracyRow
from prunepool.lab.environment import environment
from prunepool.lab.images import Crops
from prunepool.lab.measure import measure
from prunepool.lab.model_outputs import ModelOutputs
from prunepool.models.loaded_model import LoadedModel
from prunepool.reduction.methods import METHODS
from prunepool.reduction.plan import (
    DENSE,
    PlanError,
    ReductionPlan,
    default_blocks,
    max_removed,
    plan_for_ratio,
)
from prunepool.store import Geometry

#: The model's own dial, as it is served; the others are :data:`prunepool.reduction.methods.METHODS`.
DIAL = "dial"


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting to measure.

    Attributes:
        method: `dial`, or the method whose default rule made the plan; `dense` for no reduction.
        ratio: share of the patch tokens that is removed.
        plan: its plan.
        escalate_below: images with a smaller margin get the dense model's prediction; None for no escalation.
    """

    method: str
    ratio: float
    plan: ReductionPlan
    escalate_below: float | None = None


def settings_of(
    model: LoadedModel,
    methods: Sequence[str],
    ratios: Sequence[float],
    *,
    match_gmacs: bool = False,
    escalate_below: Sequence[float] = (),
) -> list[Setting]:
    """The settings to measure: the dense model first, then each method at each ratio.

    Args:
        model: provides the dial and the geometry.
        methods: `dial`, or names of methods.
        ratios: in any order; 0 is covered by the dense model.
        match_gmacs: whether to take, instead of the ratio, each method's smallest reduction that costs no more
            than PPT's plan at that ratio.
        escalate_below: margins with which each method and ratio is measured in addition.

    Raises:
        InvalidParameter: a method cannot reach a ratio or a cost.
    """
    settings = [Setting(DENSE_ROW, 0.0, DENSE)]
    for method in methods:
        for ratio in ratios:
            plan = _plan(model, method, ratio, match_gmacs)
            if not plan.dense:
                share = sum(plan.removed) / model.geometry.patches
                settings += [Setting(method, share, plan, below) for below in (None, *escalate_below)]
    return settings


def _plan(model: LoadedModel, method: str, ratio: float, match_gmacs: bool) -> ReductionPlan:
    geometry = model.geometry

    def by_rule(method: str, ratio: float) -> ReductionPlan:
        try:
            return plan_for_ratio(ratio, patches=geometry.patches, depth=geometry.depth, method=method)
        except PlanError as error:
            raise InvalidParameter(error.parameter, error.value, f"{error.limit} for {method}") from error

    make, most = model.plan, int(model.max_ratio * geometry.patches + 1e-9)
    if method != DIAL:
        if method not in METHODS:
            raise InvalidParameter("method", method, f"{DIAL}, {', '.join(METHODS)}")
        make = lambda ratio: by_rule(method, ratio)  # noqa: E731 - it stands in for model.plan
        most = max_removed(geometry.patches, len(default_blocks(geometry.depth, method)))
    if not match_gmacs:
        return make(ratio)
    limit = geometry.gmacs(by_rule("ppt", ratio))
    return cheapest_within(limit, lambda removed: make(removed / geometry.patches), most, geometry)


def cheapest_within(
    gmacs: float, make: Callable[[int], ReductionPlan], most: int, geometry: Geometry
) -> ReductionPlan:
    """The plan that removes the fewest tokens among those within a cost.

    Args:
        gmacs: the limit of the cost.
        make: returns the plan for a number of removed tokens; removing more never costs more.
        most: the largest number that `make` accepts.
        geometry: computes their cost.

    Raises:
        InvalidParameter: even the largest reduction costs more.
    """
    least = geometry.gmacs(make(most))
    if least > gmacs + 1e-12:
        limit = f"at least {least:.4f}, what the largest reduction costs"
        raise InvalidParameter("gmacs", round(gmacs, 4), limit)
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        if geometry.gmacs(make(middle)) <= gmacs + 1e-12:
            high = middle
        else:
            low = middle + 1
    return make(high)


def evaluate(
    model: LoadedModel,
    batches: Iterable[Crops],
    settings: Sequence[Setting],
    *,
    seed: int,
    advance: Callable[[int], object] = lambda count: None,
) -> list[AccuracyRow]:
    """Measure settings, each compared with the dense model on the same images.

    Args:
        model: the model to measure.
        batches: the images.
        settings: from :func:`settings_of`.
        seed: of the bootstrap.
        advance: called with the number of (image, plan) pairs that were completed.
    """
    answers = measure(model, batches, [DENSE, *(s.plan for s in settings)], advance=advance)
    return [_row(model, setting, answers, seed) for setting in settings]


def _row(
    model: LoadedModel, setting: Setting, answers: Mapping[ReductionPlan, ModelOutputs], seed: int
) -> AccuracyRow:
    dense, found = answers[DENSE], answers[setting.plan]
    gmacs, again = model.geometry.gmacs(setting.plan), None
    if (below := setting.escalate_below) is not None:
        assert found.margin is not None
        again = float((found.margin < below).mean())
        gmacs += again * model.geometry.gmacs(DENSE)
        found = found.escalated(dense, below)
    shown = figures(found, dense, seed=seed)
    return AccuracyRow(setting.method, setting.ratio, gmacs, setting.plan, shown, below, again)


def report(model: LoadedModel, rows: Sequence[AccuracyRow], *, seed: int) -> dict[str, object]:
    """Rows and the conditions they were measured under, JSON-serialisable."""
    return {
        "model": model.name,
        "architecture": model.manifest.architecture,
        "weights_sha256": model.manifest.weights.sha256,
        "dtype": str(model.dtype).removeprefix("torch."),
        "seed": seed,
        "environment": environment(model.device),
        "rows": [asdict(row) for row in rows],
    }
