"""Conversions beside a server: whatever became of their files, an engine starts, and the broken is made again."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prunepool.backends import converted, cpu_choice, openvino_convert
from prunepool.backends.converted import COMPILED, CompiledModel, ConvertedModels
from prunepool.backends.registry import BackendOptions, LoadedBackend
from prunepool.errors import ConversionInvalid, InvalidParameter
from prunepool.server.pinned_models import PinnedModels, open_pinned
from prunepool.store import (
    Compiled,
    CompiledFile,
    ModelStore,
    PassFiles,
    ReductionDefaults,
    StoredModel,
    Weights,
    hidden,
)

ROOT = Path(__file__).parents[2]
CONTENT = {"ppt.xml.gz": b"<net/>" * 100, "ppt.bin": bytes(range(256)) * 10}


@pytest.fixture
def stored() -> StoredModel:
    """The packaged model, as it is before it is compiled."""
    model = ModelStore(ROOT / "model_store").open("deit_tiny_imagenette")
    return StoredModel(model.manifest.model_copy(update={"compiled": None}), model.folder)


@pytest.fixture
def models(tmp_path: Path) -> ConvertedModels:
    return ConvertedModels(tmp_path / "converted")


def write(folder: Path) -> Compiled:
    """What a conversion leaves in its folder."""
    folder.mkdir(parents=True)
    files = []
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
        files.append(CompiledFile(file=name, sha256=hashlib.sha256(content).hexdigest()))
    compiled = Compiled(
        openvino="2026.4",
        source_sha256="a" * 64,
        passes=(
            PassFiles(weights="float32", method="ppt", blocks=(3, 6, 9), graph=files[0], constants=files[1]),
        ),
    )
    (folder / COMPILED).write_text(compiled.model_dump_json())
    return compiled


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A conversion takes no time; where each was made."""
    made: list[Path] = []

    def run(stored: StoredModel, target: Path) -> None:
        write(target)
        made.append(target)

    monkeypatch.setattr(converted, "_run", run)
    return made


@pytest.fixture
def make(
    models: ConvertedModels, stored: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], LoadedBackend]:
    """Makes a backend, which reads all files of the conversion, and none of PyTorch."""

    def compiled_backend(manifest: Any, model: CompiledModel, *_: Any) -> LoadedBackend:
        for one in model.compiled.files():
            model.read(one)
        return LoadedBackend(None, "cpu", "compiled", ())  # type: ignore[arg-type]

    plain = LoadedBackend(None, "cpu", "plain", ())  # type: ignore[arg-type]
    monkeypatch.setattr(cpu_choice, "compiled_backend", compiled_backend)
    monkeypatch.setattr("prunepool.backends.torch_cpu.make", lambda *_: plain)
    monkeypatch.setattr(cpu_choice.openvino_runtime, "installed", lambda: True)
    options = BackendOptions("cpu", "float32", 2, 0, False, True, models.root)
    return lambda: cpu_choice.make(stored, options, {})


def better(loaded: LoadedBackend) -> bool:
    """Have the faster backend made, if there is one to come; whether it was."""
    if loaded.better is None:
        return False
    done: list[None] = []
    loaded.better(lambda: done.append(None))
    for thread in converted.threading.enumerate():
        if thread.name.startswith("prunepool-convert-"):
            thread.join(20)
    return bool(done)


def broken(whole: bytes, how: str) -> bytes:
    return {"cut": whole[:-3], "empty": b"", "foreign": b"{}" * 100, "bits": whole[:-3] + b"...."}[how]


