"""Accuracy figures of one setting of the dial, compared with the dense model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from prunepool.lab.model_outputs import ModelOutputs
from prunepool.lab.statistics import bootstrap_intervals, calibration_error, mcnemar

_TOP = 5


@dataclass(frozen=True, slots=True)
class AccuracyFigures:
    """Accuracy figures of one setting; shares are from 0 to 1, points are percentage points.

    Attributes:
        images: number of images.
        agreement: share of images whose best class is the dense model's.
        kl: mean KL divergence from the dense model's prediction, in nats; None if it is unknown.
        top1: share of images whose best class is correct; None without labels, like all below except `drop`.
        top5: share of images with the correct class among the best five.
        ece: expected calibration error, 15 bins.
        drop: points lost against the dense model: of top-1 if there are labels, else of agreement.
        lost: images that only the dense model classifies correctly.
        gained: images that only this setting classifies correctly.
        p_value: of the exact McNemar test on `lost` and `gained`.
        intervals: 95 % bootstrap intervals of agreement, kl, top1, top5 and drop, of those that are known.
    """

    images: int
    agreement: float
    kl: float | None
    top1: float | None
    top5: float | None
    ece: float | None
    drop: float
    lost: int | None
    gained: int | None
    p_value: float | None
    intervals: Mapping[str, tuple[float, float]]


def figures(answers: ModelOutputs, dense: ModelOutputs, *, seed: int) -> AccuracyFigures:
    """The figures of one setting.

    Args:
        answers: outputs at that setting.
        dense: outputs of the dense model for the same images.
        seed: of the bootstrap.
    """
    agrees = answers.predicted == dense.predicted
    values = {"agreement": agrees.astype(np.float64)}
    if answers.kl is not None:
        values["kl"] = answers.kl.astype(np.float64)
    values["drop"] = 100 * (1 - values["agreement"])
    right = before = None
    if answers.place is not None and dense.place is not None:
        right, before = answers.place == 0, dense.place == 0
        values["top1"] = right.astype(np.float64)
        values["top5"] = (answers.place < _TOP).astype(np.float64)
        values["drop"] = 100 * (before.astype(np.float64) - values["top1"])
    ends = bootstrap_intervals(np.stack(list(values.values())), seed=seed)
    mean = {name: float(row.mean()) for name, row in values.items()}
    return AccuracyFigures(
        images=len(agrees),
        agreement=mean["agreement"],
        kl=mean.get("kl"),
        top1=mean.get("top1"),
        top5=mean.get("top5"),
        ece=None if right is None else calibration_error(answers.confidence, right),
        drop=mean["drop"],
        lost=None if right is None or before is None else int((before & ~right).sum()),
        gained=None if right is None or before is None else int((right & ~before).sum()),
        p_value=None if right is None or before is None else mcnemar(before, right),
        intervals=dict(zip(values, ends, strict=True)),
    )


def mean_divergence(answers: ModelOutputs) -> float:
    """Mean KL divergence between these predictions and the dense model's, in nats.

    Args:
        answers: with `kl`.
    """
    assert answers.kl is not None
    return float(answers.kl.mean(dtype=np.float64))
