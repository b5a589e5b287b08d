from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunepool.core.cost_model import CostModel, Effort, TimedBatch
from prunepool.core.prediction import DrainEstimate, Predictor
from prunepool.core.types import Batch, BatchItem, Limits, RatioSpec, Request


class Costs:
    max_ratio = 0.875

    def gmacs(self, ratio: float) -> float:
        return 1.0 - ratio


def predictor(run_s: float = 0.0, gmac_s: float = 1.0, plan_s: float = 0.0, **limits: float) -> Predictor:
    model = CostModel()
    items = [Effort(1, 1, 0, 0), Effort(1, 8, 0, 0), Effort(1, 8, 2, 0)]
    model.fit([TimedBatch(w, run_s + gmac_s * w.gmacs + plan_s * w.further_plans) for w in items])
    return Predictor(Costs(), Limits(**limits), model)  # type: ignore[arg-type]


def batch(*ratios: float) -> Batch:
    request = Request(np.zeros((1, 1, 3), np.uint8), RatioSpec(0.0, 0.0), 0.0)
    return Batch(tuple(BatchItem(request, ratio, "requested") for ratio in ratios), 0.0)


def test_a_batch_takes_what_its_parts_take() -> None:
    seconds = predictor(run_s=0.5, plan_s=0.25).batch_s(batch(0.0, 0.5, 0.5))
    assert seconds == pytest.approx(0.5 + 2.0 + 0.25)


def test_a_batch_of_which_nothing_is_left_takes_no_time() -> None:
    assert predictor().batch_s(batch()) == 0.0


def test_nothing_drains_at_once() -> None:
    assert predictor(run_s=0.5).drain({}) == DrainEstimate(0.0, 1, 0.0)


def test_what_fits_into_one_run_is_one_run() -> None:
    assert predictor(run_s=0.5, max_batch_size=8).drain({0.0: 4}) == pytest.approx((4.5, 8, 4.5))


def test_more_images_than_a_run_may_have_are_more_runs() -> None:
    assert predictor(run_s=0.5, max_batch_size=4).drain({0.0: 10}) == pytest.approx((11.5, 4, 4.5))


def test_a_run_is_bounded_in_time() -> None:
    assert predictor(run_s=0.5, max_batch_s=2.75).drain({0.0: 4}) == pytest.approx((5.0, 2, 2.5))


def test_an_image_over_the_bound_is_a_run_by_itself() -> None:
    assert predictor(max_batch_s=0.5).drain({0.0: 3}) == pytest.approx((3.0, 1, 1.0))


def test_each_run_pays_for_its_plans() -> None:
    drain = predictor(plan_s=0.25, max_batch_size=4).drain({0.0: 4, 0.5: 4})
    assert drain.seconds == pytest.approx(6.0 + 2 * 0.25)


def test_a_run_has_no_more_plans_than_images() -> None:
    drain = predictor(plan_s=0.25, max_batch_size=2).drain({0.0: 1, 0.25: 1, 0.5: 1, 0.75: 1})
    assert drain.seconds == pytest.approx(2.5 + 2 * 0.25)


def test_before_anything_was_measured_all_drains_at_once() -> None:
    drain = Predictor(Costs(), Limits(max_batch_s=0.1), CostModel()).drain({0.0: 100})
    assert (drain.seconds, drain.images_per_run) == (0.0, 32)


def test_the_share_of_an_image_in_a_full_run() -> None:
    assert predictor(run_s=0.5, max_batch_size=4).image_s(0.5) == pytest.approx(0.5 + 0.5 / 4)


@given(
    st.dictionaries(st.sampled_from([0.0, 0.25, 0.5, 0.75]), st.integers(1, 300), min_size=1),
    st.integers(1, 64),
    st.floats(0.01, 100.0) | st.just(math.inf),
)
def test_bounds_are_kept_by_every_run_but_one_of_a_single_image(
    images: dict[float, int], size: int, seconds: float
) -> None:
    drain = predictor(run_s=0.01, gmac_s=0.1, max_batch_size=size, max_batch_s=seconds).drain(images)
    assert 1 <= drain.images_per_run <= size
    assert drain.run_s <= seconds * 1.0001 or drain.images_per_run == 1
    assert drain.seconds >= drain.run_s * 0.9999
