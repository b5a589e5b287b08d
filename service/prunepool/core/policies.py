"""Which policy decides the ratio of `auto`."""

from __future__ import annotations

import math

from prunepool.core.model_info import ModelInfo
from prunepool.core.ratio_controller import Controller, ratio_grid
from prunepool.core.ratio_policy import DefaultRatio, RatioPolicy


def policy_for(info: ModelInfo, target_s: float) -> RatioPolicy:
    """The policy that holds the latency target; without a target, the model's default ratio."""
    if math.isinf(target_s):
        return DefaultRatio(info.default_reduction_ratio)
    return Controller(levels_of(info), target_s)


def levels_of(info: ModelInfo) -> tuple[float, ...]:
    """The ratios that `auto` may take for a model, ascending from 0, if a target is set."""
    measured = [point["ratio"] for point in info.profile or ()]
    ratios = [float(ratio) for ratio in measured if isinstance(ratio, float | int)]
    return ratio_grid(info.max_reduction_ratio, ratios)
