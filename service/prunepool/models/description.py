"""What a manifest is to say of weights that are added to the store."""

from __future__ import annotations

from dataclasses import dataclass

from prunepool.store import NetworkOptions


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What a manifest records about weights; the attributes are those of :class:`prunepool.store.Manifest`.

    Attributes:
        labels: empty if the output is an embedding, whatever the head. None for ImageNet's if an ImageNet variant
            has as many classes; else for none if the output is an embedding, as it is without a head or with CLIP's
            projection; else for `class 0`, ….
        resample: whether the input size is asked for, so that position embeddings of another one are resampled to
            it; else the input size follows them.
    """

    name: str
    architecture: str
    input_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop_pct: float
    crop_mode: str
    interpolation: str
    licence: str
    origin: str
    labels: tuple[str, ...] | None = None
    network: NetworkOptions | None = None
    resample: bool = False
    crop_rounding: str = "even"
