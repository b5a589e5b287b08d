from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunepool.core.cost_model import CostModel, Effort, TimedBatch, effort
from prunepool.core.profiling import profile_batches

TRUE = (0.0074, 0.0139, 0.0012, 0.0008, 0.0)


def gmacs(ratio: float) -> float:
    return 1.25 - 0.72 * ratio


def true_seconds(item: Effort, coefficients: tuple[float, ...] = TRUE) -> float:
    return sum(c * part for c, part in zip(coefficients, item, strict=True))


def warm(noise: Callable[[], float] = lambda: 1.0, coefficients: tuple[float, ...] = TRUE) -> CostModel:
    """A model fitted to a warm-up profile."""
    model = CostModel()
    items = [effort(Counter(ratios), gmacs) for ratios in profile_batches(0.87, 32)]
    model.fit([TimedBatch(item, true_seconds(item, coefficients) * noise()) for item in items])
    return model


def batches(count: int, source: random.Random) -> list[Effort]:
    """Batches such as come under load: a few ratios, up to 32 images."""
    ratios = [source.sample([0.0, 0.2, 0.5, 0.755, 0.87], source.randint(1, 3)) for _ in range(count)]
    return [effort(Counter(source.choices(some, k=source.randint(1, 32))), gmacs) for some in ratios]


def p90(errors: list[float | None]) -> float:
    known = sorted(error for error in errors if error is not None)
    return known[int(0.9 * (len(known) - 1))]


def test_the_effort_of_a_batch() -> None:
    item = effort({0.0: 2, 0.5: 3}, lambda ratio: 1.0 - ratio)
    assert item == Effort(runs=1, gmacs=3.5, further_plans=1, reduced=3)


def test_nothing_takes_time_before_it_was_measured() -> None:
    assert CostModel().seconds(Effort(1, 5.0, 0, 0)) == 0.0
    assert not CostModel().fitted


def test_one_measurement_is_put_down_to_the_work_alone() -> None:
    model = CostModel()
    model.fit([TimedBatch(Effort(1, 4.0, 0, 0), 2.0)])
    assert model.seconds(Effort(1, 10.0, 2, 5)) == pytest.approx(5.0)


def test_a_measurement_without_duration_is_none() -> None:
    model = CostModel()
    model.fit([TimedBatch(Effort(1, 4.0, 0, 0), 0.0)])
    assert model.observe(Effort(1, 4.0, 0, 0), 0.0) is None
    assert not model.fitted


def test_the_first_batch_measures_where_the_warm_up_did_not() -> None:
    model = CostModel()
    assert model.observe(Effort(1, 4.0, 0, 0), 2.0) is None
    assert model.seconds(Effort(1, 1.0, 0, 0)) == pytest.approx(0.5)


def test_a_profile_shows_every_coefficient() -> None:
    assert list(warm().coefficients.values()) == pytest.approx(TRUE, rel=1e-6)


def test_what_noise_suggests_is_not_believed() -> None:
    """Without a share for plans and reductions in the device, none appears in the model."""
    source = random.Random(3)
    model = warm(lambda: math.exp(source.gauss(0, 0.01)), (0.01, 0.02, 0.0, 0.0, 0.0))
    one, many = Effort(1, 20.0, 0, 0), Effort(1, 20.0, 4, 32)
    assert model.seconds(many) == pytest.approx(model.seconds(one), rel=0.05)


@given(st.tuples(st.floats(0.0, 0.05), st.floats(1e-5, 0.1), st.floats(0.0, 0.01), st.floats(0.0, 0.01)))
def test_any_device_that_is_of_this_kind_is_predicted(coefficients: tuple[float, ...]) -> None:
    model = warm(coefficients=(*coefficients, 0.0))
    for item in batches(20, random.Random(0)):
        assert model.seconds(item) == pytest.approx(true_seconds(item, (*coefficients, 0.0)), rel=0.05)


def test_the_error_is_that_of_the_prediction_before_it_is_corrected() -> None:
    model = warm()
    item = Effort(1, 10.0, 0, 0)
    assert model.observe(item, true_seconds(item) * 2) == pytest.approx(0.5)


def test_a_steady_run_is_predicted_within_15_percent() -> None:
    """With 6 % of noise and a device whose speed wanders by 20 % in a few hundred batches."""
    source = random.Random(1)
    model = warm(lambda: math.exp(source.gauss(0, 0.06)))
    errors = [
        model.observe(
            item,
            true_seconds(item) * (1 + 0.2 * math.sin(number / 50)) * math.exp(source.gauss(0, 0.06)),
        )
        for number, item in enumerate(batches(1000, source))
    ]
    assert p90(errors) <= 0.15


def test_what_rest_costs_is_learnt_within_twelve_batches_and_believed_of_no_other() -> None:
    source = random.Random(7)
    model = warm(lambda: math.exp(source.gauss(0, 0.03)))
    coefficients = (*TRUE[:4], 0.015)
    items = [effort({0.0: 1}, gmacs, idle_before=source.random() < 0.5) for _ in range(400)]
    errors = [
        model.observe(item, true_seconds(item, coefficients) * math.exp(source.gauss(0, 0.03)))
        for item in items
    ]
    assert p90(errors[12:]) <= 0.12
    item = effort({0.0: 8}, gmacs)
    assert model.seconds(item) == pytest.approx(true_seconds(item), rel=0.15)


@pytest.mark.parametrize("factor", [0.5, 2.0, 5.0])
def test_a_device_that_changes_its_speed_is_followed_within_twelve_batches(factor: float) -> None:
    source = random.Random(2)
    model = warm()
    for item in batches(12, source):
        model.observe(item, true_seconds(item) * factor)
    for item in batches(20, source):
        assert model.seconds(item) == pytest.approx(true_seconds(item) * factor, rel=0.15)


def test_one_stall_is_shrugged_off() -> None:
    model = warm()
    for item in batches(50, random.Random(4)):
        model.observe(item, true_seconds(item))
    item = Effort(1, 10.0, 0, 0)
    model.observe(item, true_seconds(item) * 30)
    assert model.seconds(item) == pytest.approx(true_seconds(item), rel=0.2)


def test_a_long_run_of_equal_batches_does_not_spoil_what_is_known_of_others() -> None:
    source = random.Random(5)
    model = warm()
    for _ in range(2000):
        item = effort({0.0: 6}, gmacs)
        model.observe(item, true_seconds(item) * math.exp(source.gauss(0, 0.05)))
    item = effort({0.87: 12}, gmacs)
    assert model.seconds(item) == pytest.approx(true_seconds(item), rel=0.2)


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(1e-6, 100.0)), min_size=1, max_size=60))
def test_no_timing_makes_a_prediction_negative_or_boundless(timings: list[tuple[int, float]]) -> None:
    model = warm()
    items = batches(5, random.Random(6))
    for which, seconds in timings:
        model.observe(items[which], seconds)
    for item in items:
        assert 0 < model.seconds(item) < 1e5
    assert all(0 <= value < 1e5 for value in model.coefficients.values())


def test_fitting_again_forgets() -> None:
    model = warm()
    model.fit([TimedBatch(Effort(1, 1.0, 0, 0), 1.0)])
    assert model.seconds(Effort(1, 2.0, 3, 4)) == pytest.approx(2.0)
