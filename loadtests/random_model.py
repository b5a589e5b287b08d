"""A model with random weights in its own store, for measurements of speed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from servers import PRUNEPOOL

_CLASSES = 10


def random_model(architecture: str, store: Path) -> str:
    """Add a timm architecture with random weights and ten classes to a store.

    Returns:
        Its name there.
    """
    vit = timm.create_model(architecture, pretrained=False, num_classes=_CLASSES)
    weights = store / "random.safetensors"
    save_file({key: value.contiguous() for key, value in vit.state_dict().items()}, weights)
    name = f"{architecture}_random"
    command = [*PRUNEPOOL, "models", "add", str(weights), "--name", name, "--architecture", architecture]
    subprocess.run([*command, "--model-store", str(store)], check=True, stdout=sys.stderr)
    weights.unlink()
    return name


@contextmanager
def model_folder(model: Path | None, architecture: str) -> Iterator[Path]:
    """Return the folder of a model; by default, of a temporary one with fixed random weights."""
    if model is not None:
        yield model.resolve()
        return
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder).resolve()
        yield store / random_model(architecture, store)


def compile_model(folder: Path) -> None:
    """Compile a model for OpenVINO in all formats that are compared, so that it computes in them from the start."""
    command = [*PRUNEPOOL, "models", "compile", str(folder), "--weights", "float32,int8"]
    subprocess.run(command, check=True, stdout=sys.stderr)
