"""Which batches a new backend is timed with before it takes the first that counts, and what sizes are worth it."""

from __future__ import annotations

from collections.abc import Sequence

from prunepool.core.cost_model import TimedBatch

#: A mix of plans shows what each plan beyond a batch's first costs.
_PLANS_IN_MIX = 4
#: The fastest of so many runs of a batch counts: the first may pay for setting things up.
ROUNDS = 3
#: A run of so many images hides what passes between two runs.
_LEAST_IMAGES = 8
#: A larger run is worth waiting for if an image costs so much less in it, relative.
_WORTH = 0.05


def profile_batches(max_ratio: float, max_batch_size: int) -> list[tuple[float, ...]]:
    """The ratios of each batch, the smallest batch first: sizes by ends and middle of the ratio_spec, and a mix.

    The first is a single dense image. Every batch lists the images of one ratio next to each other.

    Args:
        max_ratio: the largest that the model can do.
        max_batch_size: the most images in a batch.
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


def worthwhile(measured: Sequence[TimedBatch], image_gmacs: float, most: int) -> int:
    """Images beyond which a run on a processor makes none of them cheaper: they had better be answered earlier.

    Where eight keep it busy, thirty-two take four times as long, all wait for the last, and nothing is decoded
    meanwhile for the run after it. What takes too long to be timed at warm-up is too long to gain anything.

    Args:
        measured: timed runs; those where nothing left and all images were of one plan are looked at.
        image_gmacs: of one such image.
        most: images in the largest run.

    Returns:
        Images of the smallest timed run of eight or more in which one costs as little as in any; eight if no
        such run was timed, and `most` if that is less or nothing was.
    """
    if not measured:
        return most
    costs = {
        round(one.effort.gmacs / image_gmacs): one.seconds / one.effort.gmacs
        for one in measured
        if not one.effort.reduced and not one.effort.further_plans and one.seconds > 0
    }
    large = {images: cost for images, cost in costs.items() if _LEAST_IMAGES <= images <= most}
    if not large:
        return min(_LEAST_IMAGES, most)
    enough = min(large.values()) * (1 + _WORTH)
    return min(images for images, cost in large.items() if cost <= enough)
