"""Models that are packaged with prunepool: found like the others, hidden by one's own, never written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prunepool.errors import ManifestInvalid, ModelError, ModelNotFound
from prunepool.store import ModelStore, ProfilePoint, StoredModel, open_store
from prunepool.store.locations import PACKAGED

Add = Callable[..., StoredModel]
Contents = dict[Path, bytes]


@pytest.fixture
def packaged(store: ModelStore, add: Add, tmp_path: Path) -> Path:
    """A folder of packaged models with `tiny` in it, and the store empty."""
    add("tiny")
    return store.root.rename(tmp_path / "packaged")


@pytest.fixture
def layered(store: ModelStore, packaged: Path) -> ModelStore:
    return ModelStore(store.root, packaged)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory of a user who has an empty data folder."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    return tmp_path


@pytest.fixture
def nobody() -> Iterator[None]:
    """The rights of a user who owns nothing."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    yield
    os.seteuid(before)


def contents(folder: Path) -> Contents:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_packaged_models_are_found_and_verified(layered: ModelStore, packaged: Path) -> None:
    assert layered.names() == ("tiny",)
    model = layered.verify("tiny")
    assert (model.folder, model.packaged) == (packaged / "tiny", True)


def test_a_model_of_the_store_hides_the_packaged_one(
    layered: ModelStore, store: ModelStore, add: Add
) -> None:
    mine = add("tiny", value=2.0)
    assert layered.names() == ("tiny",)
    assert layered.open("tiny") == mine
    assert not layered.open("tiny").packaged
    layered.remove("tiny")
    assert layered.open("tiny").packaged


def test_one_that_is_broken_hides_it_too(layered: ModelStore) -> None:
    (layered.root / "tiny").mkdir(parents=True)
    (layered.root / "tiny" / "model.json").write_text("{}")
    with pytest.raises(ManifestInvalid):
        layered.open("tiny")


def test_a_packaged_model_is_not_removed(layered: ModelStore, packaged: Path) -> None:
    before = contents(packaged)
    with pytest.raises(
        ModelError, match=r"^'tiny' is packaged with prunepool, in .*, and read-only; only models "
    ):
        layered.remove("tiny")
    assert contents(packaged) == before


def test_a_name_that_is_packaged_is_taken_until_forced(layered: ModelStore) -> None:
    with pytest.raises(
        ModelError, match="'tiny' is packaged with prunepool; use --force to let yours take precedence"
    ):
        layered.check_free("tiny")
    model = layered.open("tiny")
    for replace in (False, True):
        with layered.staging() as staged:
            (staged / "model.safetensors").write_bytes(model.weights_path.read_bytes())
            if not replace:
                with pytest.raises(ModelError, match="packaged"):
                    layered.add(model.manifest, staged)
            else:
                layered.add(model.manifest, staged, replace=True)
    assert layered.open("tiny").folder == layered.root / "tiny"


def test_a_changed_manifest_is_that_of_a_copy(layered: ModelStore, packaged: Path) -> None:
    for path in contents(packaged):
        path.chmod(0o444)  # as a system's package manager leaves them
    before = contents(packaged)
    model = layered.open("tiny")
    profile = (ProfilePoint(ratio=0.0, gmacs=1.0),)
    changed = layered.update_manifest("tiny", model.manifest, {"profile": profile})
    assert (changed.folder, changed.packaged) == (layered.root / "tiny", False)
    assert layered.verify("tiny").manifest.profile == profile
    assert contents(packaged) == before
    again = layered.update_manifest("tiny", changed.manifest, {"profile": None})
    assert again.manifest.profile is None, "the copy can be written"


def test_a_copy_of_a_packaged_model_has_its_subfolders(layered: ModelStore, packaged: Path) -> None:
    (packaged / "tiny" / "notes").mkdir()
    (packaged / "tiny" / "notes" / "card.md").write_text("tiny")
    changed = layered.update_manifest("tiny", layered.open("tiny").manifest, {})
    assert (changed.folder / "notes" / "card.md").read_text() == "tiny"


def test_a_packaged_file_that_cannot_be_read_is_named(layered: ModelStore, packaged: Path) -> None:
    (packaged / "tiny" / "card.md").symlink_to("missing")
    with pytest.raises(ModelError, match=r"tiny/card\.md: cannot be read \(No such file or directory\)$"):
        layered.update_manifest("tiny", layered.open("tiny").manifest, {})
    assert list(layered.root.iterdir()) == []


def test_work_on_a_packaged_model_lies_in_the_store(layered: ModelStore, packaged: Path) -> None:
    path = layered.work_file(layered.open("tiny"), "notes.jsonl")
    path.write_text("")
    assert path.parent == layered.root
    assert layered.names() == ("tiny",)
    assert [path.name for path in (packaged / "tiny").iterdir() if path.suffix == ".jsonl"] == []


def test_what_is_not_there_is_named_with_what_is(layered: ModelStore) -> None:
    with pytest.raises(
        ModelNotFound, match=r"^no model 'big' in .* or packaged with prunepool; there are: tiny$"
    ):
        layered.open("big")


def test_a_folder_that_is_named_is_the_store_and_nothing_else(home: Path) -> None:
    (home / "empty" / "model_store").mkdir()
    store = open_store(home / "models")
    assert (store.root, store.names()) == (home / "models", ())


def test_the_working_directory_s_store_comes_before_the_user_s(home: Path) -> None:
    assert open_store().root == home / "data" / "prunepool" / "models"
    (home / "empty" / "model_store").mkdir()
    assert open_store().root == Path("model_store")
    assert open_store().packaged == PACKAGED


def test_the_embedded_models_are_the_packaged_ones(home: Path, root: Path) -> None:
    embedded = {path.name for path in (root / "model_store").iterdir() if (path / "README.md").is_file()}
    assert set(open_store().names()) == embedded
    for name in embedded:
        folder = open_store().verify(name).folder
        assert folder.resolve() == (root / "model_store" / name).resolve(), "kept once, and linked"


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A folder that nobody may look into."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o000)
    yield folder
    folder.chmod(0o700)


def test_a_data_folder_that_may_not_be_read_holds_no_models(closed: Path, nobody: None) -> None:
    store = ModelStore(closed / "models", closed / "packaged")
    assert store.names() == ()
    with pytest.raises(ModelNotFound):
        store.open("tiny")