@pytest.mark.parametrize("how", ["cut", "empty", "foreign", "bits"])
@pytest.mark.parametrize("name", [*CONTENT, COMPILED])
def test_a_file_that_is_not_what_was_written_is_made_again_while_pytorch_serves(
    name: str,
    how: str,
    models: ConvertedModels,
    stored: StoredModel,
    make: Callable[[], LoadedBackend],
    conversions: list[Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = models.folder(stored.manifest)
    write(folder)
    assert make().dtype == "compiled"
    (folder / name).write_bytes(broken((folder / name).read_bytes(), how))
    loaded = make()
    assert loaded.dtype == "plain"
    assert len({record.getMessage() for record in caplog.records}) == 1
    assert better(loaded)
    assert conversions == [folder]
    assert make().dtype == "compiled"


@pytest.mark.parametrize("name", [*CONTENT, COMPILED])
def test_a_named_pipe_in_the_place_of_a_file_is_not_waited_for(
    name: str,
    models: ConvertedModels,
    stored: StoredModel,
    make: Callable[[], LoadedBackend],
    conversions: list[Path],
) -> None:
    folder = models.folder(stored.manifest)
    write(folder)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert better(make())
    assert make().dtype == "compiled"


def test_something_else_in_the_place_of_a_conversion_makes_way(
    models: ConvertedModels, stored: StoredModel, make: Callable[[], LoadedBackend], conversions: list[Path]
) -> None:
    folder = models.folder(stored.manifest)
    folder.mkdir(parents=True)
    (folder / "note.txt").touch()
    assert better(make())
    assert make().dtype == "compiled"


def test_what_was_read_does_not_change_with_its_file(models: ConvertedModels, stored: StoredModel) -> None:
    """A page of a mapped file that is cut would end the process by SIGBUS."""
    folder = models.folder(stored.manifest)
    compiled = write(folder)
    found = models.find(stored)
    assert found is not None
    content = found.read(compiled.passes[0].constants)
    os.truncate(folder / "ppt.bin", 0)
    assert content == CONTENT["ppt.bin"]
    assert str(folder) not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), subprocess.CalledProcessError(1, "x", stderr="no\nroom\n")],
)
def test_without_room_pytorch_goes_on_and_one_line_says_why(
    error: Exception,
    make: Callable[[], LoadedBackend],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def run(stored: StoredModel, target: Path) -> None:
        raise error

    monkeypatch.setattr(converted, "_run", run)
    loaded = make()
    assert loaded.dtype == "plain"
    assert not better(loaded)
    (line,) = caplog.messages
    assert "stays with PyTorch, the conversion failed" in line
    assert "room" in line or "No space" in line
    assert "\n" not in line


def test_what_can_be_neither_used_nor_deleted_is_not_tried_again_and_again(
    models: ConvertedModels,
    stored: StoredModel,
    make: Callable[[], LoadedBackend],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a file system that has become read-only: each renewal would find the same, and ask for another."""

    def refuse(path: Path) -> None:
        raise PermissionError(30, "Read-only file system", str(path))

    folder = models.folder(stored.manifest)
    write(folder)
    monkeypatch.setattr(hidden, "delete", refuse)
    (folder / "ppt.bin").write_bytes(b"")
    assert make().better is None
    (folder / COMPILED).write_bytes(b"")
    assert not better(make())


def test_what_openvino_cannot_run_is_left_to_pytorch(
    models: ConvertedModels,
    stored: StoredModel,
    make: Callable[[], LoadedBackend],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*_: Any) -> None:
        raise ConversionInvalid("OpenVINO cannot run the compiled pass: no such operation")

    write(models.folder(stored.manifest))
    monkeypatch.setattr(cpu_choice, "compiled_backend", refuse)
    loaded = make()
    assert (loaded.dtype, loaded.better) == ("plain", None)
    assert "stays with PyTorch: OpenVINO cannot run" in caplog.text


@pytest.mark.parametrize(("dtype", "better"), [("bfloat16", False), ("auto", True), ("float32", True)])
def test_what_nothing_would_use_is_not_converted(
    models: ConvertedModels,
    stored: StoredModel,
    make: Callable[[], LoadedBackend],
    monkeypatch: pytest.MonkeyPatch,
    dtype: str,
    better: bool,
) -> None:
    """Half a minute of a core, and the same backend afterwards."""
    monkeypatch.setattr(cpu_choice.openvino_runtime, "has_bfloat16", lambda: False)
    loaded = cpu_choice.make(stored, BackendOptions("cpu", dtype, 2, 0, False, True, models.root), {})
    assert loaded.dtype == "plain"
    assert (loaded.better is not None) == better


def test_a_conversion_that_was_killed_leaves_nothing_for_ever(
    models: ConvertedModels, stored: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the first that the kernel ends where memory runs out."""
    target = models.folder(stored.manifest)
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from prunepool.store import hidden\n"
        "with hidden.staging(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'ppt.bin').write_bytes(bytes(100))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(models.root)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(models.root.iterdir())) == 1

    def compile_model(model: Any, formats: Any, folder: Path) -> Compiled:
        folder.rmdir()
        return write(folder)

    monkeypatch.setattr("prunepool.models.loader.load_model", lambda *_, **__: None)
    monkeypatch.setattr("prunepool.backends.openvino_compile.compile_model", compile_model)
    openvino_convert.convert(stored, target)
    assert list(models.root.iterdir()) == [target]
    assert models.find(stored) is not None


@pytest.mark.nightly  # the conversion of the smallest model takes half a minute on a busy machine
def test_what_an_engine_serves_is_converted_beside_it(models: ConvertedModels, tmp_path: Path) -> None:
    """The parent of an engine has pinned it: its files are links to what the parent has open."""
    store, done = ModelStore(ROOT / "model_store"), threading.Event()
    reference = PinnedModels(tmp_path / "pinned", store).pin("deit_tiny_imagenette")
    stored = open_pinned(tmp_path / "pinned", store, reference)
    models.convert(stored, done.set)
    assert done.wait(100.0)
    assert models.find(stored) is not None


def test_two_that_want_it_at_once_make_it_once(
    models: ConvertedModels, stored: StoredModel, conversions: list[Path]
) -> None:
    told: list[int] = []
    for _ in range(4):
        models.convert(stored, lambda: told.append(1))
    for thread in threading.enumerate():
        if thread.name.startswith("prunepool-convert-"):
            thread.join(20)
    assert len(told) == 4
    assert len(conversions) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"input_size": 384},
        {"mean": (0.4, 0.5, 0.5)},
        {"reduction": ReductionDefaults(max_ratio=0.5)},
        {"weights": Weights(sha256="e" * 64, dtype="float16", parameters=1)},
    ],
)
def test_a_conversion_is_for_one_model_alone(
    change: dict[str, object], models: ConvertedModels, stored: StoredModel
) -> None:
    assert models.folder(stored.manifest.model_copy(update=change)) != models.folder(stored.manifest)


