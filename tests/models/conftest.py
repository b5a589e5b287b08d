"""Networks that need no files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from prunepool.models.loader import load_model
from prunepool.models.model import Model
from prunepool.store import Manifest, ModelStore, ReductionDefaults, Weights
from prunepool.store.model import sha256_of


def randomised(name: str, **options: object) -> nn.Module:
    """A timm model whose every parameter matters: initial layer scales and heads are near zero."""
    torch.manual_seed(0)
    vit = timm.create_model(name, pretrained=False, **options)
    for key, parameter in vit.named_parameters():
        if "norm" in key and key.endswith("weight"):
            nn.init.normal_(parameter, 1.0, 0.1)
        elif "ls1" in key or "ls2" in key:
            nn.init.uniform_(parameter, 0.1, 0.5)
        else:
            nn.init.normal_(parameter, 0.0, 0.05)
    return vit.eval()


@pytest.fixture(scope="session")
def random_vit() -> Callable[..., nn.Module]:
    """Makes a timm model with random weights that all matter."""
    return randomised


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one small model, `tiny`: DeiT-Ti's geometry, random weights, 5 classes."""
    store = ModelStore(tmp_path_factory.mktemp("store"))
    vit = randomised("deit_tiny_patch16_224", num_classes=5)
    with store.staging() as folder:
        path = folder / "model.safetensors"
        save_file({key: value.half() for key, value in vit.state_dict().items()}, path)
        manifest = Manifest(
            name="tiny",
            architecture="deit_tiny_patch16_224",
            input_size=224,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            crop_pct=0.9,
            interpolation="bicubic",
            labels=tuple("abcde"),
            licence="Apache-2.0",
            origin="random",
            weights=Weights(
                sha256=sha256_of(path),
                dtype="float16",
                parameters=sum(p.numel() for p in vit.parameters()),
            ),
            reduction=ReductionDefaults(default_ratio=0.5, max_ratio=0.8),
        )
        store.add(manifest, folder)
    return store.root


@pytest.fixture(scope="session")
def tiny(tiny_store: Path) -> Model:
    """That model, on the CPU in float32."""
    return load_model("tiny", store=tiny_store, device="cpu", dtype="float32")
