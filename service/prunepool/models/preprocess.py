"""The preprocessing that a manifest describes."""

from __future__ import annotations

from prunepool.imaging import Preprocess
from prunepool.store import Manifest

_WHITEST = 255


def preprocess_of(manifest: Manifest) -> Preprocess:
    """What turns an image into the model's input; borders have the mean's colour, as timm has them."""
    red, green, blue = (round(_WHITEST * share) for share in manifest.mean)
    return Preprocess(
        size=manifest.input_size,
        crop_pct=manifest.crop_pct,
        interpolation=manifest.interpolation,
        crop_mode=manifest.crop_mode,
        border=(red, green, blue),
        crop_rounding=manifest.crop_rounding,
    )
