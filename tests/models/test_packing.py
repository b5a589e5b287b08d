"""How a batch is cut into passes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from prunepool.models.packing import passes_of
from prunepool.reduction.plan import DENSE, ReductionPlan

PLANS = [DENSE, ReductionPlan((1,), (60,), (0.0,)), ReductionPlan((2, 5), (20, 90), (1e-5, 1.0))]


@given(
    groups=st.lists(st.tuples(st.sampled_from(PLANS), st.integers(0, 40)), min_size=1, max_size=8),
    most=st.integers(1, 50),
)
def test_passes_are_few_and_even_and_keep_the_order(
    groups: list[tuple[ReductionPlan, int]], most: int
) -> None:
    parts = passes_of(groups, most)
    sizes = [sum(count for _, count in part) for part in parts]
    total = sum(count for _, count in groups)
    assert sum(sizes) == total
    assert len(parts) == max(1, -(-total // most))
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
    images = [plan for plan, count in groups for _ in range(count)]
    assert [plan for part in parts for plan, count in part for _ in range(count)] == images
    for part in parts:
        assert all(count for _, count in part)
