"""What goes into the store and out of it: whole or not at all, whoever else is at it, whatever fails."""

from __future__ import annotations

import errno
import resource
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from prunepool.errors import ManifestInvalid, ModelError, ModelNotFound, WeightsInvalid
from prunepool.store import ModelStore, ProfilePoint, StoredModel

Add = Callable[..., StoredModel]


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """A disk that fills up: writing past `size` bytes of a file fails with a real OSError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def hidden(store: ModelStore) -> list[Path]:
    """What is left of staging and replacing."""
    return [path for path in store.root.iterdir() if path.name.startswith(".")]


def test_weights_other_than_the_manifests_are_not_added(store: ModelStore, add: Add) -> None:
    manifest = add("tiny").manifest
    with store.staging() as folder:
        (folder / "model.safetensors").write_bytes(b"something else")
        with pytest.raises(WeightsInvalid, match="has sha256"):
            store.add(manifest.model_copy(update={"name": "other"}), folder)
    assert store.names() == ("tiny",)


def test_a_second_model_of_a_name_is_refused_and_the_first_stays(store: ModelStore, add: Add) -> None:
    first = add("tiny", value=1.0)
    with pytest.raises(ModelError, match=r"already has a model 'tiny'; --force replaces it"):
        add("tiny", value=2.0)
    assert store.verify("tiny") == first
    assert hidden(store) == []


def test_with_replace_the_second_takes_its_place(store: ModelStore, add: Add) -> None:
    add("tiny", value=1.0)
    second = add("tiny", value=2.0, replace=True)
    assert store.verify("tiny") == second
    assert hidden(store) == []


def test_a_replacement_that_fails_brings_the_old_model_back(store: ModelStore, add: Add) -> None:
    class Stuck(type(Path())):  # type: ignore[misc]
        def rename(self, target: Path) -> Path:
            raise OSError(errno.EIO, "Input/output error")

    old = add("tiny")
    with store.staging() as folder:
        shutil.copyfile(old.weights_path, folder / "model.safetensors")
        with pytest.raises(ModelError, match=r"^cannot write to the store .*: Input/output error$"):
            store.add(old.manifest, Stuck(folder), replace=True)
    assert store.verify("tiny") == old
    assert hidden(store) == []


def test_replace_never_deletes_a_folder_that_is_no_model(store: ModelStore, add: Add) -> None:
    (store.root / "tiny").mkdir(parents=True)
    (store.root / "tiny" / "thesis.txt").write_text("precious")
    with pytest.raises(ModelError, match=r"tiny is not a model .*; it is left as it is$"):
        add("tiny", replace=True)
    assert (store.root / "tiny" / "thesis.txt").read_text() == "precious"


def test_a_replaced_link_leaves_what_it_points_at(store: ModelStore, add: Add, tmp_path: Path) -> None:
    outside = add("tiny").folder.rename(tmp_path / "outside")
    (store.root / "tiny").symlink_to(outside)
    add("tiny", value=2.0, replace=True)
    assert sorted(path.name for path in outside.iterdir()) == ["model.json", "model.safetensors"]
    assert not (store.root / "tiny").is_symlink()


def at_once(count: int, work: Callable[[int], object]) -> list[object]:
    """Results, or errors of ours, of `work` run by so many threads that start together."""
    barrier = threading.Barrier(count)

    def run(index: int) -> object:
        barrier.wait()
        try:
            return work(index)
        except ModelError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def test_of_many_that_add_one_name_at_once_exactly_one_wins(store: ModelStore, add: Add) -> None:
    results = at_once(8, lambda index: add("tiny", value=float(index)))
    winners = [result for result in results if isinstance(result, StoredModel)]
    assert [store.verify("tiny")] == winners
    assert all("already has a model" in str(result) for result in results if result not in winners)
    assert hidden(store) == []


def test_a_rival_that_comes_after_the_check_is_not_overwritten(store: ModelStore, add: Add) -> None:
    rivals: list[StoredModel] = []

    class Slow(ModelStore):
        def check_free(self, name: str) -> None:
            super().check_free(name)
            rivals.append(add("tiny", value=2.0))

    mine = add("other").manifest.model_copy(update={"name": "tiny"})
    with store.staging() as folder:
        shutil.copyfile(store.open("other").weights_path, folder / "model.safetensors")
        with pytest.raises(ModelError, match="already has a model 'tiny'"):
            Slow(store.root).add(mine, folder)
    assert [store.verify("tiny")] == rivals


def test_of_many_that_replace_one_name_at_once_the_last_is_whole(store: ModelStore, add: Add) -> None:
    results = at_once(4, lambda index: add("tiny", value=float(index), replace=True))
    assert store.verify("tiny") in results
    assert hidden(store) == []


def test_a_disk_that_fills_up_leaves_nothing(store: ModelStore) -> None:
    def copy() -> None:
        with store.staging() as folder, files_no_larger_than(1000):
            (folder / "model.safetensors").write_bytes(bytes(100_000))

    with pytest.raises(ModelError, match=r"^cannot write to the store .*: File too large$"):
        copy()
    assert list(store.root.iterdir()) == []


def test_a_store_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ModelError, match=r"^cannot write to the store .*file/store: Not a directory$"),
        ModelStore(tmp_path / "file" / "store").staging(),
    ):
        raise AssertionError("unreachable")


def test_what_is_staged_and_not_added_is_removed(store: ModelStore) -> None:
    with store.staging() as folder:
        (folder / "part").write_text("half")
    assert list(store.root.iterdir()) == []


def test_removing_deletes_one_model_with_its_files(store: ModelStore, add: Add) -> None:
    add("a")
    add("b")
    store.remove("a")
    assert [path.name for path in store.root.iterdir()] == ["b"]


@pytest.mark.parametrize("name", ["missing", "../outside", "..", ".", ""])
def test_only_a_model_of_the_store_can_be_removed(
    store: ModelStore, add: Add, tmp_path: Path, name: str
) -> None:
    add("a")
    outside = add("b").folder.rename(tmp_path / "outside")
    with pytest.raises(ModelNotFound, match=r"^no model .* it has a$"):
        store.remove(name)
    assert (outside / "model.json").is_file()


def test_a_model_with_a_broken_manifest_can_be_removed(store: ModelStore, add: Add) -> None:
    (add("a").folder / "model.json").write_text("{")
    store.remove("a")
    assert store.names() == ()


def test_a_manifest_is_updated_and_the_weights_stay(store: ModelStore, add: Add) -> None:
    model = add("tiny")
    point = ProfilePoint(ratio=0.5, gmacs=0.8, top1=0.9)
    store.update_manifest("tiny", model.manifest.model_copy(update={"profile": (point,)}))
    assert store.verify("tiny").manifest.profile == (point,)
    assert sorted(path.name for path in model.folder.iterdir()) == ["model.json", "model.safetensors"]


def test_a_reader_never_sees_half_an_update(store: ModelStore, add: Add) -> None:
    model = add("tiny")
    manifests = [
        model.manifest.model_copy(update={"labels": (label,) * count})
        for label, count in (("long", 20_000), ("short", 2))
    ]
    store.update_manifest("tiny", manifests[1])
    done = threading.Event()
    with ThreadPoolExecutor(1) as pool:

        def update() -> None:
            for _ in range(10):
                for manifest in manifests:
                    store.update_manifest("tiny", manifest)
            done.set()

        updating = pool.submit(update)
        seen = [store.open("tiny").manifest]
        while not done.is_set() and not updating.done():
            seen.append(store.open("tiny").manifest)
        updating.result()
    assert all(manifest in manifests for manifest in seen)


def test_an_update_that_fails_leaves_the_old_manifest(store: ModelStore, add: Add) -> None:
    model = add("tiny")
    longer = model.manifest.model_copy(update={"labels": ("label",) * 10_000})
    with files_no_larger_than(10_000), pytest.raises(ModelError, match=r"model\.json: File too large$"):
        store.update_manifest("tiny", longer)
    assert store.open("tiny") == model
    assert sorted(path.name for path in model.folder.iterdir()) == ["model.json", "model.safetensors"]


def test_an_update_cannot_rename(store: ModelStore, add: Add) -> None:
    model = add("tiny")
    with pytest.raises(ManifestInvalid, match=r"name is 'other': it must stay 'tiny'$"):
        store.update_manifest("tiny", model.manifest.model_copy(update={"name": "other"}))
