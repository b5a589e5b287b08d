"""Passes by OpenVINO: PyTorch's answers for every plan and any number of images, from one converted model."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from prunepool.backends import openvino_cache, pass_file
from prunepool.backends.dynamic_pass import DynamicPass, PlanFamily
from prunepool.backends.openvino import OpenVinoBackend
from prunepool.backends.openvino_cache import PassCache
from prunepool.backends.openvino_pass import Arrays, OpenVinoPass, Streams
from prunepool.backends.openvino_trial import OpenVinoPasses, passes_for
from prunepool.backends.pass_file import ConvertedPass
from prunepool.backends.torch_cpu import TorchBackend
from prunepool.core.types import Batch, BatchItem, Output, RatioSpec, Request
from prunepool.errors import ConversionInvalid, InvalidParameter
from prunepool.models.loaded_model import LoadedModel
from prunepool.models.vit import Forward, ReducingViT
from prunepool.reduction.plan import DENSE, ReductionPlan, default_blocks, max_ratio, plan_for_ratio
from prunepool.store import Geometry

pytest.importorskip("openvino")

SMALL = {"embed_dim": 32, "num_heads": 2, "depth": 4, "num_classes": 7}
SIZE = 224
PATCHES = 196
PPT = PlanFamily("ppt", (1, 2, 3))


@pytest.fixture(scope="module")
def network(random_vit: Callable[..., nn.Module]) -> ReducingViT:
    return ReducingViT(random_vit("vit_tiny_patch16_224", **SMALL)).requires_grad_(False)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, network: ReducingViT) -> Path:
    """A folder with the small network's pass for PPT."""
    path = tmp_path_factory.mktemp("openvino") / "made when needed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("openvino_telemetry.Telemetry.__init__", tells_on_us)
        PassCache(path).get(network, PPT, SIZE)
    return path


def tells_on_us(*args: object, **kwargs: object) -> None:
    raise AssertionError("a conversion was about to be reported to its maker")


