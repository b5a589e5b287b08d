"""What it costs to decode a JPEG to the model's crop, and how far the pixels are from those of timm's transform.

Ends with 1 if the service's own decoding takes more core time than promised, or its pixels are further off.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from pictures import photos
from PIL import Image
from report import save
from timm.data import create_transform

from prunepool.imaging import ImageLimits, Preprocess, decode, resampling
from prunepool.lab.environment import environment
from prunepool.machine import tune_malloc

CROP = Preprocess(224, 0.9, "bicubic")
LIMITS = ImageLimits()
#: Core milliseconds promised for a JPEG of 500×375, and differences in levels of 255.
MOST_MS, MOST_MEAN, MOST_MAX = 2.0, 1.0, 2
_LIBRARIES = ("pillow", "simplejpeg", "cykooz-resizer")

Crop = NDArray[np.uint8]
Decoder = Callable[[bytes], Crop]


def service(data: bytes) -> Crop:
    """The service's decoding."""
    return decode(data, CROP, LIMITS)


def without_simd(data: bytes) -> Crop:
    """The same where cykooz-resizer is not installed."""
    with patch.object(resampling, "_RESIZE", resampling.resize_with_pillow):
        return decode(data, CROP, LIMITS)


def pillow(data: bytes) -> Crop:
    """Pillow alone: the whole picture is decoded and resized, then cropped."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    short, (width, height) = CROP.resized_side, image.size
    size = (short, short * height // width) if width <= height else (short * width // height, short)
    left, top = round((size[0] - CROP.size) / 2), round((size[1] - CROP.size) / 2)
    resized = image.resize(size, Image.Resampling.BICUBIC)
    return np.array(resized.crop((left, top, left + CROP.size, top + CROP.size)))


def timms() -> Decoder:
    """Timm's evaluation transform, up to the normalisation."""
    transform = create_transform(
        CROP.size,
        interpolation=CROP.interpolation,
        crop_pct=CROP.crop_pct,
        is_training=False,
        normalize=False,
    )

    def run(data: bytes) -> Crop:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        crop: Crop = transform(image).permute(1, 2, 0).numpy()
        return crop

    return run


def core_ms(decoder: Decoder, images: Sequence[bytes]) -> float:
    """Core milliseconds an image, of all threads of this process."""
    start = time.process_time()
    for data in images:
        decoder(data)
    return (time.process_time() - start) * 1000 / len(images)


def measure(decoders: Mapping[str, Decoder], images: Sequence[bytes], rounds: int) -> dict[str, Any]:
    """Time decoders in turns, after one round that does not count, and compare their pixels with timm's."""
    times: dict[str, list[float]] = {name: [] for name in decoders}
    for turn in range(rounds + 1):
        for name, decoder in decoders.items():
            spent = core_ms(decoder, images)
            if turn:
                times[name].append(spent)
    exact = timms()
    results = {}
    for name, decoder in decoders.items():
        off = [np.abs(decoder(data).astype(int) - exact(data)) for data in images]
        results[name] = {
            "core_ms": statistics.median(times[name]),
            "fastest_ms": min(times[name]),
            "slowest_ms": max(times[name]),
            "mean_difference": float(np.mean([one.mean() for one in off])),
            "largest_mean_difference": float(max(one.mean() for one in off)),
            "largest_difference": int(max(one.max() for one in off)),
        }
    return results


def table(results: Mapping[str, Mapping[str, float]]) -> str:
    """The results in Markdown."""
    lines = ["| | core ms | mean difference | largest |", "|---|---|---|---|"]
    for name, row in results.items():
        differences = f"{row['mean_difference']:.4f} | {row['largest_difference']}"
        lines.append(f"| {name} | {row['core_ms']:.2f} | {differences} |")
    return "\n".join(lines)


def _of_size(images: Sequence[bytes], sides: tuple[int, int]) -> list[bytes]:
    found = []
    for data in images:
        with Image.open(io.BytesIO(data)) as image:
            if sorted(image.size) == sorted(sides):
                found.append(data)
    return found


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, help="folder of JPEGs, of which those of 500×375 are used")
    parser.add_argument("--rounds", type=int, default=20, help="timed turns of each decoder")
    parser.add_argument("--json", type=Path, default=Path("out/decoding.json"), help="the report")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, write the report."""
    chosen = options(arguments)
    images = _of_size(photos(chosen.images), (500, 375))
    if not images:
        sys.exit(f"there is no JPEG of 500×375 in {chosen.images}")
    ours = "prunepool"
    decoders = {
        ours: service,
        "prunepool, without cykooz-resizer": without_simd,
        "Pillow: all decoded, resized, cropped": pillow,
        "timm's transform": timms(),
    }
    torch.set_num_threads(1)
    tune_malloc()  # as a server does: what is freed is not given back, page by page, after every image
    results = measure(decoders, images, chosen.rounds)
    libraries = {name: version(name) for name in _LIBRARIES}
    machine = environment(torch.device("cpu")) | libraries
    save(
        {"environment": machine, "images": len(images), "rounds": chosen.rounds, "decoders": results},
        chosen.json,
    )
    print(f"{len(images)} JPEGs of 500×375, {sum(map(len, images)) // len(images) // 1000} kB on average")
    print(table(results))
    found = results[ours]
    kept = (
        found["core_ms"] <= MOST_MS
        and found["largest_mean_difference"] <= MOST_MEAN
        and found["largest_difference"] <= MOST_MAX
    )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
