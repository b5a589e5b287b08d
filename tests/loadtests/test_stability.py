"""The stability check of the soak test, on stable and unstable series with realistic noise."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stability import LEAST_WINDOWS, unstable

WINDOWS, SCATTER = 56, 0.23

Shape = Callable[[float], float]


def series(seed: int, shape: Shape = lambda share: 1.0, windows: int = WINDOWS) -> list[float]:
    """p99 over a run, of which a share from 0 to 1 has passed."""
    source = random.Random(seed)
    return [300 * shape(number / windows) * math.exp(source.gauss(0, SCATTER)) for number in range(windows)]


def found_in(shape: Shape, runs: int = 200) -> float:
    return sum(bool(unstable(series(seed, shape))) for seed in range(runs)) / runs


def test_a_steady_server_passes() -> None:
    assert found_in(lambda share: 1.0, 1000) <= 0.01


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(lambda share: 1.0 + share, id="twice as slow in the end"),
        pytest.param(lambda share: math.exp(1.0 * share), id="ever faster slower"),
        pytest.param(lambda share: 1.0 if share < 0.6 else 1.7, id="slower from some time on"),
        pytest.param(lambda share: 4.0 if share % 0.2 > 0.16 else 1.0, id="bad again and again"),
    ],
)
def test_a_server_that_degrades_fails(shape: Shape) -> None:
    assert found_in(shape) >= 0.95


def test_a_few_bad_windows_are_tolerated() -> None:
    assert found_in(lambda share: 5.0 if 0.3 < share < 0.36 else 1.0) <= 0.005


def test_a_server_that_gets_faster_passes() -> None:
    assert found_in(lambda share: 1.5 - 0.5 * share) <= 0.005


@given(st.lists(st.floats(1, 1e4), min_size=LEAST_WINDOWS, max_size=80), st.floats(0.01, 100))
def test_the_unit_does_not_matter(p99: list[float], factor: float) -> None:
    assert len(unstable(p99)) == len(unstable([value * factor for value in p99])) or any(
        math.isclose(a, b * k) for a in p99 for b in p99 for k in (1.3, 2.0)
    )


def test_too_few_windows_give_no_verdict() -> None:
    assert unstable([1.0] * 5 + [9.0] * 5) == []
