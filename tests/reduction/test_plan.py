"""Plans: the paper's settings, the bounds, and what must hold for every ratio."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunepool.reduction.plan import (
    PlanError,
    ReductionPlan,
    default_blocks,
    max_ratio,
    max_removed,
    plan_for_ratio,
    split_evenly,
)


def test_paper_setting() -> None:
    plan = plan_for_ratio(0.755, patches=196, depth=12)
    assert plan == ReductionPlan((3, 6, 9), (50, 50, 48), (7e-5, 7e-5, 7e-5))
    assert plan.tokens(197, 1) == (197, 147, 97, 49)


def test_explicit_removals_are_clipped_to_half_of_the_patches() -> None:
    plan = ReductionPlan((3, 6, 9), (65, 65, 65), (7e-5,) * 3)
    assert plan.tokens(197, 1) == (197, 132, 67, 34)


@pytest.mark.parametrize(("depth", "blocks"), [(12, (3, 6, 9)), (24, (6, 12, 18)), (4, (1, 2, 3))])
def test_default_blocks(depth: int, blocks: tuple[int, ...]) -> None:
    assert default_blocks(depth) == blocks


def test_other_methods_have_other_blocks() -> None:
    assert default_blocks(12, "tome") == tuple(range(12))
    assert default_blocks(12, "fuse") == tuple(range(3, 11))
    assert default_blocks(12, "topk") == (3, 6, 9)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(PlanError, match="method must be one of ppt, prune, pool"):
        ReductionPlan(method="magic")


def test_default_blocks_need_four() -> None:
    with pytest.raises(PlanError, match="depth must be at least 4; got 3"):
        default_blocks(3)


def test_largest_ratio_for_224() -> None:
    assert max_removed(196) == 171
    assert max_ratio(196) == pytest.approx(171 / 196)


@pytest.mark.parametrize("ratio", [0.8725, 1.0, -0.01, math.nan, math.inf])
def test_ratio_out_of_bounds_names_the_limit(ratio: float) -> None:
    with pytest.raises(PlanError, match=r"reduction_ratio must be between 0 and 0\.8724; got"):
        plan_for_ratio(ratio, patches=196, depth=12)


def test_the_limit_that_the_message_names_is_allowed() -> None:
    assert sum(plan_for_ratio(0.8724, patches=196, depth=12).removed) == 171


@pytest.mark.parametrize(
    ("blocks", "removed", "thresholds", "message"),
    [
        ((3,), (1, 2), (0.1,), "one length"),
        ((6, 3), (1, 1), (0.1, 0.1), "ascending"),
        ((3, 3), (1, 1), (0.1, 0.1), "ascending"),
        ((-1,), (1,), (0.1,), "ascending"),
        ((3,), (-1,), (0.1,), "at least 0"),
        ((3,), (1,), (math.nan,), "at least 0"),
    ],
)
def test_impossible_plans_are_refused(
    blocks: tuple[int, ...], removed: tuple[int, ...], thresholds: tuple[float, ...], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        ReductionPlan(blocks, removed, thresholds)


def test_blocks_beyond_the_depth_are_refused() -> None:
    with pytest.raises(PlanError, match="below the model's depth of 8"):
        plan_for_ratio(0.5, patches=196, depth=8, blocks=(3, 6, 9), thresholds=(0.0,) * 3)


@given(patches=st.integers(2, 1500), stages=st.integers(1, 12), share=st.floats(0, 1))
def test_a_split_spends_its_budget_within_the_bounds(patches: int, stages: int, share: float) -> None:
    budget = int(share * max_removed(patches, stages))
    removed = split_evenly(patches, budget, stages)
    assert sum(removed) == budget
    left = patches
    for count in removed:
        assert 0 <= count <= left // 2
        left -= count


@given(patches=st.integers(2, 1500), stages=st.integers(1, 6))
def test_an_even_share_that_fits_is_what_is_taken(patches: int, stages: int) -> None:
    """Where every stage can take ceil(R/S), no stage takes more."""
    budget = patches // 2
    share = math.ceil(budget / stages)
    removed = split_evenly(patches, budget, stages)
    left, fits = patches, True
    for _ in range(stages):
        fits &= share <= left // 2
        left -= share
    assert not fits or max(removed) <= share


@given(a=st.floats(0, 0.8724), b=st.floats(0, 0.8724))
def test_a_larger_ratio_never_keeps_more_tokens(a: float, b: float) -> None:
    low, high = sorted((a, b))
    kept = [plan_for_ratio(r, patches=196, depth=12).tokens(197, 1)[-1] for r in (low, high)]
    assert kept[0] >= kept[1]
