"""Changes to the store are atomic, with concurrent writers and when something fails."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from prunepool.errors import ManifestInvalid, ModelError, ModelNotFound, WeightsInvalid
from prunepool.store import (
    Compiled,
    CompiledFile,
    Geometry,
    Manifest,
    ModelStore,
    PassFiles,
    ProfilePoint,
    StoredModel,
    replacement,
)
from prunepool.store.exchange import exchange
from prunepool.store.model import sha256_of

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


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_what_a_library_wrote_for_its_owner_alone_can_be_read_by_the_service_s_user(
    store: ModelStore, document: dict[str, Any], mask: int, mode: int
) -> None:
    """safetensors makes its files 0600, and a container's user is another one."""
    with store.staging() as folder:
        path = folder / "model.safetensors"
        save_file({"head.weight": np.ones((2, 6), np.float32)}, path)
        path.chmod(0o600)
        weights = document["weights"] | {"sha256": sha256_of(path)}
        manifest = Manifest.model_validate(document | {"weights": weights})
        before = os.umask(mask)
        try:
            added = store.add(manifest, folder)
        finally:
            os.umask(before)
    assert added.weights_path.stat().st_mode & 0o777 == mode


def test_a_second_model_of_a_name_is_refused_and_the_first_stays(store: ModelStore, add: Add) -> None:
    first = add("tiny", value=1.0)
    with pytest.raises(ModelError, match=r"already has a model 'tiny'; use --force to replace it"):
        add("tiny", value=2.0)
    assert store.verify("tiny") == first
    assert hidden(store) == []


def test_with_replace_the_second_takes_its_place(store: ModelStore, add: Add) -> None:
    add("tiny", value=1.0)
    second = add("tiny", value=2.0, replace=True)
    assert store.verify("tiny") == second
    assert hidden(store) == []


@pytest.fixture(params=["one step", "two steps"])
def steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Replacing with and without the file system's exchange."""
    if request.param == "two steps":
        monkeypatch.setattr(replacement, "exchange", lambda one, other: False)
    return str(request.param)


def test_the_file_system_of_the_tests_can_exchange_folders(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert exchange(tmp_path / "a", tmp_path / "b")
    assert [path.name for name in "ab" for path in (tmp_path / name).iterdir()] == ["b", "a"]
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "a", tmp_path / "c")


def test_replacing_and_adding_give_the_new_model_either_way(store: ModelStore, add: Add, steps: str) -> None:
    for value in (1.0, 2.0, 3.0):
        added = add("tiny", value=value, replace=True)
        assert store.verify("tiny") == added
    assert hidden(store) == []


def test_a_reader_finds_a_model_at_any_time_while_it_is_replaced(store: ModelStore, add: Add) -> None:
    add("tiny")
    packaged = store.root.rename(store.root.with_name("packaged"))
    layered = ModelStore(store.root, packaged)
    add("tiny", value=1.0)
    done = threading.Event()

    def replace() -> None:
        try:
            for value in range(100):
                add("tiny", value=float(value), replace=True)
        finally:
            done.set()

    with ThreadPoolExecutor(1) as pool:
        replacing = pool.submit(replace)
        seen = [layered.open("tiny")]
        while not done.is_set():
            seen.append(layered.open("tiny"))
        replacing.result()
    assert {model.packaged for model in seen} == {False}


def stuck(*names: str) -> Callable[[Path, Path], Path]:
    """`Path.rename` that fails for some folders, by how their names begin."""
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.name.startswith(names):
            raise OSError(errno.EIO, "Input/output error")
        return real(self, target)

    return rename


