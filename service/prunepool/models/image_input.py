"""The input that a model was trained with, as its folder describes it: timm's words or those of transformers.

The pixels are those of transformers' own image processors within one level of 255. With `nearest` they are
Pillow's, as they were until transformers resized with torch, which takes neighbouring pixels there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from prunepool.errors import ManifestInvalid

Channels = tuple[float, float, float]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_HALF = (0.5, 0.5, 0.5)

#: What the image processors of transformers do where their configuration says nothing.
_USUAL: Mapping[str, Mapping[str, Any]] = {
    "vit": {"size": {"height": 224, "width": 224}, "resample": 2, "image_mean": _HALF, "image_std": _HALF},
    "deit": {
        "size": {"height": 256, "width": 256},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
        "image_mean": IMAGENET_MEAN,
        "image_std": IMAGENET_STD,
    },
    "dinov2": {
        "size": {"shortest_edge": 256},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
        "image_mean": IMAGENET_MEAN,
        "image_std": IMAGENET_STD,
    },
    "siglip": {"size": {"height": 224, "width": 224}, "resample": 3, "image_mean": _HALF, "image_std": _HALF},
    "clip": {
        "size": {"shortest_edge": 224},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
        "image_mean": _CLIP_MEAN,
        "image_std": _CLIP_STD,
    },
}
#: What each processor is usual for, by how its name begins.
_PROCESSORS = {"ViT": "vit", "DeiT": "deit", "Bit": "dinov2", "Siglip": "siglip", "CLIP": "clip"}
#: Those that take one number as the short side; the others take it as both sides.
_SHORT_SIDE = ("clip", "dinov2")
_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
_SCALE = 1 / 255
#: timm's crop where a configuration names none.
_USUAL_CROP_PCT = 0.875


@dataclass(frozen=True, slots=True)
class ImageInput:
    """How images are prepared; the attributes are those of :class:`prunepool.store.Manifest`."""

    size: int
    mean: Channels
    std: Channels
    crop_pct: float
    crop_mode: str
    interpolation: str
    crop_rounding: str = "even"


def input_of_processor(
    processor: Mapping[str, Any], kind: str, image_size: int, source: str
) -> tuple[ImageInput, tuple[str, ...]]:
    """The input that an image processor of transformers makes.

    Args:
        processor: `preprocessor_config.json`; what is not in it is as usual for the model.
        kind: `model_type` of the model.
        image_size: what its network takes, in pixels a side.
        source: the path, for messages.

    Returns:
        The input; and what the user should know about it, one sentence each.

    Raises:
        ManifestInvalid: it does something that is not served, such as sides of different lengths.
    """
    kind = _kind_of(processor, kind)
    usual = _USUAL[kind]
    values = {**usual, **{key: value for key, value in processor.items() if value is not None}}
    mean, std = _channels(values, "image_mean", source), _channels(values, "image_std", source)
    if not values.get("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    scale = values.get("rescale_factor", _SCALE) if values.get("do_rescale", True) else 1
    if not isinstance(scale, int | float) or not math.isclose(scale, _SCALE, rel_tol=1e-6):
        _refuse(source, "rescale_factor", scale, "1/255")
    if not values.get("do_resize", True):
        _refuse(source, "do_resize", False, "true")
    resized, short = _side(values["size"], kind, source, "size")
    crop = resized
    if values.get("do_center_crop"):
        crop, _ = _side(values.get("crop_size", values["size"]), "vit", source, "crop_size")
    elif short:
        _refuse(source, "do_center_crop", False, "true where size is a shortest_edge: images become squares")
    if crop > resized:
        _refuse(source, "crop_size", crop, f"at most size, {resized}")
    resample = values["resample"]
    if resample not in _RESAMPLE:
        known = ", ".join(f"{number} ({name})" for number, name in _RESAMPLE.items())
        _refuse(source, "resample", resample, f"one of {known}")
    notices: tuple[str, ...] = ()
    if crop != image_size:
        both = f"{crop}², and the network takes {image_size}²"
        notices = (f"its image processor makes images of {both}: they are made {image_size}²",)
    found = ImageInput(
        size=image_size,
        mean=mean,
        std=std,
        crop_pct=share_of(crop, resized),
        crop_mode="center" if short else "squash",
        interpolation=_RESAMPLE[resample],
        crop_rounding="down",
    )
    return found, notices


def input_of_timm(config: Mapping[str, Any], source: str) -> ImageInput:
    """The input of timm's `pretrained_cfg`.

    Raises:
        ManifestInvalid: a value is not served.
    """
    size = config.get("input_size", (3, 224, 224))
    if not isinstance(size, list | tuple) or len(size) != 3 or size[0] != 3 or size[1] != size[2]:
        _refuse(source, "input_size", size, "3 channels of a square")
    interpolation = config.get("interpolation") or "bicubic"
    if interpolation not in _INTERPOLATIONS:
        _refuse(source, "interpolation", interpolation, f"one of {', '.join(_INTERPOLATIONS)}")
    values = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, **config}
    return ImageInput(
        size=size[1],
        mean=_channels(values, "mean", source),
        std=_channels(values, "std", source),
        crop_pct=config.get("crop_pct") or _USUAL_CROP_PCT,
        crop_mode=config.get("crop_mode") or "center",
        interpolation=interpolation,
    )


def share_of(crop: int, resized: int) -> float:
    """The share of a resized side that a crop keeps, such that the crop divided by it is that side again."""
    share = crop / resized
    return share if math.floor(crop / share) == resized else crop / (resized + 0.5)


def _kind_of(processor: Mapping[str, Any], kind: str) -> str:
    """Whose usual values hold: those of the processor's class, or else of the model's."""
    name = str(processor.get("image_processor_type") or processor.get("feature_extractor_type") or "")
    named = next((usual for begin, usual in _PROCESSORS.items() if name.startswith(begin)), None)
    return named or kind.removesuffix("_with_registers")


def _side(size: object, kind: str, source: str, key: str) -> tuple[int, bool]:
    """The length that a size names, and whether it is that of the short side alone."""
    if isinstance(size, int) and not isinstance(size, bool):
        return size, kind in _SHORT_SIDE
    if isinstance(size, Mapping):
        if isinstance(short := size.get("shortest_edge"), int) and "longest_edge" not in size:
            return short, True
        height, width = size.get("height"), size.get("width")
        if isinstance(height, int) and height == width:
            return height, False
    return _refuse(source, key, size, "a square, or a shortest_edge")


def _channels(values: Mapping[str, Any], key: str, source: str) -> Channels:
    found = values[key]
    if (
        isinstance(found, list | tuple)
        and len(found) == 3
        and all(isinstance(one, int | float) for one in found)
    ):
        red, green, blue = map(float, found)
        return red, green, blue
    return _refuse(source, key, found, "three numbers, for red, green and blue")


def _refuse(source: str, key: str, value: object, limit: str) -> NoReturn:
    raise ManifestInvalid(f"{source}: {key} is {value!r}; it must be {limit}")
