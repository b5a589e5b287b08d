"""From a stored model to the one that is served: what settings ask of its backend."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunepool.backends.openvino_pass import PassCache
from prunepool.backends.openvino_trial import OpenVinoPasses
from prunepool.models.model import Model
from prunepool.server.model_factory import ModelFactory, RunOptions
from prunepool.store import ModelStore

STORE = Path(__file__).parents[2] / "model_store"


@pytest.mark.parametrize("wanted", [True, False])
def test_openvino_is_asked_when_the_backend_warms_up(
    wanted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, Path, int]] = []

    def note(model: Model, folder: PassCache, max_batch_size: int) -> OpenVinoPasses:
        asked.append((model.name, folder.path, max_batch_size))
        return OpenVinoPasses()

    monkeypatch.setattr("prunepool.backends.openvino_trial.passes_for", note)
    running = RunOptions(
        device="cpu",
        dtype="float32",
        max_batch_size=2,
        cuda_graphs=0,
        cuda_compile=False,
        cpu_openvino=wanted,
        cpu_openvino_folder=tmp_path,
    )
    backend = ModelFactory(ModelStore(STORE), running).model("deit_tiny_imagenette").make_backend()
    assert not asked
    backend.warm_up()
    assert asked == [("deit_tiny_imagenette", tmp_path, 2)] * wanted