def test_a_conversion_ends_with_the_process_that_started_it() -> None:
    program = (
        "import threading, time; from prunepool.backends import openvino_convert as c; "
        "threading.Thread(target=c._end_with_parent, daemon=True).start(); "
        "print('up', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdin is not None
    assert child.stdout.readline() == "up\n"
    child.stdin.close()
    assert child.wait(20) == 1
    child.stdout.close()


@pytest.mark.parametrize("kind", ["rotary", "relative"])
def test_what_no_conversion_could_follow_is_not_converted_and_one_line_says_so(
    kind: str,
    models: ConvertedModels,
    stored: StoredModel,
    make: Callable[[], LoadedBackend],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger=cpu_choice.__name__)
    geometry = stored.manifest.geometry
    assert geometry is not None
    turning = geometry.model_copy(update={"positions": kind})
    model = StoredModel(stored.manifest.model_copy(update={"geometry": turning}), stored.folder)
    options = BackendOptions("cpu", "float32", 2, 0, False, True, models.root)
    assert make().better is not None
    loaded = cpu_choice.make(model, options, {})
    assert (loaded.dtype, loaded.better) == ("plain", None)
    assert f"stays with PyTorch: a converted pass does not follow its {kind} positions" in caplog.text
    with pytest.raises(InvalidParameter, match=f"dtype must be auto, float32 or bfloat16 for .* its {kind}"):
        cpu_choice.make(model, replace(options, dtype="int8"), {})
