"""What logits say: probabilities, the best class, and how sure it is. Pure functions on NumPy arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities, float32 [classes], of finite logits of the same shape, computed stably."""
    weights = np.exp(logits - logits.max())  # the largest is 1: nothing overflows
    probabilities: NDArray[np.float32] = weights / weights.sum()
    return probabilities


def best_class(logits: NDArray[np.float32]) -> int:
    """Index of the highest logit of a float32 [classes] array."""
    return int(np.argmax(logits))


def margin(logits: NDArray[np.float32]) -> float:
    """By how much the best class is more probable than the next.

    Args:
        logits: float32 [classes].

    Returns:
        0 … 1; 1 where there is no second class, or a logit is not finite.
    """
    if len(logits) < 2 or not np.isfinite(logits).all():
        return 1.0
    second, first = np.partition(softmax(logits), -2)[-2:]
    return float(first - second)
