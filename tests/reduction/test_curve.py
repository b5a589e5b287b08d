"""The dial through measured plans: exact at them, and removing more never costs more."""

from __future__ import annotations

import itertools
import math
from itertools import accumulate

import pytest
from budget import examples
from hypothesis import assume, example, given
from hypothesis import strategies as st

from prunepool.reduction.curve import PlanCurve, split_by_shares
from prunepool.reduction.plan import (
    DENSE,
    PlanError,
    ReductionPlan,
    max_removed,
    plan_for_ratio,
    split_evenly,
)

T = 196

shares = st.lists(st.floats(0.05, 1), min_size=1, max_size=9)


def gone_after_each_block(plan: ReductionPlan, depth: int = 12) -> list[int]:
    removed = dict(zip(plan.blocks, plan.removed, strict=True))
    return list(accumulate(removed.get(block, 0) for block in range(depth)))


def fits(removed: tuple[int, ...], patches: int) -> bool:
    left = patches
    for count in removed:
        if not 0 <= count <= left // 2:
            return False
        left -= count
    return True


@given(patches=st.integers(2, 800), shares=shares, part=st.floats(0, 1))
def test_a_split_spends_its_budget_within_the_bounds(patches: int, shares: list[float], part: float) -> None:
    budget = int(part * max_removed(patches, len(shares)))
    removed = split_by_shares(patches, budget, shares)
    assert sum(removed) == budget
    assert fits(removed, patches)


@given(shares=shares, part=st.floats(0, 1))
def test_one_more_token_lowers_no_cumulative_removal(shares: list[float], part: float) -> None:
    budget = int(part * (max_removed(T, len(shares)) - 1))
    low, high = (accumulate(split_by_shares(T, budget + more, shares)) for more in (0, 1))
    assert all(a <= b for a, b in zip(low, high, strict=True))


def test_where_nothing_is_in_the_way_the_shares_are_met() -> None:
    assert split_by_shares(T, 120, (3, 2, 1)) == (60, 40, 20)


def test_what_late_stages_cannot_take_earlier_ones_take() -> None:
    assert split_by_shares(T, 148, (1, 1, 2)) == (37, 63, 48)
    assert split_by_shares(T, 105, (18, 1)) == (98, 7)


@pytest.mark.parametrize("budget", [-1, 172])
def test_a_budget_out_of_bounds_names_the_limit(budget: int) -> None:
    with pytest.raises(PlanError, match="removed must be between 0 and 171 of 196 patch tokens"):
        split_by_shares(T, budget, (1, 1, 1))


@pytest.mark.parametrize("share", [0.0, -1.0, math.nan])
def test_a_share_of_nothing_is_refused(share: float) -> None:
    with pytest.raises(PlanError, match="shares must be numbers above 0"):
        split_by_shares(T, 10, (1.0, share))


block_sets = st.sets(st.integers(0, 11), min_size=1, max_size=9).map(sorted)


@st.composite
def measured(draw: st.DrawFn) -> list[ReductionPlan]:
    """One to four plans that ascend, each with blocks, proportions and thresholds of its own."""
    plans: list[ReductionPlan] = []
    for _ in range(draw(st.integers(1, 4))):
        blocks = draw(block_sets)
        most = max_removed(T, len(blocks))
        removed = draw(st.integers(1, most))
        weights = draw(st.lists(st.floats(0.05, 1), min_size=len(blocks), max_size=len(blocks)))
        counts = split_by_shares(T, removed, weights)
        limits = draw(st.lists(st.floats(0, 1e-3), min_size=len(blocks), max_size=len(blocks)))
        plan = ReductionPlan(tuple(blocks), counts, tuple(limits), draw(st.sampled_from(["ppt", "fuse"])))
        before = gone_after_each_block(plans[-1]) if plans else [0] * 12
        after = gone_after_each_block(plan)
        if before[-1] < after[-1] and all(a <= b for a, b in zip(before, after, strict=True)):
            plans.append(plan)
    assume(plans)
    return plans


@given(plans=measured())
@examples(0.5)
def test_every_plan_of_the_curve_removes_what_was_asked(plans: list[ReductionPlan]) -> None:
    curve = PlanCurve(plans, patches=T)
    assert curve.max_removed == max(sum(plans[-1].removed), max_removed(T, min(3, len(plans[-1].blocks))))
    for removed in range(curve.max_removed + 1):
        plan = curve.plan(removed)
        assert sum(plan.removed) == removed
        assert fits(plan.removed, T)


