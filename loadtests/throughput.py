"""Responses per second when they arrive in batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def throughput(times: Sequence[float], start: float, end: float) -> float:
    """Return the responses per second in a window: the slope of their count over time, by least squares.

    To count them would be wrong by up to a whole batch, which can be a tenth of a short window: where batches
    happen to fall against its ends is chance. The slope does not depend on it.

    Args:
        times: of answers; those outside the window do not count.
        start: of the window, in seconds.
        end: the same.
    """
    inside = np.sort([time for time in times if start <= time < end])
    centred = inside - inside.mean() if len(inside) else inside
    spread = float((centred**2).sum())
    # Too little of the window is covered to fit a slope.
    if len(inside) < 3 or np.ptp(inside) < (end - start) / 2:
        return len(inside) / (end - start)
    return float((centred * np.arange(len(inside))).sum()) / spread
