"""The figures of a setting against the dense model."""

from __future__ import annotations

import numpy as np
import pytest

from prunepool.lab.accuracy_figures import figures, mean_divergence
from prunepool.lab.model_outputs import ModelOutputs


def answers(predicted: list[int], place: list[int] | None, kl: list[float] | None) -> ModelOutputs:
    return ModelOutputs(
        np.array(predicted),
        np.full(len(predicted), 0.5, np.float32),
        None if place is None else np.array(place),
        None if kl is None else np.array(kl, np.float32),
    )


DENSE = answers([1, 2, 3, 0], [0, 0, 0, 7], [0, 0, 0, 0])
REDUCED = answers([1, 0, 3, 2], [0, 3, 0, 0], [0.0, 0.4, 0.0, 0.2])


def test_shares_points_and_counts() -> None:
    f = figures(REDUCED, DENSE, seed=0)
    assert (f.images, f.agreement, f.top1, f.top5) == (4, 0.5, 0.75, 1.0)
    assert (f.lost, f.gained, f.p_value, f.drop) == (1, 1, 1.0, 0.0)
    assert f.kl == pytest.approx(0.15)
    assert mean_divergence(REDUCED) == pytest.approx(0.15)


def test_what_is_lost_is_positive() -> None:
    worse = answers([1, 0, 0, 0], [0, 3, 2, 7], [0.0, 0.1, 0.1, 0.0])
    assert figures(worse, DENSE, seed=0).drop == 50.0


def test_every_figure_lies_in_its_interval() -> None:
    f = figures(REDUCED, DENSE, seed=0)
    assert set(f.intervals) == {"agreement", "kl", "top1", "top5", "drop"}
    for name, (low, high) in f.intervals.items():
        assert low <= getattr(f, name) <= high


def test_without_labels_the_loss_is_of_agreement() -> None:
    f = figures(answers([1, 0, 3, 2], None, [0.1] * 4), answers([1, 2, 3, 0], None, [0.0] * 4), seed=0)
    assert (f.drop, f.top1, f.top5, f.ece, f.lost, f.p_value) == (50.0, None, None, None, None, None)
    assert set(f.intervals) == {"agreement", "kl", "drop"}


def test_where_probabilities_are_not_known_there_is_no_divergence() -> None:
    f = figures(answers([1], [0], None), answers([1], [0], None), seed=0)
    assert f.kl is None
    assert "kl" not in f.intervals
