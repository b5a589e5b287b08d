"""Intervals, tests and splits: against values worked out by hand or by brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunepool.lab.statistics import bootstrap_intervals, calibration_error, halves, mcnemar


def flags(text: str) -> np.ndarray:
    return np.array([sign == "1" for sign in text])


def test_an_interval_of_a_constant_is_that_constant() -> None:
    assert bootstrap_intervals(np.ones((1, 50)), seed=0) == [(1.0, 1.0)]


def test_an_interval_is_as_wide_as_the_normal_approximation() -> None:
    values = np.random.default_rng(0).normal(5.0, 2.0, (1, 900))
    ((low, high),) = bootstrap_intervals(values, seed=1, resamples=4000)
    half = 1.96 * values.std() / 30
    assert (low, high) == (
        pytest.approx(values.mean() - half, abs=0.02),
        pytest.approx(values.mean() + half, abs=0.02),
    )


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(0).random((2, 40))
    assert bootstrap_intervals(values, seed=3) == bootstrap_intervals(values, seed=3)


def test_another_seed_gives_another_interval() -> None:
    values = np.random.default_rng(0).random((1, 40))
    assert bootstrap_intervals(values, seed=3) != bootstrap_intervals(values, seed=4)


def test_equal_quantities_have_equal_intervals() -> None:
    values = np.random.default_rng(0).random(40)
    first, second = bootstrap_intervals(np.stack((values, values)), seed=0)
    assert first == second


@pytest.mark.parametrize(
    ("before", "after", "p_value"),
    [
        ("1111", "1111", 1.0),
        ("1111", "0111", 1.0),
        ("11111100", "00000011", 2 * (1 + 8 + 28) / 256),
        ("1" * 10, "0" * 10, 2 / 1024),
    ],
)
def test_mcnemar_by_hand(before: str, after: str, p_value: float) -> None:
    assert mcnemar(flags(before), flags(after)) == pytest.approx(p_value)


@given(st.integers(0, 9), st.integers(0, 9))
def test_mcnemar_by_counting_all_outcomes(lost: int, gained: int) -> None:
    before = np.array([True] * lost + [False] * gained + [True, False])
    after = np.array([False] * lost + [True] * gained + [True, False])
    n, extreme = lost + gained, abs(lost - gained)
    as_far = sum(abs(n - 2 * sum(coins)) >= extreme for coins in itertools.product((0, 1), repeat=min(n, 12)))
    if n <= 12:
        assert mcnemar(before, after) == pytest.approx(as_far / 2**n)
    assert mcnemar(before, after) == mcnemar(after, before)


def test_mcnemar_stands_large_samples() -> None:
    before = np.ones(5000, bool)
    assert mcnemar(before, ~before) == pytest.approx(0.0)


def test_a_model_as_sure_as_it_is_right_is_calibrated() -> None:
    assert calibration_error(np.full(10, 0.8, np.float32), flags("1111111100")) == pytest.approx(
        0.0, abs=1e-7
    )


def test_calibration_error_by_hand() -> None:
    """Two bins: one of two images at 0.9 of which one is right, one of two at 0.35, both wrong."""
    confidence = np.array([0.9, 0.9, 0.35, 0.35], np.float32)
    assert calibration_error(confidence, flags("1000")) == pytest.approx((2 * 0.4 + 2 * 0.35) / 4)


@pytest.mark.parametrize("sure", [0.0, 1.0])
def test_the_ends_of_the_scale_have_a_bin(sure: float) -> None:
    assert calibration_error(np.full(3, sure, np.float32), np.full(3, sure == 1.0)) == 0.0


@given(st.integers(2, 200), st.integers(0, 2**31), st.booleans())
def test_halves_are_all_images_once(count: int, seed: int, labelled: bool) -> None:
    labels = np.random.default_rng(seed).integers(0, 5, count) if labelled else None
    first, second = halves(labels, count, seed=seed)
    assert sorted([*first, *second]) == list(range(count))
    assert len(first) - len(second) == count % 2


@given(st.integers(2, 200), st.integers(0, 2**31))
def test_each_class_is_in_both_halves(count: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 5, count)
    first, second = halves(labels, count, seed=seed)
    for label in range(5):
        assert abs((labels[first] == label).sum() - (labels[second] == label).sum()) <= 1


def test_halves_follow_the_seed() -> None:
    splits = [[list(half) for half in halves(None, 50, seed=seed)] for seed in (1, 1, 2)]
    assert splits[0] == splits[1] != splits[2]
