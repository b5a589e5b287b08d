"""A small model, and images that cost nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from prunepool.lab.images import Crops
from prunepool.models.loaded_model import LoadedModel
from prunepool.models.loader import load_model
from prunepool.store import Manifest, ModelStore, Weights
from prunepool.store.model import sha256_of

SIZE = 96
#: Of timm's own tests: 6 blocks, 64 wide; to run it costs little.
ARCHITECTURE = "test_vit"


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one model, `small`: 36 patches, 4 classes, random weights that matter."""
    torch.manual_seed(0)
    vit = timm.create_model(ARCHITECTURE, pretrained=False, num_classes=4, img_size=SIZE)
    for key, parameter in vit.named_parameters():
        if "norm" in key and key.endswith("weight"):
            nn.init.normal_(parameter, 1.0, 0.1)
        else:
            nn.init.normal_(parameter, 0.0, 0.05)
    store = ModelStore(tmp_path_factory.mktemp("store"))
    with store.staging() as folder:
        path = folder / "model.safetensors"
        save_file({key: value.clone() for key, value in vit.state_dict().items()}, path)
        manifest = Manifest(
            name="small",
            architecture=ARCHITECTURE,
            input_size=SIZE,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            crop_pct=1.0,
            interpolation="bicubic",
            labels=("cat", "dog", "fox", "owl"),
            licence="Apache-2.0",
            origin="random",
            weights=Weights(
                sha256=sha256_of(path),
                dtype="float32",
                parameters=sum(parameter.numel() for parameter in vit.parameters()),
            ),
        )
        store.add(manifest, folder)
    return store.root


@pytest.fixture(scope="session")
def small(small_store: Path) -> LoadedModel:
    """That model, on the CPU in float32."""
    return load_model("small", store=small_store, device="cpu", dtype="float32")


def noise(count: int, seed: int = 0) -> np.ndarray:
    """Pictures that differ: coarse noise, uint8 [n, SIZE, SIZE, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    return coarse.repeat(SIZE // 6, axis=1).repeat(SIZE // 6, axis=2)


@pytest.fixture(scope="session")
def batches() -> Callable[..., list[Crops]]:
    """Makes images in batches of 4: `batches(10)`, `batches(10, labels=False)`."""

    def make(count: int, *, labels: bool = True, seed: int = 0) -> list[Crops]:
        pixels = noise(count, seed)
        classes = np.arange(count) % 4
        return [
            Crops(pixels[i : i + 4], classes[i : i + 4] if labels else None, f"{seed}/{i}/{labels}")
            for i in range(0, count, 4)
        ]

    return make


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 12 images with labels.csv, and in classes/ a folder for each of 4 classes."""
    folder = tmp_path_factory.mktemp("photos")
    lines = ["file,label_index,author"]
    for i, pixels in enumerate(noise(12)):
        name = f"{i:02}.png"
        Image.fromarray(pixels).save(folder / name)
        lines.append(f"{name},{i % 4},nobody")
        below = folder / "classes" / f"n{i % 4}"
        below.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(below / name)
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder
