"""Search for a dial: for each ratio, the plan of least loss within the cost of the paper's plan.

The search knows no images: its caller computes the loss of a plan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from prunepool.lab.shapes import Shape, candidates, paper, with_tau
from prunepool.reduction.methods import METHODS
from prunepool.reduction.plan import ReductionPlan
from prunepool.store import Geometry

#: Computes the losses of plans on the images of one phase, in the order of the plans.
Losses = Callable[[str, Sequence[ReductionPlan]], Sequence[float]]

#: What a search takes from the paper unchanged.
Keep = Literal["split", "plans"]

#: Factors on the threshold of a stage; 0 prunes always, the last pools always.
_FACTORS = (0.0, 1 / 3, 3.0, 1e6)
#: Anchor ratios: shapes are first compared at the costs of these.
_ANCHORS = (0.5, 0.755)
#: A loss below this counts as zero.
_NOTHING = 1e-7


@dataclass(frozen=True, slots=True)
class Choice:
    """The plan chosen for one ratio.

    Attributes:
        ratio: the reduction ratio; the cost of the paper's plan there is the limit.
        shape: the chosen shape.
        plan: its plan.
        loss: on the images that it was chosen on; 0 if nothing was chosen.
    """

    ratio: float
    shape: Shape
    plan: ReductionPlan
    loss: float


class Search:
    """Searches for the best dial.

    Args:
        geometry: of the model.
        ratios: ratios for which plans are chosen; ascending, above 0.
        quick: computes losses on few images, to discard shapes.
        thorough: computes losses on all images to choose on.
        keep: what is taken from the paper unchanged: its `split` over its blocks, so that only the method is
            chosen; or its `plans`, so that nothing is chosen.
        methods: names of the methods whose shapes are tried beside the paper's plans.
    """

    def __init__(
        self,
        geometry: Geometry,
        ratios: Sequence[float],
        *,
        quick: Losses,
        thorough: Losses,
        keep: Keep | None = None,
        methods: Collection[str] = tuple(METHODS),
    ) -> None:
        self._geometry = geometry
        self._ratios = tuple(ratios)
        self._quick = quick
        self._thorough = thorough
        self._keep = keep
        self._methods = frozenset(methods)
        self.paper = paper(geometry.depth)
        #: Every shape that was tried, with its losses at the anchor ratios, for the record.
        self.tried: dict[Shape, tuple[float, ...]] = {}

    def plan(self, shape: Shape, ratio: float) -> ReductionPlan | None:
        """A shape's plan for a ratio, within the cost of the paper's plan; None if there is none."""
        geometry = self._geometry
        removed = round(ratio * geometry.patches)
        fitting = shape.within(geometry.gmacs(self.paper.plan(removed, geometry.patches)), removed, geometry)
        return None if fitting is None else fitting.plan(removed, geometry.patches)

    def run(self) -> list[Choice]:
        """Choose a plan for each ratio."""
        shapes = self._finalists()
        wanted = [
            (ratio, shape, plan)
            for ratio in self._ratios
            for shape in shapes
            if (plan := self.plan(shape, ratio)) is not None
        ]
        if self._keep == "plans":
            return [Choice(*found, 0.0) for found in wanted]
        losses = self._thorough("all ratios", [plan for _, _, plan in wanted])
        choices = [Choice(*found, loss) for found, loss in zip(wanted, losses, strict=True)]
        return best_path([[c for c in choices if c.ratio == ratio] for ratio in self._ratios])

    def _finalists(self) -> list[Shape]:
        if self._keep == "plans":
            return [self.paper]
        shapes = tuple(
            shape
            for shape in candidates(self._geometry.depth)
            if shape.method in self._methods or shape == self.paper
        )
        if self._keep == "split":
            shapes = tuple(shape for shape in shapes if shape.blocks == self.paper.blocks)
        best = self._rank(shapes, "shapes")[0]
        if METHODS[best.method].uses_threshold:
            self._rank([self._tuned()], "thresholds")
            best = min(self.tried, key=self._total)
        return list(dict.fromkeys([best, self.paper]))

    def _rank(self, shapes: Sequence[Shape], phase: str) -> list[Shape]:
        """The shapes by their loss at the anchor ratios, the best first."""
        anchors = self._anchors()
        plans = {(s, r): plan for s in shapes for r in anchors if (plan := self.plan(s, r)) is not None}
        loss = dict(zip(plans, self._quick(phase, list(plans.values())), strict=True))
        for shape in shapes:
            self.tried[shape] = tuple(loss.get((shape, ratio), math.inf) for ratio in anchors)
        return sorted(shapes, key=self._total)

    def _total(self, shape: Shape) -> float:
        """The sum of relative losses, so that a ratio at which all lose much does not dominate."""
        return sum(math.log(max(loss, _NOTHING)) for loss in self.tried[shape])

    def _anchors(self) -> tuple[float, ...]:
        """The ratios next to the usual anchors."""
        return tuple(sorted({min(self._ratios, key=lambda r: abs(r - a)) for a in _ANCHORS}))

    def _tuned(self) -> Shape:
        """The paper's plans with the thresholds of least loss at the last anchor, chosen stage by stage."""
        patches = self._geometry.patches
        ratio = self._anchors()[-1]
        removed = round(ratio * patches)
        best = self.paper
        at_best = self.tried[best][-1] if best in self.tried else math.inf
        for stage in reversed(range(len(best.blocks))):
            own = self.paper.plan(removed, patches)
            tau = own.thresholds[stage] * own.tokens(patches, 0)[stage] ** 2
            options = [with_tau(best, stage, factor * tau, patches, removed) for factor in _FACTORS]
            plans = [option.plan(removed, patches) for option in options]
            losses = self._quick(f"threshold {stage + 1}", plans)
            least = min(range(len(options)), key=lambda i: losses[i])
            if losses[least] < at_best:
                best, at_best = options[least], losses[least]
        return best


def best_path(table: Sequence[Sequence[Choice]]) -> list[Choice]:
    """The choices, one for each ratio, that make a dial and have the least relative loss together.

    A larger ratio of a dial must never cost more: from ratio to ratio more tokens are removed in all, and no
    fewer up to any block. A ratio that no choice can continue is left out.

    Args:
        table: the possible choices for each ratio, ascending.
    """
    # For each choice: the loss of the best path that ends in it, and that path.
    paths: list[tuple[float, list[Choice]]] = [(0.0, [])]
    for column in table:
        longer = []
        for choice in column:
            cost = math.log(max(choice.loss, _NOTHING))
            fitting = [p for p in paths if not p[1] or follows(p[1][-1].plan, choice.plan)]
            if fitting:
                before = min(fitting, key=lambda p: p[0])
                longer.append((before[0] + cost, [*before[1], choice]))
        paths = longer or paths
    return min(paths, key=lambda p: p[0])[1]


def follows(before: ReductionPlan, after: ReductionPlan) -> bool:
    """Whether a plan can follow another one on a dial."""
    if sum(before.removed) >= sum(after.removed):
        return False
    blocks = sorted({*before.blocks, *after.blocks})
    first, second = (dict(zip(p.blocks, p.removed, strict=True)) for p in (before, after))
    gone_before = accumulate(first.get(block, 0) for block in blocks)
    gone_after = accumulate(second.get(block, 0) for block in blocks)
    return all(a <= b for a, b in zip(gone_before, gone_after, strict=True))
