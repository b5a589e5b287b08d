"""Statistics of a model's outputs on a sample of images, with their uncertainty."""

from __future__ import annotations

from math import comb

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: Resampled means computed at once, so that a large sample fits in memory.
_CHUNK = 64


def bootstrap_intervals(
    values: Floats, *, seed: int, level: float = 0.95, resamples: int = 2000
) -> list[tuple[float, float]]:
    """Percentile bootstrap intervals of means over the same images.

    Args:
        values: one row per quantity, one column per image, [m, n].
        seed: of the resampling; quantities measured on the same images with one seed are resampled alike.
        level: share of the resampled means within the interval.
        resamples: number of resamples.

    Returns:
        The two ends for each row.
    """
    rng = np.random.default_rng(seed)
    n = values.shape[1]
    means = []
    for first in range(0, resamples, _CHUNK):
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=min(_CHUNK, resamples - first))
        means.append(drawn @ values.T / n)
    tail = 50 * (1 - level)
    low, high = np.percentile(np.concatenate(means), (tail, 100 - tail), axis=0)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def mcnemar(before: Flags, after: Flags) -> float:
    """Exact two-sided McNemar test of the hypothesis that neither of two models is better.

    Args:
        before: whether each image was classified correctly, bool [n].
        after: the same for the other model, bool [n].

    Returns:
        The p-value, from the binomial distribution of the images on which the two differ.
    """
    lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
    discordant, fewer = lost + gained, min(lost, gained)
    # Exact integers: a float would overflow from 1,030 images on.
    tail = sum(comb(discordant, k) for k in range(fewer + 1))
    return min(1.0, float(2 * tail / 2**discordant))


def calibration_error(confidence: NDArray[np.float32], right: Flags, *, bins: int = 15) -> float:
    """Expected calibration error: the mean distance of confidence from accuracy, by bins of equal width.

    Args:
        confidence: probability of each best class, [n].
        right: whether it is correct, bool [n].
        bins: number of bins from 0 to 1.

    Source: Guo et al., "On Calibration of Modern Neural Networks", arXiv 1706.04599.
    """
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(place, weights=confidence - right.astype(np.float64), minlength=bins)
    return float(np.abs(gap).sum() / len(confidence))


def halves(labels: NDArray[np.int64] | None, count: int, *, seed: int) -> tuple[NDArray[np.int64], ...]:
    """Split images at random into two halves; if there are labels, each class as evenly as possible.

    Args:
        labels: the class of each image, [count], or None.
        count: number of images.
        seed: of the split.

    Returns:
        The indices of each half in random order; the first has one more where `count` is odd.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(count)
    if labels is not None:
        order = order[np.argsort(labels[order], kind="stable")]
    return rng.permutation(order[0::2]), rng.permutation(order[1::2])
