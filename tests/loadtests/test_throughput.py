"""Responses per second, wherever they fall in the window."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from throughput import throughput


@given(offset=st.floats(0, 1), batch=st.integers(1, 16))
def test_batches_count_alike_wherever_they_fall(offset: float, batch: int) -> None:
    times = [offset + k for k in range(12) for _ in range(batch)]
    assert throughput(times, 1.0, 9.0) == pytest.approx(batch)


def test_responses_outside_the_window_do_not_count() -> None:
    assert throughput([i / 10 for i in range(100)], 2.0, 5.0) == pytest.approx(10)


def test_a_window_with_few_responses_is_counted() -> None:
    assert throughput([], 0.0, 4.0) == 0
    assert throughput([1.0, 1.0, 1.0, 1.0], 0.0, 4.0) == 1
