"""The dtype of training's passes; weights and their averages are always float32."""

from __future__ import annotations

import torch

from prunepool.errors import InvalidParameter
from prunepool.models.loaded_model import LoadedModel
from prunepool.models.loader import fastest_dtype


def amp_dtype(wanted: str, model: LoadedModel) -> torch.dtype:
    """The dtype that a setting names; `auto` is bfloat16 if it is measured to be faster.

    Args:
        wanted: `auto`, `float32` or `bfloat16`.
        model: in float32, on its device.

    Raises:
        InvalidParameter: `wanted` is none of these.
    """
    if wanted == "auto":
        return fastest_dtype(model.vit, model.manifest.input_size)
    if wanted not in ("float32", "bfloat16"):
        raise InvalidParameter("dtype", wanted, "auto, float32 or bfloat16, which training can do")
    return torch.float32 if wanted == "float32" else torch.bfloat16
