"""JPEG decoders beside each other: images/s to the model's crop, and how far its pixels are from the server's."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import torch
from part import Part, attempt, typical
from pictures import photos, pictures
from torch.nn import functional as F  # noqa: N812

from prunepool.imaging import ImageLimits, Preprocess, decode

CROP = Preprocess(224, 0.9, "bicubic")


def server(data: bytes) -> np.ndarray:
    """The crop as the server makes it."""
    return decode(data, CROP, ImageLimits(50_000_000))


def crop(image: torch.Tensor) -> torch.Tensor:
    """The same crop of uint8 [3, H, W] on any device, float [3, 224, 224] in 0 … 255."""
    _, height, width = image.shape
    size = tuple(int(CROP.resized_side * side / min(height, width)) for side in (height, width))
    resized = F.interpolate(
        image[None].float(), list(size), mode="bicubic", antialias=True, align_corners=False
    )[0]
    top, left = round((size[0] - 224) / 2), round((size[1] - 224) / 2)
    return resized[:, top : top + 224, left : left + 224].clamp(0, 255)


def torchvision_decoder(place: str) -> Callable[[list[bytes]], list[torch.Tensor]]:
    """torchvision's, nvJPEG on a GPU."""
    from torchvision.io import ImageReadMode, decode_jpeg

    def run(data: list[bytes]) -> list[torch.Tensor]:
        encoded = [torch.frombuffer(bytearray(one), dtype=torch.uint8) for one in data]
        decoded = decode_jpeg(encoded, mode=ImageReadMode.RGB, device=place)
        return [crop(one) for one in decoded]

    return run


def nvimgcodec_decoder(place: str) -> Callable[[list[bytes]], list[torch.Tensor]]:
    """NVIDIA's nvimgcodec, where its package is there."""
    from nvidia import nvimgcodec

    decoder = nvimgcodec.Decoder(device_id=torch.device(place).index or 0)

    def run(data: list[bytes]) -> list[torch.Tensor]:
        decoded = decoder.decode(data)
        return [crop(torch.as_tensor(one, device=place).permute(2, 0, 1)) for one in decoded]

    return run


def measure(
    part: Part, run: Callable[[list[bytes]], list[torch.Tensor]], data: list[bytes]
) -> dict[str, Any]:
    """Images/s of a decoder, and its distance from the server's in grey levels."""
    wait = torch.cuda.synchronize if part.gpu else lambda: None
    crops = run(data)
    wait()
    theirs = [one.permute(1, 2, 0).cpu().numpy() for one in crops]
    distances = [np.abs(a - server(one).astype(np.float32)) for a, one in zip(theirs, data, strict=True)]
    rates = []
    for _ in range(1 if part.quick else 5):
        start = time.perf_counter()
        run(data)
        wait()
        rates.append(len(data) / (time.perf_counter() - start))
    return {
        "images_per_s": float(np.median(rates)),
        "mean_difference": float(np.mean([d.mean() for d in distances])),
        "largest_difference": float(max(d.max() for d in distances)),
    }


def processes(part: Part, data: list[bytes], count: int) -> dict[str, Any]:
    """The server's own in so many processes; what comes back is counted, not sent, as by its shared memory."""
    many = data * (1 if part.quick else 20)
    with ProcessPoolExecutor(count) as pool:
        list(pool.map(_work, data))
        start = time.perf_counter()
        done = sum(pool.map(_work, many, chunksize=8))
        return {"processes": count, "images_per_s": done / (time.perf_counter() - start)}


def _work(data: bytes) -> int:
    return server(data).shape[2] // 3


def main() -> None:
    """Measure all of them."""
    part = Part.called()
    data = typical(photos(part.photos)) if part.photos else pictures(4 if part.quick else 64, 500, 375)
    cores = len(os.sched_getaffinity(0))
    report: dict[str, Any] = {
        "images": len(data),
        "mean_bytes": sum(map(len, data)) / len(data),
        "cores": cores,
        "server": [attempt(lambda n=n: processes(part, data, n)) for n in sorted({1, cores})],
    }
    part.save(report)
    report["torchvision"] = attempt(lambda: measure(part, torchvision_decoder(part.device), data))
    part.save(report)
    if part.gpu:
        report["nvimgcodec"] = attempt(lambda: measure(part, nvimgcodec_decoder(part.device), data))
        part.save(report)


if __name__ == "__main__":
    main()