@given(plans=measured())
@example(plans=[ReductionPlan((0, 1, 2, 3), (94, 51, 18, 9), (0.0,) * 4)])
@examples(0.5)
def test_one_more_token_lowers_no_cumulative_removal_of_the_curve(plans: list[ReductionPlan]) -> None:
    curve = PlanCurve(plans, patches=T)
    gone = [gone_after_each_block(curve.plan(removed)) for removed in range(curve.max_removed + 1)]
    for before, after in itertools.pairwise(gone):
        assert all(a <= b for a, b in zip(before, after, strict=True))


@given(plans=measured())
def test_measured_plans_are_met_exactly(plans: list[ReductionPlan]) -> None:
    curve = PlanCurve(plans, patches=T)
    assert all(curve.plan(sum(plan.removed)) is plan for plan in plans)
    assert curve.plan(0) is DENSE


def test_one_plan_is_scaled() -> None:
    curve = PlanCurve([ReductionPlan((3, 6, 9), (60, 40, 20), (1e-4, 2e-4, 3e-4))], patches=T)
    plan = curve.plan(60)
    assert plan.removed == (30, 20, 10)
    # 196 and 196 tokens come to the first stage; 136 and 166 to the second; 96 and 146 to the third.
    assert plan.thresholds == pytest.approx((1e-4, 2e-4 * (136 / 166) ** 2, 3e-4 * (96 / 146) ** 2))


def test_between_two_plans_the_nearest_decides_the_method() -> None:
    few = ReductionPlan((6,), (20,), (1e-4,), "ppt")
    many = ReductionPlan((3, 6, 9), (40, 40, 40), (0.0,) * 3, "fuse")
    curve = PlanCurve([few, many], patches=T)
    assert (curve.plan(60).method, curve.plan(90).method) == ("ppt", "fuse")
    assert curve.plan(70).blocks == (3, 6, 9)


def test_the_papers_plans_are_a_curve() -> None:
    plans = [plan_for_ratio(ratio, patches=T, depth=12) for ratio in (0.3, 0.5, 0.755)]
    assert PlanCurve(plans, patches=T).plan(148) == plans[-1]


@pytest.mark.parametrize(
    ("plans", "message"),
    [
        ([], "profile must be one plan or more"),
        ([ReductionPlan((3,), (99,), (0.0,))], "at most half of the patch tokens at each stage"),
        ([ReductionPlan((3,), (9,), (0.0,))] * 2, "more than in the plan before it"),
        (
            [ReductionPlan((3,), (50,), (0.0,)), ReductionPlan((6,), (60,), (0.0,))],
            "at least as many tokens are removed",
        ),
    ],
)
def test_plans_that_make_no_curve_are_refused(plans: list[ReductionPlan], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        PlanCurve(plans, patches=T)


@pytest.mark.parametrize("removed", [-1, 172])
def test_more_than_there_is_is_refused(removed: int) -> None:
    with pytest.raises(PlanError, match="removed must be between 0 and 171"):
        PlanCurve([ReductionPlan((3, 6, 9), (9, 9, 9), (0.0,) * 3)], patches=T).plan(removed)


def test_the_largest_plan_takes_half_at_each_stage() -> None:
    curve = PlanCurve([ReductionPlan((3, 6, 9), (9, 9, 9), (0.0,) * 3)], patches=T)
    assert curve.plan(171).removed == split_evenly(T, 171, 3)


def test_many_stages_end_where_the_papers_three_do() -> None:
    curve = PlanCurve([ReductionPlan(tuple(range(3, 11)), (12,) * 8, (0.0,) * 8)], patches=T)
    assert curve.max_removed == max_removed(T, 3)


def test_what_was_measured_beyond_that_is_the_end() -> None:
    last = ReductionPlan(tuple(range(3, 11)), (60, 40, 30, 20, 10, 10, 5, 5), (0.0,) * 8)
    assert PlanCurve([last], patches=T).max_removed == 180


def test_every_pair_of_shares_is_independent_of_their_sum() -> None:
    for a, b in itertools.product((1, 3), repeat=2):
        assert split_by_shares(T, 90, (a, b)) == split_by_shares(T, 90, (10 * a, 10 * b))
