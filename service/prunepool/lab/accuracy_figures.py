"""The figures of one setting of the dial against the dense model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from prunepool.lab.model_outputs import ModelOutputs
from prunepool.lab.statistics import bootstrap_intervals, calibration_error, mcnemar

_TOP = 5


@dataclass(frozen=True, slots=True)
class AccuracyFigures:
    """What was measured at one setting; shares from 0 to 1 unless they are points.

    Attributes:
        images: how many.
        agreement: share whose best class was the dense model's.
        kl: mean divergence from the dense model's answer, in nats; None where it is not known.
        top1: share whose best class was right; None without labels, as all that follow but `drop`.
        top5: share with the right class among the best five.
        ece: expected calibration error, 15 bins.
        drop: points lost against the dense model: of top-1 with labels, else of agreement.
        lost: images that the dense model had right and this one has not.
        gained: images that this one has right and the dense model had not.
        p_value: of the exact McNemar test on those two.
        intervals: 95 % bootstrap intervals of agreement, kl, top1, top5 and drop, where those are known.
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
        answers: at that setting.
        dense: of the dense model to the same images.
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
    """Mean divergence of the dense model's answers from these, in nats.

    Args:
        answers: with `kl`.
    """
    assert answers.kl is not None
    return float(answers.kl.mean(dtype=np.float64))
