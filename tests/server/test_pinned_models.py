"""Versions of models that engines load, whatever becomes of their files in the store."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from prunepool.errors import ManifestInvalid, ModelNotFound, WeightsInvalid
from prunepool.server.pinned_models import PinnedModels, open_pinned
from prunepool.store import ModelStore, generation_of

NAME = "deit_tiny_imagenette"


@pytest.fixture
def store(root: Path, tmp_path: Path) -> ModelStore:
    shutil.copytree(root / "model_store" / NAME, tmp_path / "store" / NAME)
    return ModelStore(tmp_path / "store")


@pytest.fixture
def pins(store: ModelStore, tmp_path: Path) -> PinnedModels:
    return PinnedModels(tmp_path / "pinned", store)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("fate", ["removed", "replaced"])
def test_another_process_loads_what_was_pinned(
    store: ModelStore, pins: PinnedModels, tmp_path: Path, fate: str
) -> None:
    reference, folder = pins.pin(NAME), store.root / NAME
    generation = generation_of(store.open(NAME).manifest)
    if fate == "removed":
        shutil.rmtree(folder)
    else:
        other = folder / "other"
        other.write_bytes(b"other weights")
        other.rename(folder / store.open(NAME).manifest.weights.file)
    program = (
        "import sys; from pathlib import Path; from prunepool.server.pinned_models import open_pinned;"
        "from prunepool.store import ModelStore, generation_of;"
        "model = open_pinned(Path(sys.argv[1]), ModelStore(sys.argv[2]), sys.argv[3]); model.verify();"
        "print(generation_of(model.manifest), model.manifest.name)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "pinned"), str(store.root), reference]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.split() == [generation, NAME]


def test_a_version_is_kept_once_and_let_go_of(store: ModelStore, pins: PinnedModels, tmp_path: Path) -> None:
    before = descriptors()
    first = pins.pin(NAME)
    assert pins.pin(NAME) == first
    weights = store.open(NAME).weights_path
    shutil.copyfile(weights, tmp_path / "again")
    (tmp_path / "again").rename(
        weights
    )  # the same bytes in another file: the old one may have been written to
    second = pins.pin(NAME)
    assert second != first
    pins.keep([second])
    with pytest.raises(ManifestInvalid):
        open_pinned(tmp_path / "pinned", store, first)
    open_pinned(tmp_path / "pinned", store, second).verify()
    pins.keep([])
    assert descriptors() == before
    assert list((tmp_path / "pinned").iterdir()) == []


def test_what_is_written_into_a_pinned_file_is_noticed(
    store: ModelStore, pins: PinnedModels, tmp_path: Path
) -> None:
    model = open_pinned(tmp_path / "pinned", store, pins.pin(NAME))
    with store.open(NAME).weights_path.open("r+b") as weights:
        weights.seek(-1, os.SEEK_END)
        weights.write(b"\0")
    with pytest.raises(WeightsInvalid, match="sha256"):
        model.verify()


def test_weights_outside_their_folder_are_not_pinned(
    store: ModelStore, pins: PinnedModels, tmp_path: Path
) -> None:
    weights = store.open(NAME).weights_path
    weights.rename(tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WeightsInvalid):
        open_pinned(tmp_path / "pinned", store, pins.pin(NAME)).verify()


def test_only_regular_files_are_opened(store: ModelStore, pins: PinnedModels, tmp_path: Path) -> None:
    os.mkfifo(store.root / NAME / "fifo")
    open_pinned(tmp_path / "pinned", store, pins.pin(NAME)).verify()


def test_other_references_are_those_of_the_store(store: ModelStore, tmp_path: Path) -> None:
    assert open_pinned(tmp_path / "pinned", store, NAME) == store.open(NAME)
    with pytest.raises(ModelNotFound):
        open_pinned(tmp_path / "pinned", store, "nope")
