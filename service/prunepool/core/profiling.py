"""Warm-up profiling: which batches a new backend is timed with, and what their times say about batch sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from prunepool.core.backend import OutOfMemory
from prunepool.core.cost_model import TimedBatch, effort
from prunepool.core.types import Batch, BatchItem, Costs, RatioSpec, Request

#: The reason of a batch item that no caller asked for.
WARM_UP = "warm-up"
#: A mix of plans shows what each plan beyond a batch's first costs.
_PLANS_IN_MIX = 4
#: The fastest of so many runs of a batch counts: the first may pay for setting things up.
ROUNDS = 3
#: A batch of so many images hides what passes between two batches.
_LEAST_IMAGES = 8
#: A larger batch is worth waiting for if an image costs so much less in it, relative.
_WORTH = 0.05

#: The reduction ratio of each image of a batch.
Ratios: TypeAlias = tuple[float, ...]


def profile_batches(max_ratio: float, max_batch_size: int) -> list[Ratios]:
    """The batches to time, smallest first: three sizes at both ends and the middle of the ratios, and a mix.

    Args:
        max_ratio: the largest ratio that the model supports.
        max_batch_size: images in the largest batch.

    Returns:
        The ratio of each image of each batch; the first batch is one dense image, and in every batch images of
        one ratio stand next to each other.
    """
    ratios = sorted({0.0, max_ratio / 2, max_ratio}, key=lambda ratio: (ratio > 0, -ratio))
    quarter = max(1, max_batch_size // 4)
    middle = quarter if max_batch_size <= _LEAST_IMAGES else max(_LEAST_IMAGES, quarter)
    sizes = sorted({1, middle, max_batch_size})
    batches = [(ratio,) * size for size in sizes for ratio in ratios]
    plans = min(_PLANS_IN_MIX, sizes[len(sizes) // 2])
    if max_ratio > 0 and plans > 1:
        mixed = tuple(max_ratio * i / (plans - 1) for i in range(plans))
        repeated = sizes[len(sizes) // 2] // plans
        batches.append(tuple(ratio for ratio in mixed for _ in range(repeated)))
    return sorted(batches, key=len)


def warm_up_batch(ratios: Ratios, input_size: int, costs: Costs, now: float) -> Batch:
    """A batch of black images.

    Args:
        ratios: of its images.
        input_size: input resolution, in pixels a side.
        costs: of each ratio.
        now: the arrival of its requests.
    """
    pixels = np.zeros((input_size, input_size, 3), np.uint8)
    items = (BatchItem(Request(pixels, RatioSpec(ratio, ratio), now), ratio, WARM_UP) for ratio in ratios)
    return Batch(tuple(items), sum(map(costs.gmacs, ratios)))


def profile(
    run_s: Callable[[Ratios], float | None],
    batches: Sequence[Ratios],
    *,
    costs: Costs,
    budget_s: float,
    clock: Callable[[], float],
    stopped: Callable[[], bool],
) -> tuple[TimedBatch, ...]:
    """Time one dense image, then further batches as far as the budget allows.

    Args:
        run_s: runs a batch; its seconds, or None where the device has no memory for it.
        batches: to time after the dense image, smallest first.
        costs: of each ratio.
        budget_s: seconds for `batches`; one that is predicted to exceed what is left is skipped.
        clock: seconds, monotonic.
        stopped: whether to skip what is left.

    Returns:
        The best time of each batch that was run, the dense image first.

    Raises:
        OutOfMemory: the device has no memory for a single image.
    """
    dense_s = run_s((0.0,))
    if dense_s is None:
        raise OutOfMemory("the device has no room for a single image")

    def gmacs(ratios: Ratios) -> float:
        return sum(map(costs.gmacs, ratios))

    best: dict[Ratios, float] = {(0.0,): dense_s}
    over = clock() + budget_s
    for ratios in [ratios for _ in range(ROUNDS) for ratios in batches]:
        seconds_per_gmac = min(seconds / gmacs(timed) for timed, seconds in best.items())
        if stopped() or clock() + seconds_per_gmac * gmacs(ratios) > over:
            continue
        seconds = run_s(ratios)
        if seconds is None:
            break
        best[ratios] = min(seconds, best.get(ratios, seconds))
    return tuple(
        TimedBatch(effort(Counter(ratios), costs.gmacs), seconds) for ratios, seconds in best.items()
    )


def worthwhile(timed: Sequence[TimedBatch], image_gmacs: float, most: int) -> int:
    """The batch size on a CPU beyond which no image gets cheaper: larger ones only make images wait.

    Where eight images keep the cores busy, thirty-two take four times as long, all wait for the last, and
    nothing is decoded meanwhile for the next batch. A batch too long to be timed at warm-up gains nothing.

    Args:
        timed: batches; dense ones of a single plan count.
        image_gmacs: of one dense image.
        most: images in the largest batch.

    Returns:
        The size of the smallest timed batch of eight or more in which an image costs as little as in any;
        eight if no such batch was timed, and `most` if that is less or nothing was timed.
    """
    if not timed:
        return most
    costs = {
        round(one.effort.gmacs / image_gmacs): one.seconds / one.effort.gmacs
        for one in timed
        if not one.effort.reduced and not one.effort.further_plans and one.seconds > 0
    }
    large = {images: cost for images, cost in costs.items() if _LEAST_IMAGES <= images <= most}
    if not large:
        return min(_LEAST_IMAGES, most)
    enough = min(large.values()) * (1 + _WORTH)
    return min(images for images, cost in large.items() if cost <= enough)
