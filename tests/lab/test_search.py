"""Choosing a dial, with losses that a test makes up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunepool.lab.search import Choice, Search, best_path, follows
from prunepool.lab.shapes import Shape, candidates, paper, with_tau
from prunepool.models.loaded_model import LoadedModel
from prunepool.reduction.curve import PlanCurve
from prunepool.reduction.plan import ReductionPlan, default_blocks
from prunepool.store import Geometry

RATIOS = (0.3, 0.5, 0.75)
GEOMETRY = Geometry(
    depth=12,
    width=192,
    heads=3,
    mlp_width=768,
    patch_size=(16, 16),
    patch_grid=(14, 14),
    prefix_tokens=1,
    classes=1000,
)
Loss = Callable[[ReductionPlan], float]


def search(model: LoadedModel, loss: Loss, **options: Any) -> Search:
    def losses(phase: str, plans: Sequence[ReductionPlan]) -> list[float]:
        return [loss(plan) for plan in plans]

    return Search(model.geometry, RATIOS, quick=losses, thorough=losses, **options)


def gone(plan: ReductionPlan) -> int:
    return sum(plan.removed)


def test_what_loses_least_wins(small: LoadedModel) -> None:
    choices = search(small, lambda p: gone(p) / 40 * (0.5 if p.method == "pool" else 1.0)).run()
    assert [choice.ratio for choice in choices] == list(RATIOS)
    assert {choice.plan.method for choice in choices} == {"pool"}


def test_no_other_methods_are_tried_than_those_asked_for(small: LoadedModel) -> None:
    found = search(
        small, lambda p: gone(p) / 40 * (0.5 if p.method == "pool" else 1.0), methods=("ppt", "fuse")
    )
    assert {choice.plan.method for choice in found.run()} <= {"ppt", "fuse"}
    assert {shape.method for shape in found.tried} == {"ppt", "fuse"}
    alone = search(small, lambda p: gone(p) / 40, methods=("fuse",))
    alone.run()
    assert paper(6) in alone.tried, "which everything is held against"


def test_the_paper_wins_where_nothing_beats_it(small: LoadedModel) -> None:
    def loss(plan: ReductionPlan) -> float:
        ours = plan == paper(6).plan(gone(plan), 36)
        return gone(plan) / 40 * (0.5 if ours else 1.0)

    assert {choice.shape for choice in search(small, loss).run()} == {paper(6)}


def test_no_choice_costs_more_than_the_papers_plan(small: LoadedModel) -> None:
    found = search(small, lambda p: 1 / (1 + p.blocks[0]))
    for choice in found.run():
        limit = found.plan(found.paper, choice.ratio)
        assert limit is not None
        assert small.geometry.gmacs(choice.plan) <= small.geometry.gmacs(limit) + 1e-9


def test_choices_make_a_dial(small: LoadedModel) -> None:
    """Whatever the losses are, even where each ratio would rather have a shape of its own."""
    choices = search(small, lambda p: hash((p.blocks, gone(p), p.method)) % 97 / 97 + 0.01).run()
    PlanCurve([choice.plan for choice in choices], patches=36)


def test_thresholds_are_chosen_stage_by_stage(small: LoadedModel) -> None:
    """Pruning is best early and pooling late, whatever the scores."""

    def loss(plan: ReductionPlan) -> float:
        wanted = (0.0, 7e-5, 1.0)
        if plan.method != "ppt":
            return 9.0
        return 0.1 + sum(
            (a < 7e-5) != (b < 7e-5) or (a > 0.01) != (b > 0.01)
            for a, b in zip(plan.thresholds, wanted, strict=True)
        )

    choices = search(small, loss, keep="split").run()
    thresholds = choices[-1].plan.thresholds
    assert thresholds[0] == 0
    assert thresholds[1] == pytest.approx(7e-5)
    assert thresholds[2] > 1


def test_with_the_split_kept_tokens_are_the_papers(small: LoadedModel) -> None:
    found = search(small, lambda p: 1.0 + p.thresholds[0], keep="split")
    for choice in found.run():
        paper_plan = found.plan(found.paper, choice.ratio)
        assert paper_plan is not None
        assert (choice.plan.blocks, choice.plan.removed) == (paper_plan.blocks, paper_plan.removed)


def test_with_the_split_kept_the_method_is_chosen(small: LoadedModel) -> None:
    choices = search(small, lambda p: 0.1 if p.method == "fuse" else 0.2, keep="split").run()
    assert {choice.plan.method for choice in choices} == {"fuse"}


def test_everything_that_was_tried_is_remembered(small: LoadedModel) -> None:
    found = search(small, lambda p: 1.0)
    found.run()
    names = {shape.name for shape in found.tried}
    assert {shape.name for shape in candidates(6)} <= names


def choice(ratio: float, blocks: tuple[int, ...], removed: tuple[int, ...], loss: float) -> Choice:
    plan = ReductionPlan(blocks, removed, (0.0,) * len(blocks))
    return Choice(ratio, paper(12), plan, loss)


def test_a_path_gives_up_the_best_of_one_ratio_for_the_best_of_all() -> None:
    early, late = choice(0.1, (3,), (20,), 0.10), choice(0.1, (6,), (20,), 0.09)
    only_early = choice(0.3, (3, 6), (30, 30), 0.1)
    assert best_path([[early, late], [only_early]]) == [late, only_early]
    after_late = choice(0.3, (6,), (60,), 0.2)
    assert best_path([[early], [after_late, only_early]]) == [early, only_early]
    assert best_path([[choice(0.1, (3,), (40,), 0.01), late], [only_early]]) == [late, only_early]


def test_a_ratio_at_which_nothing_follows_is_left_out() -> None:
    first, second = choice(0.1, (3,), (40,), 0.1), choice(0.3, (6,), (60,), 0.1)
    assert best_path([[first], [second]]) == [first]


plans = st.lists(st.integers(0, 20), min_size=4, max_size=4).map(
    lambda counts: ReductionPlan((2, 4, 6, 8), tuple(counts), (0.0,) * 4)
)


@given(plans, plans)
def test_a_plan_follows_another_where_a_curve_goes_through_both(a: ReductionPlan, b: ReductionPlan) -> None:
    if not gone(a) or not gone(b):
        return
    try:
        PlanCurve([a, b], patches=500)
        curve = True
    except ValueError:
        curve = False
    assert follows(a, b) == curve


@pytest.mark.parametrize("depth", [4, 8, 12, 24, 32])
def test_candidates_fit_every_depth(depth: int) -> None:
    for shape in candidates(depth):
        plan = shape.plan(30, 196)
        assert plan.blocks[-1] < depth
        assert gone(plan) == 30


@pytest.mark.parametrize("removed", [40, 100, 148, 171])
@pytest.mark.parametrize("blocks", [tuple(range(3, 11)), tuple(range(2, 11)), (2, 4, 6, 8, 10)])
def test_removals_are_as_late_as_the_cost_allows(removed: int, blocks: tuple[int, ...]) -> None:
    limit = GEOMETRY.gmacs(paper(12).plan(removed, 196))
    shape = Shape("any", "fuse", blocks)
    fitting = shape.within(limit, removed, GEOMETRY)
    assert fitting is not None
    cost = GEOMETRY.gmacs(fitting.plan(removed, 196))
    assert 0.985 * limit < cost <= limit


def test_removals_that_cannot_be_afforded_are_none() -> None:
    shape = Shape("late", "fuse", (8, 10))
    assert shape.within(GEOMETRY.gmacs(paper(12).plan(100, 196)), 100, GEOMETRY) is None
    assert shape.within(9.9, 171, GEOMETRY) is None


@pytest.mark.parametrize("removed", range(1, 172, 10))
def test_at_the_papers_blocks_and_cost_the_split_is_the_papers(removed: int) -> None:
    limit = GEOMETRY.gmacs(paper(12).plan(removed, 196))
    fitting = Shape("pool", "pool", default_blocks(12)).within(limit, removed, GEOMETRY)
    assert fitting is not None
    assert fitting.plan(removed, 196).removed == paper(12).plan(removed, 196).removed


def test_a_threshold_on_variance_times_n_squared_follows_n() -> None:
    shape = with_tau(paper(12), 1, 2.0, 196, 148)
    at_most, at_less = shape.plan(148, 196), shape.plan(60, 196)
    assert at_most.thresholds == (pytest.approx(7e-5), pytest.approx(2.0 / 146**2), pytest.approx(7e-5))
    assert at_less.thresholds[1] == pytest.approx(2.0 / 176**2)
    assert default_blocks(12) == at_less.blocks
