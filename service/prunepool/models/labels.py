"""The labels of ImageNet's classes."""

from __future__ import annotations

from collections import Counter

from timm.data import ImageNetInfo, infer_imagenet_subset


def imagenet_labels(classes: int) -> tuple[str, ...] | None:
    """The labels of the ImageNet variant with that many classes (1000, 11821, 21841, …); None if no variant has.

    The lists come with timm. A class is called by its first name if no other class has that name, else by all its
    names, else by its names with its definition.
    """
    subset = infer_imagenet_subset({"num_classes": classes})
    if subset is None:
        return None
    info = ImageNetInfo(subset)
    full = info.label_descriptions()
    first = [label.partition(",")[0] for label in full]
    times, times_full = Counter(first), Counter(full)
    return tuple(
        short if times[short] == 1 else long if times_full[long] == 1 else detailed
        for short, long, detailed in zip(first, full, info.label_descriptions(detailed=True), strict=True)
    )
