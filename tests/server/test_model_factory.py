"""From a stored model to the one that is served: what settings ask of its backend, and what it decides once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch

from prunepool.backends.openvino_cache import PassCache
from prunepool.backends.openvino_trial import OpenVinoPasses
from prunepool.backends.registry import BackendOptions
from prunepool.core.served_model import ServedModel
from prunepool.models.loaded_model import LoadedModel
from prunepool.server.decisions import DecisionFolder
from prunepool.server.model_factory import ModelFactory
from prunepool.store import ModelStore

NAME = "deit_tiny_imagenette"
STORE = ModelStore(Path(__file__).parents[2] / "model_store")


def options(**changes: Any) -> BackendOptions:
    usual = {
        "device": "cpu",
        "dtype": "float32",
        "max_batch_size": 2,
        "cuda_graphs": 0,
        "cuda_compile": False,
        "cpu_openvino": False,
        "cpu_openvino_folder": Path("nowhere"),
    }
    return BackendOptions(**{**usual, **changes})


@pytest.mark.parametrize("wanted", [True, False])
def test_openvino_is_asked_when_the_backend_warms_up(
    wanted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, Path, int]] = []

    def note(model: LoadedModel, cache: PassCache, max_batch_size: int, decisions: object) -> OpenVinoPasses:
        asked.append((model.name, cache.path, max_batch_size))
        return OpenVinoPasses()

    monkeypatch.setattr("prunepool.backends.openvino.passes_for", note)
    running = options(cpu_openvino=wanted, cpu_openvino_folder=tmp_path)
    backend = ModelFactory(STORE.open, running).model(NAME).make_backend()
    assert not asked
    backend.warm_up()
    assert asked == [(NAME, tmp_path, 2)] * wanted


@pytest.fixture
def timings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Timing finds another dtype to be the fastest each time; what it found."""
    found: list[str] = []
    dtypes = cycle([torch.bfloat16, torch.float32])

    def fastest(*_: Any, **__: Any) -> torch.dtype:
        found.append(str(dtype := next(dtypes)))
        return dtype

    monkeypatch.setattr("prunepool.models.loader.fastest_dtype", fastest)
    return found


def dtype_of(model: ServedModel) -> str:
    model.make_backend()
    return model.info().dtype


def test_a_restart_does_not_time_the_dtype_again(timings: list[str]) -> None:
    model = ModelFactory(STORE.open, options(dtype="auto")).model(NAME)
    assert [dtype_of(model) for _ in range(3)] == ["bfloat16"] * 3
    assert timings == ["torch.bfloat16"]


@pytest.mark.parametrize("when", ["a successor", "an engine beside it"])
def test_another_process_does_what_the_first_decided(when: str, timings: list[str], tmp_path: Path) -> None:
    """Each process has objects of its own; the folder is all that they share."""
    auto = options(dtype="auto")
    first = ModelFactory(STORE.open, auto, DecisionFolder(tmp_path / "kept", "cpu").of)
    other = ModelFactory(STORE.open, auto, DecisionFolder(tmp_path / "kept", "cpu").of)
    assert dtype_of(first.model(NAME)) == "bfloat16"
    if when == "a successor":
        other = ModelFactory(STORE.open, auto, DecisionFolder(tmp_path / "kept", "cpu").of)
    assert dtype_of(other.model(NAME)) == "bfloat16"
    assert len(timings) == 1


def test_a_device_of_another_type_decides_for_itself(timings: list[str], tmp_path: Path) -> None:
    for device, expected in (("cpu", "bfloat16"), ("toy", "float32")):
        factory = ModelFactory(STORE.open, options(dtype="auto"), DecisionFolder(tmp_path, device).of)
        assert dtype_of(factory.model(NAME)) == expected


def test_a_folder_that_cannot_be_written_to_keeps_decisions_in_the_process(
    timings: list[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    model = ModelFactory(
        STORE.open, options(dtype="auto"), DecisionFolder(tmp_path / "file", "cpu").of
    ).model(NAME)
    assert [dtype_of(model) for _ in range(2)] == ["bfloat16"] * 2


@pytest.mark.parametrize("left", [b"", b'{"dtype": "bflo', b"[1]", b"\xff"])
def test_decisions_that_cannot_be_read_are_made_anew(left: bytes, timings: list[str], tmp_path: Path) -> None:
    """A disk that is full leaves files cut; an engine must not fail to start for it."""
    folder = DecisionFolder(tmp_path, "cpu")
    model = ModelFactory(STORE, options(dtype="auto"), folder.of).model(NAME)
    assert dtype_of(model) == "bfloat16"
    (file,) = tmp_path.iterdir()
    file.write_bytes(left)
    successor = ModelFactory(STORE, options(dtype="auto"), folder.of).model(NAME)
    assert dtype_of(successor) == "float32"
    assert len(timings) == 2
    assert dict(folder.of(successor.generation)) == {"dtype": "float32"}