def test_a_replacement_that_fails_leaves_the_old_model(
    store: ModelStore, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = add("tiny")
    monkeypatch.setattr(replacement, "exchange", lambda one, other: False)
    monkeypatch.setattr(Path, "rename", stuck(".staging"))
    with pytest.raises(ModelError, match=r"^cannot write to the store .*: Input/output error$"):
        add("tiny", value=2.0, replace=True)
    assert store.verify("tiny") == old
    assert hidden(store) == []


def test_a_model_that_cannot_be_moved_back_is_kept_and_the_next_change_restores_it(
    store: ModelStore, add: Add
) -> None:
    old = add("tiny")
    with pytest.MonkeyPatch.context() as failing:
        failing.setattr(replacement, "exchange", lambda one, other: False)
        failing.setattr(Path, "rename", stuck(".staging", ".replaced"))
        with pytest.raises(
            ModelError, match=r"previous model is kept as .*\.replaced-tiny-.*cannot be moved"
        ):
            add("tiny", value=2.0, replace=True)
    assert store.names() == ()
    add("other")
    assert store.verify("tiny") == old
    assert hidden(store) == []


class Killed(BaseException):
    """Ends a process's work without any of its clean-up of errors, as SIGKILL does."""


def test_a_model_whose_replacement_was_killed_half_way_is_restored(store: ModelStore, add: Add) -> None:
    def kill(*paths: Path) -> bool:
        raise Killed

    old = add("tiny")
    with pytest.MonkeyPatch.context() as killing:
        killing.setattr(replacement, "exchange", lambda one, other: False)
        killing.setattr(replacement, "move", kill)
        with pytest.raises(Killed):
            add("tiny", value=2.0, replace=True)
    assert store.names() == ()
    add("other")
    assert store.verify("tiny") == old
    assert hidden(store) == []


def test_a_model_that_has_a_successor_is_not_restored(store: ModelStore, add: Add) -> None:
    new = add("tiny", value=2.0)
    add("older").folder.rename(store.root / f".replaced-tiny-{'0' * 16}")
    add("other")
    assert store.verify("tiny") == new
    assert hidden(store) == []


def test_what_a_process_that_was_killed_left_is_deleted_by_the_next_change(
    store: ModelStore, add: Add
) -> None:
    code = (
        "import os, signal, sys\n"
        "from prunepool.store import ModelStore\n"
        "with ModelStore(sys.argv[1]).staging() as folder:\n"
        "    (folder / 'model.safetensors').write_bytes(bytes(100))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(store.root)], check=False)
    (store.root / f".trash-{'0' * 16}").mkdir()
    assert len(hidden(store)) == 2
    add("tiny")
    assert hidden(store) == []


def test_a_manifest_that_was_never_moved_into_place_is_deleted_by_the_next_change(
    store: ModelStore, add: Add
) -> None:
    folder = add("tiny").folder
    left, written, foreign = (
        folder / f".model.json.{name}" for name in ("0123abcd", "4567abcd", "swp of an editor")
    )
    for path in (left, written, foreign):
        path.touch()
    for path in (left, foreign):
        os.utime(path, (0, 0))
    add("other")
    assert not left.exists()
    assert written.exists()
    assert foreign.exists()


def test_what_is_being_staged_is_not_taken_for_a_leftover(store: ModelStore, add: Add) -> None:
    with store.staging() as folder:
        add("tiny")
        add("tiny", value=2.0, replace=True)
        store.remove("tiny")
        assert hidden(store) == [folder]


def test_files_of_a_working_file_s_name_are_no_leftovers(store: ModelStore, add: Add) -> None:
    store.root.mkdir()
    (store.root / ".tiny-calibration.jsonl").write_text("")
    add("tiny")
    assert [path.name for path in hidden(store)] == [".tiny-calibration.jsonl"]


def test_replace_never_deletes_a_file_in_a_model_s_place(store: ModelStore, add: Add) -> None:
    store.root.mkdir()
    (store.root / "tiny").write_text("precious")
    with pytest.raises(ModelError, match=r"tiny is not a model .*; it is left as it is$"):
        add("tiny", replace=True)
    assert (store.root / "tiny").read_text() == "precious"


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


def without_locks(*_: object) -> None:
    """`fcntl.flock` of a file system that has none."""
    raise OSError(errno.ENOLCK, "No locks available")


def test_a_rival_that_comes_after_the_check_is_not_overwritten(
    store: ModelStore, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcntl.flock", without_locks)
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
        with store.staging() as folder, files_no_larger_than(1000), store.writing():
            (folder / "model.safetensors").write_bytes(bytes(100_000))

    with pytest.raises(ModelError, match=r"^cannot write to the store .*: File too large$"):
        copy()
    assert list(store.root.iterdir()) == []


def test_a_file_that_cannot_be_read_while_staging_is_not_said_to_be_a_store_that_cannot_be_written(
    store: ModelStore, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError), store.staging():
        (tmp_path / "missing").read_bytes()


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
    store.update_manifest("tiny", model.manifest, {"profile": (point,)})
    assert store.verify("tiny").manifest.profile == (point,)
    assert sorted(path.name for path in model.folder.iterdir()) == ["model.json", "model.safetensors"]


def test_a_reader_never_sees_half_an_update(store: ModelStore, add: Add) -> None:
    model = add("tiny")
    labels = [("long",) * 20_000, ("short",) * 2]
    store.update_manifest("tiny", model.manifest, {"labels": labels[1]})
    done = threading.Event()
    with ThreadPoolExecutor(1) as pool:

        def update() -> None:
            for _ in range(10):
                for one in labels:
                    store.update_manifest("tiny", model.manifest, {"labels": one})
            done.set()

        updating = pool.submit(update)
        seen = [store.open("tiny").manifest]
        while not done.is_set() and not updating.done():
            seen.append(store.open("tiny").manifest)
        updating.result()
    assert all(manifest.labels in labels for manifest in seen)


def test_an_update_that_fails_leaves_the_old_manifest(store: ModelStore, add: Add) -> None:
    model = add("tiny")
    with files_no_larger_than(10_000), pytest.raises(ModelError, match=r"model\.json: File too large$"):
        store.update_manifest("tiny", model.manifest, {"labels": ("label",) * 10_000})
    assert store.open("tiny") == model
    assert sorted(path.name for path in model.folder.iterdir()) == ["model.json", "model.safetensors"]


def test_an_update_cannot_rename(store: ModelStore, add: Add) -> None:
    model = add("tiny")
    with pytest.raises(ManifestInvalid, match=r"name is 'other': it must stay 'tiny'$"):
        store.update_manifest("tiny", model.manifest, {"name": "other"})


PROFILE = (ProfilePoint(ratio=0.5, gmacs=0.8, top1=0.9),)


def test_what_was_found_out_of_other_weights_is_not_written(store: ModelStore, add: Add) -> None:
    measured = add("tiny", value=1.0).manifest
    new = add("tiny", value=2.0, replace=True)
    with pytest.raises(ModelError, match=r"weights has been changed since the work began, so nothing was"):
        store.update_manifest("tiny", measured, {"profile": PROFILE})
    assert store.verify("tiny") == new
    store.remove("tiny")
    with pytest.raises(ModelNotFound):
        store.update_manifest("tiny", measured, {"profile": PROFILE})


def test_what_others_wrote_meanwhile_stays(store: ModelStore, add: Add) -> None:
    measured = add("tiny").manifest
    store.update_manifest("tiny", measured, {"profile": PROFILE})
    store.update_manifest("tiny", measured, {"labels": ("one", "two")})
    found = store.open("tiny").manifest
    assert (found.profile, found.labels) == (PROFILE, ("one", "two"))
    with pytest.raises(ModelError, match=r"profile has been changed since the work began"):
        store.update_manifest("tiny", measured, {"labels": ("a", "b")}, depends_on=("profile",))


def compiled(measured: Manifest, staged: Path, content: bytes) -> dict[str, object]:
    """Write the files of a compiled model; return what a manifest says of them."""
    files = []
    for name in ("pass.xml.gz", "float32.bin"):
        (staged / name).write_bytes(content)
        files.append(CompiledFile(file=name, sha256=sha256_of(staged / name)))
    graph, constants = files
    one = PassFiles(weights="float32", method="ppt", blocks=(), graph=graph, constants=constants)
    geometry = {
        "depth": 12, "width": 192, "heads": 3, "mlp_width": 768, "patch_size": (16, 16),
        "patch_grid": (14, 14), "prefix_tokens": 1, "classes": 2,
    }  # fmt: skip
    return {
        "compiled": Compiled(openvino="1", source_sha256=measured.weights.sha256, passes=(one,)),
        "geometry": Geometry.model_validate(geometry),
    }


@pytest.mark.parametrize("inside", [True, False], ids=["in the store", "elsewhere"])
def test_a_profile_that_was_written_while_a_model_was_compiled_stays(
    store: ModelStore, add: Add, tmp_path: Path, inside: bool
) -> None:
    model = add("tiny")
    name = "tiny" if inside else str(model.folder.rename(tmp_path / "tiny"))
    for content in (b"one", b"two"):
        stored = store.open(name)
        with store.staging(stored) as staged:
            found = compiled(stored.manifest, staged, content)
            store.update_manifest(name, stored.manifest, {"profile": PROFILE})
            store.update_manifest(name, stored.manifest, found, staged=staged)
        now = store.open(name)
        now.verify()
        assert now.manifest.profile == PROFILE
        assert now.read_compiled(now.manifest.compiled.passes[0].graph) == content  # type: ignore[union-attr]
        names = ["float32.bin", "model.json", "model.safetensors", "pass.xml.gz"]
        assert sorted(path.name for path in now.folder.iterdir()) == names


def test_a_model_replaced_while_it_was_compiled_stays_the_new_one(store: ModelStore, add: Add) -> None:
    old = add("tiny", value=1.0)
    with store.staging(old) as staged:
        found = compiled(old.manifest, staged, b"one")
        new = add("tiny", value=2.0, replace=True)
        with pytest.raises(ModelError, match="weights has been changed"):
            store.update_manifest("tiny", old.manifest, found, staged=staged)
    assert store.verify("tiny") == new
    assert hidden(store) == []


def test_many_who_write_at_once_lose_nothing(store: ModelStore, add: Add) -> None:
    measured = add("tiny").manifest
    wanted = {"labels": ("a", "b"), "licence": "MIT", "origin": "here", "profile": PROFILE}
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            plain = {key: getattr(measured, key) for key in wanted}
            store.update_manifest("tiny", measured, plain)
            list(pool.map(lambda item: store.update_manifest("tiny", measured, dict([item])), wanted.items()))
            found = store.open("tiny").manifest
            assert {key: getattr(found, key) for key in wanted} == wanted
