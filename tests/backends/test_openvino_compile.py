"""Compiling a model into its folder, and serving it from there without PyTorch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunepool.backends import cpu_choice
from prunepool.backends.converted import CompiledModel
from prunepool.backends.openvino_compile import compile_stored
from prunepool.backends.registry import BackendOptions
from prunepool.backends.torch_cpu import TorchBackend
from prunepool.core.backend import Backend
from prunepool.core.types import Batch, BatchItem, Output, RatioSpec, Request
from prunepool.errors import InvalidParameter, ModelNotFound, WeightsInvalid
from prunepool.models.loader import load_model
from prunepool.store import ModelStore, ReductionDefaults, StoredModel

pytest.importorskip("openvino")

NAME = "deit_tiny_imagenette"
PACKAGED = Path(__file__).parents[2] / "model_store"


#: Where this module's passes are kept as OpenVINO has prepared them, for the tests that open the same.
KEPT = Path(tempfile.gettempdir()) / f"prunepool-kept-{os.getpid()}"


@pytest.fixture(scope="module", autouse=True)
def nothing_stays() -> Iterator[None]:
    yield
    shutil.rmtree(KEPT, ignore_errors=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    """A store with the ten-class model compiled in both formats; the packaged one stays as it is."""
    store = ModelStore(tmp_path_factory.mktemp("store"), packaged=PACKAGED)
    compile_stored(store, NAME, ["float32", "int8"])
    return store


def options(dtype: str, **changes: Any) -> BackendOptions:
    usual: dict[str, Any] = {
        "device": "cpu",
        "dtype": dtype,
        "max_batch_size": 2,
        "cuda_graphs": 0,
        "cuda_compile": False,
        "cpu_openvino": True,
        "cpu_openvino_folder": KEPT,
        "threads": 2,
    }
    return BackendOptions(**{**usual, **changes})


@pytest.fixture(scope="module")
def int8() -> Backend:
    """The packaged model, as it is compiled."""
    return opened(ModelStore(PACKAGED).open(NAME), "int8")


@pytest.fixture(scope="module")
def plain() -> Backend:
    return TorchBackend(load_model(PACKAGED / NAME, device="cpu", dtype="float32"), max_batch_size=1)


def opened(stored: StoredModel, dtype: str, **changes: Any) -> Backend:
    loaded = cpu_choice.make(stored, options(dtype, **changes), {})
    assert (loaded.device, loaded.dtype) == ("cpu", dtype)
    loaded.backend.warm_up()
    return loaded.backend


def photos(count: int) -> list[np.ndarray]:
    """Smooth images that differ: their scores are spread as those of photos are."""
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 256, (count, 14, 14, 3), dtype=np.uint8)
    return list(coarse.repeat(16, 1).repeat(16, 2))


def answers(backend: Backend, ratios: Sequence[float], images: Sequence[np.ndarray]) -> list[Output]:
    items = [
        BatchItem(Request(image, RatioSpec(ratio, ratio), 0.0, explain=True), ratio, "requested")
        for image, ratio in zip(images, ratios, strict=True)
    ]
    batch = Batch(tuple(items), 0.0)
    return list(backend.run(batch, backend.prepare(batch)))


@pytest.mark.nightly
def test_what_was_compiled_is_recorded_and_verified(store: ModelStore, tmp_path: Path) -> None:
    stored = store.verify(NAME)
    compiled = stored.manifest.compiled
    assert compiled is not None
    assert compiled.formats == ("float32", "int8")
    assert [one.blocks for one in compiled.passes] == [(), (3, 6, 9)] * 2, "one for the dense plan alone"
    assert stored.manifest.geometry is not None
    sizes = {one.weights: (stored.folder / one.constants.file).stat().st_size for one in compiled.passes}
    assert sizes["int8"] < 0.3 * sizes["float32"]
    assert sizes["float32"] < 1.1 * 4 * stored.manifest.weights.parameters
    assert not stored.packaged
    assert store.packaged is not None
    packaged = store.packaged / NAME / "model.json"
    assert json.loads(packaged.read_text())["compiled"]["passes"][0]["weights"] == "int8"


@pytest.mark.nightly
@pytest.mark.parametrize("ratios", [(0.0,), (0.755,), (0.3, 0.3), (0.0, 0.3, 0.3, 0.5, 0.755)])
def test_in_float32_answers_are_pytorchs(ratios: Sequence[float], store: ModelStore, plain: Backend) -> None:
    images = photos(len(ratios))
    ours = answers(opened(store.open(NAME), "float32"), ratios, images)
    for one, other in zip(ours, answers(plain, ratios, images), strict=True):
        np.testing.assert_allclose(one.logits, other.logits, atol=1e-4)
        assert (one.tokens, one.gmacs, one.pruned, one.pooled) == (
            other.tokens,
            other.gmacs,
            other.pruned,
            other.pooled,
        )
        assert one.token_map is not None
        assert other.token_map is not None
        assert one.token_map.tokens == other.token_map.tokens


def test_in_int8_logits_are_close(int8: Backend, plain: Backend) -> None:
    images = photos(8)
    for ours, theirs in zip(answers(int8, [0.0] * 8, images), answers(plain, [0.0] * 8, images), strict=True):
        span = float(np.ptp(theirs.logits))
        assert 0 < np.abs(ours.logits - theirs.logits).max() < 0.05 * span


@pytest.mark.nightly
@pytest.mark.parametrize("ratio", [0.0, 0.755])
def test_in_float32_an_image_has_the_same_answer_in_any_batch(ratio: float, store: ModelStore) -> None:
    check_any_batch(opened(store.open(NAME), "float32"), ratio)


@pytest.mark.parametrize("ratio", [0.0, 0.755])
def test_an_image_has_the_same_answer_in_any_batch(ratio: float, int8: Backend) -> None:
    check_any_batch(int8, ratio)


def check_any_batch(backend: Backend, ratio: float) -> None:
    images = photos(12)
    (alone,) = answers(backend, [ratio], images[:1])
    for others in ([], [ratio] * 2, [ratio] * 11, [0.3, 0.5, 0.5], [0.0, 0.3, 0.755, 0.5, 0.6]):
        ratios = [ratio, *others]
        batch = answers(backend, ratios, images[: len(ratios)])
        np.testing.assert_allclose(batch[0].logits, alone.logits, atol=1e-4)


def test_float_pixels_and_decoded_ones_may_share_a_batch(int8: Backend) -> None:
    (image,) = photos(1)
    normalised = ((image.transpose(2, 0, 1) / 255 - 0.5) / 0.5).astype(np.float32)
    bytes_, floats = answers(int8, [0.3, 0.3], [image, normalised])
    # Not to the bit: normalised in another order, an activation may be rounded to the next integer.
    np.testing.assert_allclose(bytes_.logits, floats.logits, atol=0.02 * np.ptp(bytes_.logits))


def test_a_changed_file_is_named_and_nothing_is_served(tmp_path: Path) -> None:
    stored = ModelStore(PACKAGED).open(NAME)
    assert stored.manifest.compiled is not None
    copy = tmp_path / NAME
    copy.mkdir()
    for file in stored.folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    cut = stored.manifest.compiled.passes[0].constants.file
    (copy / cut).write_bytes((copy / cut).read_bytes()[:-1])
    with pytest.raises(WeightsInvalid, match=rf"{cut}: has sha256 \w+, but model.json records"):
        opened(ModelStore(tmp_path).open(NAME), "int8")


def test_auto_takes_what_is_faithful_and_says_what_it_measured() -> None:
    decisions: dict[str, Any] = {}
    stored = ModelStore(PACKAGED).open(NAME)
    loaded = cpu_choice.make(stored, options("auto"), decisions)
    (chosen,) = (one for one in loaded.trials if one.chosen)
    assert loaded.dtype == chosen.dtype == decisions["format"]
    assert chosen.faithful
    assert chosen.ratios == (0.0, 0.5, 0.755)
    assert min(chosen.images_per_s) > 0
    successor = cpu_choice.make(stored, options("auto"), decisions)
    assert (successor.dtype, successor.trials) == (loaded.dtype, loaded.trials), "nothing is measured again"


@pytest.mark.nightly
@pytest.mark.parametrize("broken", ["int8", "all"])
def test_a_format_that_answers_otherwise_is_not_taken(
    broken: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = cpu_choice._opened

    def wrong(model: Any, manifest: Any, dtype: str, *more: Any) -> Any:
        passes = real(model, manifest, dtype, *more)
        if passes is None or (broken == "int8" and dtype != "int8"):
            return passes
        return lambda images, groups: passes(images, groups)._replace(
            logits=passes(images, groups).logits[:, ::-1] * 30
        )

    monkeypatch.setattr(cpu_choice, "_opened", wrong)
    monkeypatch.setattr(cpu_choice.openvino_runtime, "has_bfloat16", lambda: broken == "int8")
    stored = ModelStore(PACKAGED).open(NAME)
    assert stored.manifest.compiled is not None
    model = CompiledModel(stored.manifest.compiled, stored.read_compiled)
    loaded = cpu_choice.compiled_backend(stored.manifest, model, options("auto"), {})
    assert (loaded and loaded.dtype) == ("int8+bfloat16" if broken == "int8" else None)
    warned = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert len(warned) == (broken == "all")
    assert all("dtype=int8 takes it anyway" in line for line in warned)


def test_a_model_compiled_for_other_plans_is_left_to_pytorch(caplog: pytest.LogCaptureFixture) -> None:
    """As after `prunepool calibrate` has found other ones."""
    stored = ModelStore(PACKAGED).open(NAME)
    other = stored.manifest.model_copy(
        update={"reduction": ReductionDefaults(method="fuse"), "profile": None}
    )
    assert other.compiled is not None
    model = CompiledModel(other.compiled, stored.read_compiled)
    assert cpu_choice.compiled_backend(other, model, options("auto"), {}) is None
    assert f"prunepool models compile {NAME}" in caplog.text


def test_int8_needs_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunepool.backends.openvino_runtime.installed", lambda: False)
    with pytest.raises(InvalidParameter, match=f"prunepool models compile {NAME}"):
        cpu_choice.make(ModelStore(PACKAGED).open(NAME), options("int8"), {})


def test_a_model_that_is_not_in_the_store_is_not_compiled(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="no model 'nothing'"):
        compile_stored(ModelStore(tmp_path), "nothing", ["int8"])


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["timm"] = None
from pathlib import Path
import numpy as np
from prunepool.backends import cpu_choice
from prunepool.backends.converted import CompiledModel
from prunepool.backends.black_batch import black_batch
from prunepool.backends.registry import BackendOptions
from prunepool.store import ModelStore
options = BackendOptions("cpu", "int8", 2, 0, False, True, Path(sys.argv[3]), threads=2)
backend = cpu_choice.make(ModelStore(sys.argv[1]).open(sys.argv[2]), options, {}).backend
backend.warm_up()
batch = black_batch(224, (0.0, 0.5))
print(*(int(one.logits.argmax()) for one in backend.run(batch, backend.prepare(batch))))
"""


def test_it_is_served_without_torch(int8: Backend) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, str(PACKAGED), NAME, str(KEPT)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    black = [np.zeros((224, 224, 3), np.uint8)] * 2
    assert done.stdout.split() == [str(int(one.logits.argmax())) for one in answers(int8, [0.0, 0.5], black)]