@pytest.fixture
def unconvertible(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be converted any more."""

    def refuse(self: DynamicPass, size: int) -> None:
        raise ValueError("not today")

    monkeypatch.setattr(DynamicPass, "exported", refuse)


def noise(images: int, seed: int = 1) -> Tensor:
    return torch.randn(images, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def plan_of(gone: int, method: str) -> ReductionPlan:
    return plan_for_ratio(gone / PATCHES, patches=PATCHES, depth=4, method=method) if gone else DENSE


def by_block(forward: Forward) -> dict[int, list[Tensor]]:
    """What each block's stages say together, [B, …] each, in the order of the batch."""
    blocks: dict[int, list[list[Tensor]]] = {}
    for stage in forward.stages:
        parts = blocks.setdefault(stage.block, [])
        assert stage.first == sum(len(part[0]) for part in parts)
        parts.append([*stage.indices, stage.pruned])
    return {block: [torch.cat(own) for own in zip(*parts, strict=True)] for block, parts in blocks.items()}


def choices_that_differ(found: Forward, wanted: Forward) -> int:
    """Images times stages in which other tokens left; all else has to be the same."""
    torch.testing.assert_close(found.logits, wanted.logits, atol=1e-2, rtol=0)
    ours, theirs = by_block(found), by_block(wanted)
    assert list(ours) == list(theirs)
    differ = 0
    for block, tensors in ours.items():
        *indices, pruned = tensors
        *expected, their_pruned = theirs[block]
        assert torch.equal(pruned, their_pruned)
        same = [(a == b).all(dim=1) for a, b in zip(indices, expected, strict=True)]
        differ += int((~torch.stack(same).all(dim=0)).sum())
    return differ


#: How many tokens leave: none, odd and even, few and many, divided among three blocks with every remainder.
FEW = (0, 1, 2, 3, 7, 20, 41, 96)
MANY = (*range(40), *range(40, PATCHES, 7))


@pytest.mark.parametrize(
    ("method", "counts"),
    [
        pytest.param("ppt", FEW, id="ppt"),
        pytest.param("fuse", FEW, id="fuse"),
        *(
            pytest.param(method, MANY, id=f"{method}, many", marks=pytest.mark.nightly)
            for method in ("ppt", "fuse", "tome")
        ),
    ],
)
@torch.inference_mode()
def test_every_plan_gets_pytorchs_answers(
    method: str, counts: tuple[int, ...], network: ReducingViT, kept: Path, tmp_path: Path
) -> None:
    """Odd and even counts, many and few, in turns with one, two and three images; one pass for all."""
    family = PlanFamily(method, default_blocks(4, method))
    one = PassCache(kept if method == "ppt" else tmp_path).get(network, family, SIZE)
    most = round(max_ratio(PATCHES, len(family.blocks)) * PATCHES)
    stages = differ = 0
    for gone in (*(count for count in counts if count < most), most):
        plan = plan_of(gone, method)
        assert one.runs(plan)
        images = noise(1 + gone % 3, gone)
        wanted = network(images, [(plan, len(images))])
        differ += choices_that_differ(one(images, plan), wanted)
        stages += len(images) * len(wanted.stages)
    # Rounding turns a choice between equal tokens now and then; noise has many of them.
    assert differ <= 0.03 * stages


@given(images=st.integers(1, 70), width=st.integers(1, 8))
def test_in_any_lanes_each_image_gets_its_own_answer(images: int, width: int) -> None:
    runs: list[list[int]] = []

    def streams(most: int) -> Streams:
        def infer(parts: Sequence[Arrays]) -> list[Arrays]:
            assert len(parts) == most
            runs.append([len(arrays[0]) for arrays in parts])
            return [[arrays[0][:, 0, 0]] for arrays in parts]

        return Streams(most, infer)

    geometry = Geometry(
        depth=1,
        width=1,
        heads=1,
        mlp_width=1,
        patch_size=(16, 16),
        patch_grid=(14, 14),
        prefix_tokens=1,
        classes=1,
    )
    one = OpenVinoPass([streams(1)] + [streams(width)] * (width > 1), PlanFamily("ppt", ()), geometry)
    numbers = torch.arange(float(images)).reshape(images, 1, 1, 1).expand(images, 3, 1, 2)
    found = one(numbers, DENSE).logits
    assert found[:, 0].tolist() == list(range(images))
    for sizes in runs:
        assert sum(sizes) <= 8, "memory is kept for so many"
        assert len(set(sizes)) == 1, "a lane that has less waits for the others"
    assert sum(len(sizes) == 1 for sizes in runs) <= (-(-images // 8) if width == 1 else 1)


@torch.inference_mode()
@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_whatever_the_threads_answers_are_pytorchs(threads: int, network: ReducingViT, kept: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        one = PassCache(kept).get(network, PPT, SIZE)
        for images in (1, 2, 5, 18):
            batch, plan = noise(images, images), plan_of(100, "ppt")
            differ = choices_that_differ(one(batch, plan), network(batch, [(plan, images)]))
            assert differ <= 0.1 * images * len(plan.blocks)
    finally:
        torch.set_num_threads(before)


@torch.inference_mode()
def test_pixels_may_lie_channels_last(network: ReducingViT, kept: Path) -> None:
    one = PassCache(kept).get(network, PPT, SIZE)
    images, plan = noise(2), plan_of(148, "ppt")
    last = images.to(memory_format=torch.channels_last)
    assert choices_that_differ(one(last, plan), network(images, [(plan, 2)])) == 0


def test_decoded_pixels_get_the_plain_answer(network: ReducingViT, kept: Path, tiny: LoadedModel) -> None:
    model = LoadedModel(network, tiny.manifest)
    backend = OpenVinoBackend(
        model, max_batch_size=2, make_passes=lambda _: passes_for(model, PassCache(kept), 2, {})
    )
    backend.warm_up()
    plain = TorchBackend(model, max_batch_size=2)
    for ratios in ((0.755,), (0.0,), (0.3, 0.3), (0.3, 0.5)):
        for ours, theirs in zip(answers(backend, *ratios), answers(plain, *ratios), strict=True):
            np.testing.assert_allclose(ours.logits, theirs.logits, atol=1e-4)
            assert (ours.tokens, ours.pruned, ours.pooled) == (theirs.tokens, theirs.pruned, theirs.pooled)


@pytest.mark.usefixtures("unconvertible")
@pytest.mark.parametrize("other", ["family", "dtype", "weights", "size"])
def test_what_is_kept_is_for_one_network_and_one_family(
    other: str, random_vit: Callable[..., nn.Module], kept: Path
) -> None:
    network = ReducingViT(random_vit("vit_tiny_patch16_224", **SMALL)).requires_grad_(False)
    PassCache(kept).get(network, PPT, SIZE)  # the same weights: nothing to convert
    if other == "dtype":
        network.to(torch.bfloat16)
    if other == "weights":
        network.vit.head.bias += 1
    family = PlanFamily("prune", PPT.blocks) if other == "family" else PPT
    with pytest.raises(ConversionInvalid, match="OpenVINO cannot take over the pass: not today"):
        PassCache(kept).get(network, family, 384 if other == "size" else SIZE)
    assert [path.suffix for path in kept.iterdir()] == [".pass"]


@pytest.mark.usefixtures("unconvertible")
def test_a_source_file_that_changes_while_the_process_runs_changes_nothing(
    network: ReducingViT, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in an upgrade under a running server: what runs, and what was converted, is the code that was imported."""
    monkeypatch.setattr("inspect.getsource", lambda module: "# edited")
    monkeypatch.setattr(Path, "read_text", lambda path: "# edited")
    assert PassCache(kept).get(network, PPT, SIZE).runs(plan_of(100, "ppt"))


@pytest.fixture
def converted_again(kept: Path, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """A conversion takes no time; one entry for each."""
    (file,) = kept.iterdir()
    conversions: list[None] = []

    def convert(*_: object) -> ConvertedPass:
        conversions.append(None)
        return pass_file.read(file)

    monkeypatch.setattr("prunepool.backends.openvino_cache._conversion", convert)
    return conversions


def changed(whole: bytes, how: str) -> bytes:
    return {"cut": whole[:-1000], "empty": b"", "foreign": b"<net/>" * 100, "bits": whole[:-9] + bytes(9)}[
        how
    ]


@torch.inference_mode()
@pytest.mark.parametrize("how", ["cut", "empty", "foreign", "bits"])
def test_a_file_that_is_not_what_was_written_is_made_anew(
    how: str,
    network: ReducingViT,
    kept: Path,
    tmp_path: Path,
    converted_again: list[None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (file,) = kept.iterdir()
    (tmp_path / file.name).write_bytes(changed(file.read_bytes(), how))
    (tmp_path / f".staging-{'0' * 16}").mkdir()  # of a process that was killed while it converted
    one = PassCache(tmp_path).get(network, PPT, SIZE)
    images, plan = noise(2), plan_of(100, "ppt")
    assert choices_that_differ(one(images, plan), network(images, [(plan, 2)])) == 0
    assert len(converted_again) == 1
    assert len(caplog.records) == 1
    assert f"{file.name} cannot be used, and is made anew" in caplog.text
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {file.name: file.read_bytes()}
    PassCache(tmp_path).get(network, PPT, SIZE)
    assert len(converted_again) == 1


@torch.inference_mode()
def test_a_file_that_is_cut_while_it_is_served_changes_nothing(
    network: ReducingViT, kept: Path, tmp_path: Path
) -> None:
    """A page of a mapped file that is no longer there would end the process by SIGBUS."""
    (file,) = kept.iterdir()
    shutil.copy(file, tmp_path)
    one = PassCache(tmp_path).get(network, PPT, SIZE)
    images, plan = noise(2), plan_of(100, "ppt")
    before = one(images, plan).logits
    os.truncate(tmp_path / file.name, 0)
    assert torch.equal(one(images, plan).logits, before)
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file can be longer than 16 KiB: writing fails as on a full disk, half way."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 * 1024, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_disk")
@pytest.mark.parametrize("who_writes", ["OpenVINO", "the cache"])
def test_pytorch_serves_where_a_conversion_finds_no_room(
    who_writes: str,
    network: ReducingViT,
    tiny: LoadedModel,
    kept: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (file,) = kept.iterdir()
    if who_writes == "the cache":
        request.getfixturevalue("converted_again")
    else:
        read = pass_file.read(file)
        monkeypatch.setattr(DynamicPass, "exported", lambda self, size: None)
        monkeypatch.setattr(
            "prunepool.backends.openvino_cache.to_openvino", lambda _: openvino_cache._model(read)
        )
    model, decisions = LoadedModel(network, tiny.manifest), dict[str, object]()
    backend = OpenVinoBackend(
        model, max_batch_size=2, make_passes=lambda _: passes_for(model, PassCache(tmp_path), 2, decisions)
    )
    backend.warm_up()
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"OpenVINO is not used, PyTorch runs all batches: {tmp_path}: ")
    assert "\n" not in line
    assert decisions == {"openvino": {}}, "engines beside it and successors do the same"
    assert not list(tmp_path.iterdir()), "nothing half-written is left"
    (found,), (wanted,) = (answers(one, 0.5) for one in (backend, TorchBackend(model, max_batch_size=1)))
    np.testing.assert_array_equal(found.logits, wanted.logits)


def test_a_folder_that_cannot_be_written_to_is_named(
    network: ReducingViT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DynamicPass, "exported", lambda self, size: None)
    monkeypatch.setattr("prunepool.backends.openvino_cache.to_openvino", lambda program: None)
    (tmp_path / "file").touch()
    with pytest.raises(
        InvalidParameter, match=r"cpu_openvino_folder must be a folder that can be written to"
    ):
        PassCache(tmp_path / "file").get(network, PPT, SIZE)


def test_without_openvino_it_says_how_to_get_it(
    network: ReducingViT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prunepool.backends.openvino_cache.find_spec", lambda name: None)
    with pytest.raises(ConversionInvalid, match=r'needs OpenVINO: pip install "prunepool\[openvino\]"'):
        PassCache(tmp_path).get(network, PPT, SIZE)


def test_a_batch_that_openvino_cannot_run_is_answered_by_pytorch(
    tiny: LoadedModel, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(parts: object) -> list[list[np.ndarray]]:
        raise RuntimeError("no such shape")

    passes = OpenVinoPasses(
        [(OpenVinoPass([Streams(1, fail)], PlanFamily("ppt", (3, 6, 9)), tiny.geometry), 8)]
    )
    failures: list[None] = []
    backend = OpenVinoBackend(
        tiny,
        max_batch_size=1,
        make_passes=lambda model: passes,
        on_failure=lambda: failures.append(None),
    )
    backend.warm_up()
    assert "no such shape" in caplog.text
    assert len(failures) == 1
    caplog.clear()
    (found,), (wanted,) = (answers(one, 0.5) for one in (backend, TorchBackend(tiny, max_batch_size=1)))
    np.testing.assert_array_equal(found.logits, wanted.logits)
    assert not caplog.text


def answers(backend: TorchBackend | OpenVinoBackend, *ratios: float) -> list[Output]:
    rng = np.random.default_rng(3)
    pixels = [rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8) for _ in ratios]
    batch = Batch(
        tuple(
            BatchItem(Request(own, RatioSpec(ratio, ratio), 0.0, explain=True), ratio, "requested")
            for own, ratio in zip(pixels, ratios, strict=True)
        ),
        0.0,
    )
    return list(backend.run(batch, backend.prepare(batch)))
