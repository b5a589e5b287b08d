"""Calibrate a model: choose the plans of its dial on one half of some images, and measure them on the other
half.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from prunepool.errors import InvalidParameter
from prunepool.lab.accuracy_figures import figures, mean_divergence
from prunepool.lab.accuracy_row import DENSE_ROW, AccuracyRow
from prunepool.lab.evaluate import DIAL
from prunepool.lab.images import Crops
from prunepool.lab.journal import Journal
from prunepool.lab.measure import measure
from prunepool.lab.plan_speed import time_plans
from prunepool.lab.profile import point
from prunepool.lab.search import Choice, Keep, Search
from prunepool.lab.shapes import Shape
from prunepool.models.loaded_model import LoadedModel
from prunepool.reduction.methods import METHODS
from prunepool.reduction.plan import DENSE, ReductionPlan, max_ratio
from prunepool.store import ProfilePoint

#: Ratios of the profile's points; the cost of the paper's plan is the limit at each.
GRID = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.755, 0.8, 0.87)
#: Images that suffice to rank shapes by divergence.
_QUICK_IMAGES = 128

#: Starts a progress bar with a name and a length in (image, plan) pairs; returns the function that advances it.
Begin = Callable[[str, int], Callable[[int], object]]


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The result of a calibration.

    Attributes:
        choices: the chosen plan of each ratio.
        before: the dense model, and the paper's plan at each ratio.
        after: the dense model, and the chosen plan at each ratio, on the same images.
        tried: the losses of each shape that was tried, at the anchor ratios.
        points: of the profile.
    """

    choices: Sequence[Choice]
    before: Sequence[AccuracyRow]
    after: Sequence[AccuracyRow]
    tried: dict[Shape, tuple[float, ...]] = field(default_factory=dict)
    points: Sequence[ProfilePoint] = ()


def calibrate(
    model: LoadedModel,
    choose: Sequence[Crops],
    report: Sequence[Crops],
    *,
    journal: Journal,
    begin: Begin,
    seed: int,
    ratios: Sequence[float] = GRID,
    keep: Keep | None = None,
    methods: Collection[str] = tuple(METHODS),
    speed_rounds: int = 5,
) -> Calibrated:
    """Calibrate a model.

    Args:
        model: the model to calibrate.
        choose: images to choose on, by divergence from the dense model; their labels are not used.
        report: images to measure on.
        journal: earlier measurements.
        begin: starts a progress bar.
        seed: of the bootstrap.
        ratios: ratios for which plans are chosen.
        keep: what is taken from the paper unchanged; see :class:`Search`.
        methods: names of the methods whose shapes are tried.
        speed_rounds: timings of each plan; 0 for none.

    Raises:
        InvalidParameter: the paper's plans cannot reach a ratio.
    """
    geometry = model.geometry
    limit = max_ratio(geometry.patches)
    for ratio in ratios:
        if not 0 < ratio <= limit + 1e-9:
            raise InvalidParameter("ratios", ratio, f"above 0 and at most {int(limit * 1e4) / 1e4}")

    def losses_on(batches: Sequence[Crops]) -> Callable[[str, Sequence[ReductionPlan]], list[float]]:
        def losses(phase: str, plans: Sequence[ReductionPlan]) -> list[float]:
            total = sum(len(batch.pixels) for batch in batches) * len(set(plans))
            found = measure(model, batches, plans, journal=journal, advance=begin(phase, total))
            return [mean_divergence(found[plan]) for plan in plans]

        return losses

    search = Search(
        geometry,
        ratios,
        quick=losses_on(_first(choose, _QUICK_IMAGES)),
        thorough=losses_on(choose),
        keep=keep,
        methods=methods,
    )
    choices = search.run()
    papers = [plan for choice in choices if (plan := search.plan(search.paper, choice.ratio)) is not None]
    plans = [DENSE, *papers, *(choice.plan for choice in choices)]
    total = sum(len(batch.pixels) for batch in report) * len(set(plans))
    answers = measure(model, report, plans, journal=journal, advance=begin("report", total))
    found = {plan: figures(answers[plan], answers[DENSE], seed=seed) for plan in answers}

    def row(method: str, plan: ReductionPlan) -> AccuracyRow:
        share = sum(plan.removed) / geometry.patches
        return AccuracyRow(method, share, geometry.gmacs(plan), plan, found[plan])

    speeds = time_plans(model, [choice.plan for choice in choices], rounds=speed_rounds)
    dense = row(DENSE_ROW, DENSE)
    return Calibrated(
        choices=choices,
        before=[dense, *(row("ppt", plan) for plan in papers)],
        after=[dense, *(row(DIAL, choice.plan) for choice in choices)],
        tried=dict(search.tried),
        points=[
            point(0.0, geometry.gmacs(DENSE), None, found[DENSE], None),
            *(
                point(
                    choice.ratio,
                    geometry.gmacs(choice.plan),
                    choice.plan,
                    found[choice.plan],
                    speeds.get(choice.plan),
                )
                for choice in choices
            ),
        ],
    )


def _first(batches: Sequence[Crops], images: int) -> Sequence[Crops]:
    """The first batches that together hold this number of images, or all batches."""
    taken, count = [], 0
    for batch in batches:
        if count >= images:
            break
        taken.append(batch)
        count += len(batch.pixels)
    return taken
