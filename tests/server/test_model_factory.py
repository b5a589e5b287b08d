"""From a stored model to the one that is served: what settings ask of its backend, and what it decides once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import structlog
import torch

from prunepool.backends.converted import ConvertedModels
from prunepool.backends.registry import BackendOptions
from prunepool.backends.torch_cpu import TorchBackend
from prunepool.core.served_model import ServedModel
from prunepool.errors import ManifestInvalid
from prunepool.metrics import Metrics
from prunepool.server.decisions import DecisionFolder
from prunepool.server.factory import create_core
from prunepool.server.model_factory import ModelFactory
from prunepool.serving.options import InferenceOptions, resolve
from prunepool.settings import Settings
from prunepool.store import ModelStore, ProfilePoint, StoredModel
from prunepool.store.folders import copy_file
from prunepool.store.profile import auto_limit

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
def test_a_model_that_is_not_compiled_is_served_by_pytorch_and_converted_beside_it(
    wanted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Path, str]] = []
    done: list[Callable[[], None]] = []

    def convert(self: ConvertedModels, stored: StoredModel, when_done: Callable[[], None]) -> None:
        asked.append((self.root, stored.manifest.name))
        done.append(when_done)

    monkeypatch.setattr(ConvertedModels, "convert", convert)
    running = options(cpu_openvino=wanted, cpu_openvino_folder=tmp_path)
    model = ModelFactory(uncompiled(tmp_path / "store").open, running).model(NAME)
    better: list[str] = []
    model.watch(lambda: better.append("now"))
    assert isinstance(model.make_backend(), TorchBackend)
    assert asked == [(tmp_path, NAME)] * wanted
    for finished in done:
        finished()
    assert better == ["now"] * wanted


def uncompiled(root: Path, **changes: Any) -> ModelStore:
    """A store with the packaged model, as it is before it is compiled; `changes` are of its manifest."""
    stored = STORE.open(NAME)
    store = ModelStore(root)
    with store.staging() as staged:
        copy_file(stored.weights_path, staged / stored.manifest.weights.file)
        store.add(stored.manifest.model_copy(update={"compiled": None, **changes}), staged)
    return store


def point(ratio: float, drop: float | None) -> ProfilePoint:
    return ProfilePoint(ratio=ratio, gmacs=1.0, drop=drop)


@pytest.mark.parametrize(
    ("profile", "most"),
    [
        ([], 0.0),
        ([(0.0, 0.0)], 0.0),
        ([(0.0, None), (0.5, None)], 0.0),
        ([(0.0, 0.0), (0.5, 0.4)], None),
        ([(0.0, 0.0), (0.5, 0.4), (0.8, 2.5)], 0.5),
        ([(0.5, 2.5), (0.8, 3.0)], 0.0),
    ],
)
def test_how_far_auto_goes_is_what_was_measured(
    profile: list[tuple[float, float | None]], most: float | None
) -> None:
    assert auto_limit([point(*one) for one in profile], 2.0) == most


def test_auto_keeps_all_tokens_of_a_model_that_was_not_measured_unless_it_is_told_otherwise(
    tmp_path: Path,
) -> None:
    """Under load it went to the limit, and nobody knew what that cost."""
    info = ModelFactory(uncompiled(tmp_path, profile=None).open, options()).model(NAME).info()
    assert (info.auto_max_reduction_ratio, info.default_reduction_ratio) == (0, 0)
    auto = InferenceOptions(reduction_ratio="auto")
    assert resolve(auto, info).ratio_spec.maximum == 0
    assert resolve(auto, info, max_ratio=0.5).ratio_spec.maximum == 0.5
    asked = InferenceOptions(reduction_ratio="auto", max_reduction_ratio=0.3)
    assert resolve(asked, info).ratio_spec.maximum == 0.3
    assert resolve(InferenceOptions(reduction_ratio=0.7), info).ratio_spec.requested == 0.7


@pytest.mark.parametrize(
    ("measured", "bound", "said"), [(False, None, True), (False, 0.5, False), (True, None, False)]
)
def test_the_start_says_of_which_models_auto_keeps_all_tokens(
    measured: bool, bound: float | None, said: bool, tmp_path: Path, metrics: Metrics
) -> None:
    root = STORE.root if measured else uncompiled(tmp_path, profile=None).root
    settings = Settings(model_store=root, model=NAME, max_reduction_ratio=bound, device="cpu")
    with structlog.testing.capture_logs() as lines:
        create_core(settings, metrics)
    found = [line for line in lines if "without a measured profile" in line["event"]]
    assert [line["model"] for line in found] == [NAME] * said


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
    model = ModelFactory(STORE.open, options(dtype="auto"), folder.of).model(NAME)
    assert dtype_of(model) == "bfloat16"
    (file,) = tmp_path.iterdir()
    file.write_bytes(left)
    successor = ModelFactory(STORE.open, options(dtype="auto"), folder.of).model(NAME)
    assert dtype_of(successor) == "float32"
    assert len(timings) == 2
    assert dict(folder.of(successor.generation)) == {"dtype": "float32"}


def test_a_method_that_is_for_comparison_alone_is_not_served(tmp_path: Path) -> None:
    stored = STORE.open(NAME)
    reduction = stored.manifest.reduction.model_copy(update={"method": "atc"})
    manifest = stored.manifest.model_copy(update={"reduction": reduction, "profile": None})
    slow = replace(stored, manifest=manifest)
    with pytest.raises(
        ManifestInvalid, match=r"'atc' is for comparison alone .* must be one of ppt, .*, ward"
    ):
        ModelFactory(lambda name: slow, options()).model(NAME)
