from __future__ import annotations

import pytest

from prunepool.batching.pace import Pace


def test_before_any_measurement_nothing_takes_time() -> None:
    assert Pace().seconds(5.0) == 0.0


def test_one_measurement_is_believed() -> None:
    pace = Pace()
    pace.observe(4.0, 2.0)
    assert pace.seconds(10.0) == pytest.approx(5.0)


def test_a_larger_batch_weighs_more() -> None:
    pace = Pace()
    pace.observe(1.0, 1.0)
    pace.observe(99.0, 0.0)
    assert pace.seconds(1.0) < 0.05


def test_the_past_is_forgotten() -> None:
    pace = Pace()
    pace.observe(1.0, 100.0)
    for _ in range(100):
        pace.observe(1.0, 1.0)
    assert pace.seconds(1.0) == pytest.approx(1.0, rel=0.01)
