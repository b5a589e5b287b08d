"""Which batches a new runner is timed with, before it takes the first that counts."""

from __future__ import annotations

#: A mix of plans shows what each plan beyond a batch's first costs.
_PLANS_IN_MIX = 4
#: The fastest of so many runs of a batch counts: the first may pay for setting things up.
ROUNDS = 3


def rehearsal(max_ratio: float, max_batch_size: int) -> list[tuple[float, ...]]:
    """The ratios of each batch, the smallest batch first: sizes by ends and middle of the dial, and a mix.

    The first is a single dense image. Every batch lists the images of one ratio next to each other.

    Args:
        max_ratio: the largest that the model can do.
        max_batch_size: the most images in a batch.
    """
    ratios = sorted({0.0, max_ratio / 2, max_ratio}, key=lambda ratio: (ratio > 0, -ratio))
    sizes = sorted({1, max(1, max_batch_size // 4), max_batch_size})
    batches = [(ratio,) * size for size in sizes for ratio in ratios]
    plans = min(_PLANS_IN_MIX, sizes[len(sizes) // 2])
    if max_ratio > 0 and plans > 1:
        mixed = tuple(max_ratio * i / (plans - 1) for i in range(plans))
        repeated = sizes[len(sizes) // 2] // plans
        batches.append(tuple(ratio for ratio in mixed for _ in range(repeated)))
    return sorted(batches, key=len)
