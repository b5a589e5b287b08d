"""What every peer serves: a timm model from a folder of the store, from the bytes of a photo to its top five."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.data import create_transform
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Setting:
    """How a peer is set up, from its environment.

    Attributes:
        folder: of the model.
        port: to listen on.
        workers: processes or threads, each with a model of its own.
        threads: of torch, in each worker.
        batch: most images in one run.
        wait_s: how long a run waits for more images.
    """

    folder: Path
    port: int
    workers: int
    threads: int
    batch: int
    wait_s: float

    @classmethod
    def read(cls) -> Setting:
        """From the variables that `compare.py` sets."""
        return cls(
            Path(os.environ["PEER_FOLDER"]),
            int(os.environ["PEER_PORT"]),
            int(os.environ["PEER_WORKERS"]),
            int(os.environ["PEER_THREADS"]),
            int(os.environ["PEER_BATCH"]),
            float(os.environ["PEER_WAIT_MS"]) / 1000,
        )


class PhotoModel:
    """A timm model and the transform that timm itself makes for it.

    Args:
        setting: which, and with how many threads.
    """

    def __init__(self, setting: Setting) -> None:
        torch.set_num_threads(setting.threads)
        manifest = json.loads((setting.folder / "model.json").read_text())
        self._labels = manifest["labels"]
        self._model = timm.create_model(
            manifest["architecture"], pretrained=False, num_classes=len(self._labels)
        ).eval()
        weights = load_file(setting.folder / manifest["weights"]["file"])
        self._model.load_state_dict({key: value.float() for key, value in weights.items()})
        self._size = manifest["input_size"]
        self._transform = create_transform(
            self._size,
            interpolation=manifest["interpolation"],
            crop_pct=manifest["crop_pct"],
            mean=manifest["mean"],
            std=manifest["std"],
        )
        self.top5([torch.zeros(3, self._size, self._size)] * setting.batch)

    def decode(self, body: bytes) -> Tensor:
        """Normalised pixels, [3, H, W], of an encoded photo."""
        pixels: Tensor = self._transform(Image.open(io.BytesIO(body)).convert("RGB"))
        return pixels

    @torch.inference_mode()
    def top5(self, images: Sequence[Tensor]) -> list[dict[str, Any]]:
        """The answer to each image."""
        scores, classes = self._model(torch.stack(list(images))).softmax(-1).topk(5)
        return [
            {"predictions": [{"label": self._labels[c], "score": s} for c, s in zip(*row, strict=True)]}
            for row in zip(classes.tolist(), scores.tolist(), strict=True)
        ]
