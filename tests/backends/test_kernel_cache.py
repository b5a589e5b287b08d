"""What OpenVINO has prepared is kept and loaded again, and a file that is not what was written is not used."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset13

from prunepool.backends import openvino_runtime
from prunepool.backends.kernel_cache import KernelCache

SETTINGS = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": ov.Type.f32}


class Counting:
    """An `openvino.Core` that counts what it prepares."""

    def __init__(self) -> None:
        self._core = openvino_runtime.core()
        self.prepared = 0

    def read_model(self, *given: bytes) -> ov.Model:
        return self._core.read_model(*given)

    def import_model(self, *given: object) -> ov.CompiledModel:
        return self._core.import_model(*given)

    def compile_model(self, *given: object) -> ov.CompiledModel:
        self.prepared += 1
        return self._core.compile_model(*given)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    given = opset13.parameter([-1, 64], np.float32)
    weights = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    made = ov.Model([opset13.matmul(given, opset13.constant(weights), False, False)], [given])
    path = tmp_path_factory.mktemp("model") / "model.xml"
    ov.save_model(made, path, compress_to_fp16=False)
    return path.read_bytes(), path.with_suffix(".bin").read_bytes()


def answers(core: Counting, cache: KernelCache, model: tuple[bytes, bytes], **more: object) -> list[object]:
    compiled = cache.compile(core, *model, {**SETTINGS, **more})
    return list(compiled(np.ones((3, 64), np.float32))[0].tolist())


def test_what_was_prepared_once_is_loaded_later(model: tuple[bytes, bytes], tmp_path: Path) -> None:
    core, folder = Counting(), tmp_path / "not" / "there"
    first = KernelCache(folder)
    expected = answers(core, first, model)
    assert core.prepared == 1
    assert not folder.exists(), "it may yet be a format that is not chosen"
    first.keep()
    assert answers(core, KernelCache(folder), model) == expected
    assert core.prepared == 1
    answers(core, KernelCache(folder), model, INFERENCE_NUM_THREADS=2)
    assert core.prepared == 2, "other settings, other kernels"
    answers(core, KernelCache(folder), (model[0], model[1][:-4] + bytes(4)))
    assert core.prepared == 3, "other weights"
    assert answers(Counting(), KernelCache(), model) == expected, "without a folder"


@pytest.mark.parametrize("damage", ["cut", "empty", "changed", "foreign", "folder"])
def test_a_damaged_file_is_made_again(
    model: tuple[bytes, bytes], tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    core, first = Counting(), KernelCache(tmp_path)
    expected = answers(core, first, model)
    first.keep()
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    if damage == "folder":
        file.unlink()
        file.mkdir()
    else:
        changed = bytearray(content)
        changed[len(content) // 2] ^= 1
        damaged = {"cut": content[:-1], "empty": b"", "changed": bytes(changed), "foreign": b"x" * 1000}
        file.write_bytes(damaged[damage])
    again = KernelCache(tmp_path)
    assert answers(core, again, model) == expected
    assert core.prepared == 2
    assert str(file) in caplog.text
    again.keep()
    if damage != "folder":
        assert answers(core, KernelCache(tmp_path), model) == expected
        assert core.prepared == 2


def test_what_cannot_be_kept_is_still_used(
    model: tuple[bytes, bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    cache = KernelCache(tmp_path / "file" / "folder")
    with caplog.at_level(logging.WARNING):
        assert answers(Counting(), cache, model)
        cache.keep()
    assert "is not kept for the next start" in caplog.text
