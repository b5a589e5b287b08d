"""The store: finding models and verifying their weights."""

from __future__ import annotations

import json
import math
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunepool.errors import InvalidParameter, ManifestInvalid, ModelError, ModelNotFound, WeightsInvalid
from prunepool.store import ModelStore, StoredModel, check_name, sha256_of

Add = Callable[..., StoredModel]


@given(st.text(max_size=120) | st.from_regex(r"[./a-zA-Z0-9_-]{1,12}", fullmatch=True))
def test_a_name_that_passes_is_one_visible_folder_of_the_store(name: str) -> None:
    root = Path("/models")
    try:
        check_name(name)
    except InvalidParameter:
        return
    path = Path(os.path.normpath(root / name))
    assert path.parent == root
    assert path.name == name
    assert not name.startswith((".", "-"))


@pytest.mark.parametrize(
    "name", ["deit_small_patch16_224.fb_in1k", "a", "0", "A-b.c", "x" * 100, "a_jpeg_2", "jpeg"]
)
def test_ordinary_names_pass(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/x", "-x", ".x", "a\\b", "ä", "a\n", "a b", "x" * 101]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidParameter, match=r"^name must be 1 to 100 letters, digits, dots"):
        check_name(name)


def test_the_name_of_another_model_s_encoded_view_is_refused(store: ModelStore, add: Add) -> None:
    """A model `tiny_jpeg` would answer what clients of `/v2` send to `tiny`'s view of encoded images."""
    tiny = add("tiny")
    with pytest.raises(InvalidParameter, match=r"^name must be without _jpeg at its end.*; got 'tiny_jpeg'$"):
        store.check_free("tiny_jpeg")
    tiny.folder.rename(store.root / "tiny_jpeg")
    path = store.root / "tiny_jpeg" / "model.json"
    path.write_text(path.read_text().replace('"name": "tiny"', '"name": "tiny_jpeg"'))
    for reference in ("tiny_jpeg", str(path.parent)):
        with pytest.raises(ManifestInvalid, match=r"model\.json: name is 'tiny_jpeg': must not end in _jpeg"):
            store.open(reference)


def test_what_was_added_is_found_again(store: ModelStore, add: Add) -> None:
    added = add("tiny")
    assert store.names() == ("tiny",)
    assert store.open("tiny") == added
    assert store.list() == (added,)
    assert store.verify("tiny") == added
    assert sorted(path.name for path in added.folder.iterdir()) == ["model.json", "model.safetensors"]


def test_names_are_sorted_and_other_folders_are_none(store: ModelStore, add: Add) -> None:
    add("b")
    add("a")
    (store.root / "notes").mkdir()
    (store.root / "README.md").write_text("hello")
    assert store.names() == ("a", "b")


def test_a_store_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert ModelStore(tmp_path / "none").names() == ()


def test_a_model_opens_by_its_folder_whatever_that_is_called(add: Add, tmp_path: Path) -> None:
    moved = add("tiny").folder.rename(tmp_path / "elsewhere")
    model = ModelStore(tmp_path / "none").open(moved)
    assert (model.manifest.name, model.folder) == ("tiny", moved)
    model.verify()


def test_inside_a_store_the_folder_has_the_models_name(store: ModelStore, add: Add) -> None:
    add("tiny").folder.rename(store.root / "other")
    with pytest.raises(ManifestInvalid, match=r"model\.json: name is 'tiny': in a store .* 'other'$"):
        store.open("other")


def test_a_name_in_the_store_comes_before_a_folder(
    store: ModelStore, add: Add, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add("tiny")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert store.open("tiny").folder == store.root / "tiny"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory that no relative path leads to the store from."""
    folder = tmp_path / "some" / "where"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("name", ["missing", "../store/b", "a/../b", "b/"])
@pytest.mark.usefixtures("elsewhere")
def test_a_model_that_is_not_there_names_what_there_is(store: ModelStore, add: Add, name: str) -> None:
    add("b")
    add("a")
    with pytest.raises(ModelNotFound, match=r"^no model '.*' in .*; it has a, b$"):
        store.open(name)


@pytest.mark.parametrize("name", ["..", ".", "", "sub"])
def test_a_folder_without_a_manifest_is_said_to_be_none(
    store: ModelStore, elsewhere: Path, name: str
) -> None:
    (elsewhere / "sub").mkdir()
    with pytest.raises(ModelNotFound, match=r" is a folder without a model\.json, so it is no model$"):
        store.open(name)


def test_an_empty_store_says_so(store: ModelStore) -> None:
    with pytest.raises(ModelNotFound, match=r"no model 'x' in .*; the folder does not exist$"):
        store.open("x")
    store.root.mkdir()
    with pytest.raises(ModelNotFound, match=r"no model 'x' in .*; it is empty$"):
        store.open("x")


def test_changed_weights_are_found_out_with_both_hashes(store: ModelStore, add: Add) -> None:
    model = add("tiny")
    recorded = model.manifest.weights.sha256
    data = bytearray(model.weights_path.read_bytes())
    data[-1] ^= 1
    model.weights_path.write_bytes(data)
    found = sha256_of(model.weights_path)
    with pytest.raises(
        WeightsInvalid, match=rf"model\.safetensors: has sha256 {found}, but model\.json records {recorded}$"
    ):
        store.verify("tiny")


def test_missing_weights_are_named(store: ModelStore, add: Add) -> None:
    add("tiny").weights_path.unlink()
    with pytest.raises(WeightsInvalid, match=r"model\.safetensors: the weights of tiny are not there$"):
        store.verify("tiny")


def test_a_link_out_of_the_folder_is_refused(store: ModelStore, add: Add, tmp_path: Path) -> None:
    path = add("tiny").weights_path
    path.rename(tmp_path / "outside.safetensors")
    path.symlink_to(tmp_path / "outside.safetensors")
    with pytest.raises(WeightsInvalid, match=r"links to .*outside\.safetensors, outside the model's folder$"):
        store.verify("tiny")


def test_shapes_come_from_the_header(add: Add) -> None:
    assert add("tiny").shapes() == {"head.weight": (2, 6)}


def test_hashing_reports_every_byte(add: Add) -> None:
    path = add("tiny").weights_path
    steps: list[int] = []
    sha256_of(path, steps.append)
    assert sum(steps) == path.stat().st_size


def test_the_embedded_model_is_what_its_manifest_says(root: Path) -> None:
    model = ModelStore(root / "model_store").verify("deit_tiny_imagenette")
    shapes = model.shapes()
    assert shapes["head.weight"] == (len(model.manifest.labels), 192)
    assert sum(map(math.prod, shapes.values())) == model.manifest.weights.parameters


def test_the_manifest_on_disk_is_json_that_people_can_read(add: Add) -> None:
    text = (add("tiny").folder / "model.json").read_text()
    assert json.loads(text)["labels"] == ["cat", "dog"]
    assert '\n  "licence": "Apache-2.0",\n' in text


def test_a_store_that_cannot_be_listed_says_why(tmp_path: Path) -> None:
    """No file is left to open: a server answers with that, and not with a traceback."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(ModelError) as refusal:
            ModelStore(tmp_path).names()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert str(refusal.value) == f"{tmp_path}: the models there cannot be listed (Too many open files)"
