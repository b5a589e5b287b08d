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
    backend = ModelFactory(STORE, running).model(NAME).make_backend()
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
    model = ModelFactory(STORE, options(dtype="auto")).model(NAME)
    assert [dtype_of(model) for _ in range(3)] == ["bfloat16"] * 3
    assert timings == ["torch.bfloat16"]


def test_another_process_does_what_the_first_decided(timings: list[str]) -> None:
    first = ModelFactory(STORE, options(dtype="auto")).model(NAME)
    assert dtype_of(first) == "bfloat16"
    factory = ModelFactory(STORE, options(dtype="auto"), {NAME: dict(first.decisions)})
    assert dtype_of(factory.model(NAME)) == "bfloat16"
    assert len(timings) == 1


def test_what_was_decided_of_another_generation_does_not_hold(timings: list[str]) -> None:
    decisions = {"generation": "of another model of this name", "dtype": "float16"}
    factory = ModelFactory(STORE, options(dtype="auto"), {NAME: decisions})
    assert dtype_of(factory.model(NAME)) == "bfloat16"
