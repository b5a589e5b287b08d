"""What each setting of the dial costs in accuracy, for the model's own dial and for other methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from prunepool.errors import InvalidParameter
from prunepool.lab.accuracy_figures import AccuracyFigures, figures
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
DENSE_ROW = "dense"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting to be measured.

    Attributes:
        method: `dial`, or the method whose default rule made the plan; `dense` for no reduction.
        ratio: share of the patch tokens that leave.
        plan: what it comes to.
        escalate_below: images of a smaller margin get the dense model's answer; None: none.
    """

    method: str
    ratio: float
    plan: ReductionPlan
    escalate_below: float | None = None


@dataclass(frozen=True, slots=True)
class AccuracyRow:
    """One measured setting.

    Attributes:
        method: see :class:`Setting`.
        ratio: share of the patch tokens that leave.
        gmacs: billions of multiply-accumulates for one image; with escalation, for the mean image.
        plan: what was run; None where a server did it.
        figures: what came of it.
        escalate_below: see :class:`Setting`.
        escalated: share of the images that were run a second time; None without escalation.
    """

    method: str
    ratio: float
    gmacs: float
    plan: ReductionPlan | None
    figures: AccuracyFigures
    escalate_below: float | None = None
    escalated: float | None = None


def settings_of(
    model: LoadedModel,
    methods: Sequence[str],
    ratios: Sequence[float],
    *,
    match_gmacs: bool = False,
    escalate_below: Sequence[float] = (),
) -> list[Setting]:
    """What is to be measured: the dense model first, then each method at each ratio.

    Args:
        model: whose dial and geometry.
        methods: `dial` or a method.
        ratios: ascending or not; 0 is left to the dense model.
        match_gmacs: instead of the ratios themselves take, for each method, the smallest reduction that
            costs no more than PPT's plan does at that ratio.
        escalate_below: each method and ratio is also measured with these margins.

    Raises:
        InvalidParameter: a ratio that a method cannot do, or a cost that it cannot come down to.
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
    """The plan that removes the fewest tokens among those that cost no more than this.

    Args:
        gmacs: the limit.
        make: the plan for a number of removed tokens; more never cost more.
        most: the most tokens that it can be asked for.
        geometry: prices them.

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
    """Measure settings, each against the dense model on the same images.

    Args:
        model: whose.
        batches: the images.
        settings: which, :func:`settings_of`.
        seed: of the bootstrap.
        advance: called with how many (image, plan) pairs came off.
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
    """Rows and all that must be known to read them, JSON-serialisable."""
    return {
        "model": model.name,
        "architecture": model.manifest.architecture,
        "weights_sha256": model.manifest.weights.sha256,
        "dtype": str(model.dtype).removeprefix("torch."),
        "seed": seed,
        "environment": environment(model.device),
        "rows": [asdict(row) for row in rows],
    }
