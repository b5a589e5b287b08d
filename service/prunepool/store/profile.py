"""The profile of a model: plans at several ratios, each with its measurements."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Text = Annotated[str, Field(min_length=1, max_length=1000)]
Share = Annotated[float, Field(ge=0, le=1)]
Ratio = Annotated[float, Field(ge=0, lt=1)]
Ascending = tuple[Annotated[int, Field(ge=0)], ...]
Counts = tuple[Annotated[int, Field(ge=0)], ...]
Thresholds = tuple[Annotated[float, Field(ge=0)], ...]

#: Points of accuracy that `auto` may cost where nobody said how far it may go; see docs/elastic.md.
MAX_AUTO_DROP = 2.0

_OPEN = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False, protected_namespaces=())


class Speed(BaseModel):
    """Speed of a plan relative to the dense model; both were timed alternately.

    Attributes:
        speedup: images per second divided by those of the dense model.
        device: the device it was timed on.
        dtype: the dtype it was timed in.
        batch: batch size.
    """

    model_config = _OPEN

    speedup: Annotated[float, Field(gt=0)]
    device: Text
    dtype: Text
    batch: Annotated[int, Field(gt=0)]


class Validation(BaseModel):
    """How often a plan was right on images that the model was neither trained nor calibrated on.

    Attributes:
        images: how many.
        of: their kind, in the plural, as `ImageNet validation photos`.
        top1: share of images whose best class is correct.
        top5: share of images with the correct class among the best five.
    """

    model_config = _OPEN

    images: Annotated[int, Field(gt=0)]
    of: Text
    top1: Share
    top5: Share


class FormatAccuracy(BaseModel):
    """What a plan keeps of its accuracy in a number format.

    Attributes:
        images: number of images that were measured.
        top1: share of images whose best class is correct; None without labels.
        agreement: share of images whose best class is that of the same plan in float32.
        kl: mean KL divergence of the prediction from float32's, in nats.
    """

    model_config = _OPEN

    images: Annotated[int, Field(gt=0)]
    top1: Share | None = None
    agreement: Share
    kl: Annotated[float, Field(ge=0)] | None = None


class ProfilePoint(BaseModel):
    """One point of the dial: its plan, and the figures measured with it.

    Unknown keys are kept, so that an older release accepts a model with newer measurements.

    Attributes:
        ratio: the reduction ratio.
        gmacs: billions of multiply-accumulates for one image.
        method: its reduction method; a name in :data:`prunepool.reduction.methods.METHODS`.
        blocks: the reducing blocks.
        removed: tokens removed at each of them. Without it, the point holds no plan.
        thresholds: score variance from which an image is pruned, one for each block.
        images: number of images that were measured.
        top1: share of images whose best class is correct.
        top5: share of images with the correct class among the best five.
        agreement: share of images whose best class is that of the dense model.
        kl: mean KL divergence of the prediction from the dense model's, in nats.
        drop: loss against the dense model in percentage points: of top-1 if there were labels, else of agreement.
            Negative if the plan is better than the dense model.
        intervals: the ends of the 95 % confidence interval, by the figure's name.
        speed: if it was measured.
        formats: by number format, if they were measured; see `prunepool evaluate --dtypes`.
        validation: if it was measured. It is for people; `max_accuracy_drop` uses `drop`.
    """

    model_config = _OPEN

    ratio: Ratio
    gmacs: Annotated[float, Field(gt=0)]
    method: Text | None = None
    blocks: Ascending | None = None
    removed: Counts | None = None
    thresholds: Thresholds | None = None
    images: Annotated[int, Field(gt=0)] | None = None
    top1: Share | None = None
    top5: Share | None = None
    agreement: Share | None = None
    kl: Annotated[float, Field(ge=0)] | None = None
    drop: Annotated[float, Field(ge=-100, le=100)] | None = None
    intervals: Mapping[str, tuple[float, float]] | None = None
    speed: Speed | None = None
    formats: Mapping[str, FormatAccuracy] | None = None
    validation: Validation | None = None

    @model_validator(mode="after")
    def _whole_plan(self) -> Self:
        """Refuse half a plan."""
        if self.removed is not None:
            lengths = {len(part) for part in (self.blocks or (), self.removed, self.thresholds or ())}
            if self.method is None or len(lengths) != 1:
                raise ValueError(
                    "removed needs a method, and as many blocks and thresholds as it has counts itself"
                )
        return self


def auto_limit(profile: Iterable[ProfilePoint], drop: float = MAX_AUTO_DROP) -> float | None:
    """How far the dial can be turned before a measured point has lost more than `drop` points.

    Args:
        profile: points of one dial, by ascending ratio.
        drop: points of accuracy, as in the profile.

    Returns:
        The last ratio before that; 0 where the loss was measured at no ratio above 0; None where no measured point
        has lost as much.
    """
    last, measured = 0.0, False
    for point in profile:
        if point.drop is not None and point.drop > drop:
            return last
        measured = measured or (point.drop is not None and point.ratio > 0)
        last = point.ratio
    return None if measured else 0.0
