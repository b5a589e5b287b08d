"""What only a GPU can show; skipped by name where there is none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prunepool.backends.cuda_device import CudaDevice
from prunepool.backends.cuda_graphs import CudaGraphBackend
from prunepool.backends.torch_cpu import TorchBackend
from prunepool.core.types import Batch, BatchItem, Output, RatioSpec, Request
from prunepool.imaging import ImageLimits, decode
from prunepool.models.loaded_model import LoadedModel
from prunepool.models.loader import load_model
from prunepool.models.preprocess import preprocess_of

pytestmark = pytest.mark.gpu
RATIOS = (0.0, 0.25, 0.5, 0.755)


@pytest.fixture(scope="module", autouse=True)
def place() -> Iterator[str]:
    """The GPU, computing float32 in float32."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield os.environ.get("PRUNEPOOL_GPU", "cuda:0")
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def embedded(root: Path, device: str, dtype: str) -> LoadedModel:
    return load_model(root / "model_store" / "deit_tiny_imagenette", device=device, dtype=dtype)


def crops(model: LoadedModel, count: int) -> list[np.ndarray]:
    """Photos of a folder that the environment names; without one, smooth noise."""
    folder = os.environ.get("PRUNEPOOL_PHOTOS")
    if folder is None:
        source = np.random.default_rng(0)
        coarse = [Image.fromarray(source.integers(0, 256, (9, 9, 3), np.uint8)) for _ in range(count)]
        return [np.array(one.resize((224, 224), Image.Resampling.BICUBIC)) for one in coarse]
    manifest = model.manifest
    preprocess = preprocess_of(manifest)
    files = sorted(Path(folder).rglob("*.[jJ][pP]*[gG]"))[:count]
    assert files, f"PRUNEPOOL_PHOTOS={folder} holds no JPEG"
    return [decode(file.read_bytes(), preprocess, ImageLimits(50_000_000)) for file in files]


def batch_of(pixels: list[np.ndarray], *ratios: float, explain: bool = False) -> Batch:
    requests = [
        Request(one, RatioSpec(ratio, ratio), 0.0, explain=explain)
        for one, ratio in zip(pixels, ratios, strict=True)
    ]
    return Batch(
        tuple(BatchItem(r, ratio, "requested") for r, ratio in zip(requests, ratios, strict=True)), 0.0
    )


def run(backend: CudaGraphBackend | TorchBackend, batch: Batch) -> list[Output]:
    return list(backend.run(batch, backend.prepare(batch)))


@pytest.fixture(scope="module")
def backend(place: str, root: Path) -> Iterator[CudaGraphBackend]:
    model = embedded(root, place, "float32")
    backend = CudaGraphBackend(
        model, CudaDevice(model.device), ratios=RATIOS, max_batch_size=8, most_graphs=99
    )
    backend.warm_up()
    yield backend
    backend.close()


@pytest.mark.parametrize("ratios", [(0.0,), (0.755,) * 8, (0.0, 0.25, 0.5, 0.5, 0.755), (0.3, 0.5, 0.8)])
def test_float32_answers_are_those_of_the_processor(
    backend: CudaGraphBackend, root: Path, ratios: tuple[float, ...]
) -> None:
    plain = TorchBackend(embedded(root, "cpu", "float32"), max_batch_size=8)
    batch = batch_of(crops(plain.model, len(ratios)), *ratios, explain=True)
    for ours, theirs in zip(run(backend, batch), run(plain, batch), strict=True):
        np.testing.assert_allclose(ours.logits, theirs.logits, atol=1e-3)
        assert (ours.tokens, ours.pruned, ours.pooled) == (theirs.tokens, theirs.pruned, theirs.pooled)


def test_an_answer_does_not_depend_on_its_batch(backend: CudaGraphBackend) -> None:
    pixels = crops(backend.model, 8)
    ratios = (0.0, 0.25, 0.25, 0.3, 0.5, 0.755, 0.755, 0.755)
    together = run(backend, batch_of(pixels, *ratios))
    for one, ratio, expected in zip(pixels, ratios, together, strict=True):
        (alone,) = run(backend, batch_of([one], ratio))
        np.testing.assert_allclose(alone.logits, expected.logits, atol=1e-4)


def test_batches_under_way_at_once_do_not_mix(backend: CudaGraphBackend) -> None:
    pixels = crops(backend.model, 8)
    batches = [
        batch_of(pixels[i : i + 4], *((ratio,) * 4))
        for i, ratio in ((0, 0.5), (4, 0.5), (2, 0.0), (1, 0.755))
    ]
    expected = [run(backend, batch) for batch in batches]
    for _ in range(25):
        running = None
        for i, batch in enumerate(batches):
            following = i, backend.launch(batch, backend.prepare(batch))
            if running is not None:
                check(backend, batches, expected, running)
            running = following
        assert running is not None
        check(backend, batches, expected, running)


def check(
    backend: CudaGraphBackend, batches: list[Batch], expected: list[list[Output]], running: tuple[int, object]
) -> None:
    i, launched = running
    for ours, theirs in zip(backend.collect(batches[i], launched), expected[i], strict=True):
        np.testing.assert_allclose(ours.logits, theirs.logits, atol=1e-4)


def test_nothing_that_is_launched_waits_for_the_device(backend: CudaGraphBackend) -> None:
    batch = batch_of(crops(backend.model, 3), 0.0, 0.3, 0.755)
    prepared = backend.prepare(batch)
    run(backend, batch)  # libraries and memory are set up
    torch.cuda.set_sync_debug_mode("error")
    try:
        launched = backend.launch(batch, prepared)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(backend.collect(batch, launched)) == 3


def test_serving_leaves_no_memory_behind(backend: CudaGraphBackend) -> None:
    batch = batch_of(crops(backend.model, 4), 0.0, 0.3, 0.5, 0.755)
    run(backend, batch)
    before = torch.cuda.memory_allocated()
    for _ in range(20):
        run(backend, batch)
    assert torch.cuda.memory_allocated() <= before


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("ratio", [0.0, 0.755])
def test_half_precision_names_the_same_class(place: str, root: Path, dtype: str, ratio: float) -> None:
    if "PRUNEPOOL_PHOTOS" not in os.environ:
        pytest.skip("needs photos: PRUNEPOOL_PHOTOS names a folder of them")
    best = []
    for kind in ("float32", dtype):
        model = embedded(root, place, kind)
        backend = CudaGraphBackend(
            model, CudaDevice(model.device), ratios=(ratio,), max_batch_size=64, most_graphs=99
        )
        backend.warm_up()
        pixels = crops(model, 400)
        shares = [pixels[i : i + 64] for i in range(0, len(pixels), 64)]
        outputs = [o for share in shares for o in run(backend, batch_of(share, *((ratio,) * len(share))))]
        best.append(np.array([output.logits.argmax() for output in outputs]))
        backend.close()
    assert (best[0] == best[1]).mean() >= 0.99
