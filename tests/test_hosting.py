"""From a stored model to the one that is served: what settings ask of its runner."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunepool.errors import InvalidParameter
from prunepool.hosting import Host, Running
from prunepool.models.kernels import KernelFolder
from prunepool.models.model import Model
from prunepool.store import ModelStore

STORE = Path(__file__).parents[1] / "model_store"


def host(*compiled_ratios: float, folder: Path) -> Host:
    running = Running(
        device="cpu",
        dtype="float32",
        max_batch_size=1,
        cuda_graphs=0,
        cuda_compile=False,
        compiled_ratios=compiled_ratios,
        compiled_folder=folder,
    )
    return Host(ModelStore(STORE), running)


def test_kernels_for_a_ratio_beyond_the_model_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    limit = r"compiled_ratios must be between 0 and 0\.8724, for deit_tiny_imagenette; got 0\.95"
    with pytest.raises(InvalidParameter, match=limit):
        host(0.0, 0.95, folder=tmp_path).model("deit_tiny_imagenette")


def test_kernels_are_had_when_the_runner_warms_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, list[float], Path]] = []

    def note(model: Model, ratios: list[float], folder: KernelFolder) -> dict[object, object]:
        asked.append((model.name, list(ratios), folder.path))
        return {}

    monkeypatch.setattr("prunepool.hosting.kernels_for", note)
    runner = host(0.0, 0.755, folder=tmp_path / "kernels").model("deit_tiny_imagenette").runner()
    assert not asked
    runner.warm_up()
    assert asked == [("deit_tiny_imagenette", [0.0, 0.755], tmp_path / "kernels")]
