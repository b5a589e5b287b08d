"""Small models without torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from prunepool.store import Manifest, ModelStore, StoredModel, sha256_of


@pytest.fixture
def document() -> dict[str, Any]:
    """A manifest that is valid, as JSON."""
    return {
        "schema_version": 1,
        "name": "tiny",
        "architecture": "deit_tiny_patch16_224",
        "input_size": 224,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "labels": ["cat", "dog"],
        "licence": "Apache-2.0",
        "origin": "made up",
        "weights": {"file": "model.safetensors", "sha256": "0" * 64, "dtype": "float32", "parameters": 12},
        "reduction": {"default_ratio": 0.5},
    }


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    """An empty store."""
    return ModelStore(tmp_path / "store")


@pytest.fixture
def add(store: ModelStore, document: dict[str, Any]) -> Callable[..., StoredModel]:
    """Adds a model whose weights are one small tensor: `add("name", value=2.0, replace=True)`."""

    def _add(name: str = "tiny", *, value: float = 1.0, replace: bool = False) -> StoredModel:
        with store.staging() as folder:
            path = folder / "model.safetensors"
            save_file({"head.weight": np.full((2, 6), value, np.float32)}, path)
            weights = document["weights"] | {"sha256": sha256_of(path)}
            manifest = Manifest.model_validate(document | {"name": name, "weights": weights})
            return store.add(manifest, folder, replace=replace)

    return _add
