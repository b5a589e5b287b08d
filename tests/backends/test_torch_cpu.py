"""Pixels in, outputs out: order, counts, token maps and running out of memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from budget import examples
from hypothesis import given
from hypothesis import strategies as st

from prunepool.backends.torch_cpu import TorchBackend
from prunepool.core.backend import OutOfMemory
from prunepool.core.types import Batch, BatchItem, Output, RatioSpec, Request
from prunepool.models.loaded_model import LoadedModel


@pytest.fixture(scope="module")
def backend(tiny: LoadedModel) -> TorchBackend:
    return TorchBackend(tiny, max_batch_size=2)


def batch_of(*ratios: float, explain: bool = False) -> Batch:
    rng = np.random.default_rng(len(ratios))
    items = []
    for ratio in ratios:
        pixels = rng.integers(0, 256, (224, 224, 3), dtype=np.uint8)
        items.append(
            BatchItem(Request(pixels, RatioSpec(ratio, ratio), 0.0, explain=explain), ratio, "requested")
        )
    return Batch(tuple(items), 0.0)


def run(backend: TorchBackend, batch: Batch) -> list[Output]:
    return list(backend.run(batch, backend.prepare(batch)))


def test_outputs_come_in_batch_order_with_what_they_cost(backend: TorchBackend) -> None:
    outputs = run(backend, batch_of(0.0, 0.5, 0.5, 0.755))
    assert [o.tokens for o in outputs] == [
        (197,),
        (197, 164, 131, 99),
        (197, 164, 131, 99),
        (197, 147, 97, 49),
    ]
    assert [o.gmacs for o in outputs] == sorted((o.gmacs for o in outputs), reverse=True)
    for output in outputs:
        assert output.logits.dtype == np.float32
        assert output.logits.shape == (5,)


def test_logits_are_those_of_the_model(backend: TorchBackend, tiny: LoadedModel) -> None:
    batch = batch_of(0.0, 0.755)
    for item, output in zip(batch.items, run(backend, batch), strict=True):
        images = tiny.normalise(torch.from_numpy(item.request.pixels[None]))
        expected = tiny(images, tiny.plan(item.ratio)).logits[0]
        np.testing.assert_allclose(output.logits, expected, atol=1e-4)


@given(ratios=st.lists(st.sampled_from([0.0, 0.3, 0.755, 0.8]), min_size=1, max_size=4))
@examples(0.2)
def test_every_patch_is_accounted_for(backend: TorchBackend, ratios: list[float]) -> None:
    for output in run(backend, batch_of(*sorted(ratios), explain=True)):
        left = output.tokens[0] - output.tokens[-1]
        assert output.pruned + output.pooled == left
        mapped = output.token_map
        assert mapped is not None
        assert mapped.grid == (14, 14)
        assert len(mapped.tokens) == output.tokens[-1] - 1
        pruned = [patch for stage in mapped.stages for patch in stage.pruned]
        kept = [patch for group in mapped.tokens for patch in group]
        assert sorted(pruned + kept) == list(range(196))


def test_a_stage_map_tells_the_decision(backend: TorchBackend, tiny: LoadedModel) -> None:
    batch = batch_of(0.755, explain=True)
    (output,) = run(backend, batch)
    images = tiny.normalise(torch.from_numpy(batch.items[0].request.pixels[None]))
    stages = tiny(images, tiny.plan(0.755)).stages
    assert output.token_map is not None
    for mapped, stage in zip(output.token_map.stages, stages, strict=True):
        assert mapped.block == stage.block
        assert mapped.action == ("prune" if stage.pruned[0] else "pool")
        assert mapped.variance == pytest.approx(stage.variance[0].item())
        assert bool(mapped.pruned) == bool(stage.pruned[0])


def test_nobody_pays_for_a_map_that_nobody_asked_for(backend: TorchBackend) -> None:
    assert run(backend, batch_of(0.755))[0].token_map is None


def test_out_of_memory_is_told_apart(backend: TorchBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(backend.model.vit, "forward", full)
    with pytest.raises(OutOfMemory, match="CUDA out of memory"):
        run(backend, batch_of(0.0))


def test_no_room_for_the_pixels_is_told_apart(backend: TorchBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.Tensor, "to", full)
    with pytest.raises(OutOfMemory, match="CUDA out of memory"):
        backend.prepare(batch_of(0.0))


def test_warm_up_runs_the_largest_batch(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = TorchBackend(tiny, max_batch_size=3)
    sizes: list[int] = []
    inner = backend.run
    monkeypatch.setattr(backend, "run", lambda b, p: sizes.append(len(b.items)) or inner(b, p))
    backend.warm_up()
    assert max(sizes) == 3
    assert min(sizes) == 1


@pytest.mark.shared
def test_half_precision_answers_like_itself_in_any_batch(shared: Path) -> None:
    """bfloat16, real photos: the same best class alone, among its like, and among five plans."""
    import timm
    from PIL import Image
    from safetensors.torch import load_file
    from timm.data import create_transform

    from prunepool.models.vit import ReducingViT
    from prunepool.reduction.plan import plan_for_ratio

    vit = timm.create_model("vit_tiny_patch16_224", pretrained=False)
    vit.load_state_dict(load_file(shared / "models/vit_tiny_patch16_224/model.safetensors"))
    network = ReducingViT(vit.eval().to(torch.bfloat16))
    transform = create_transform(224, interpolation="bicubic", crop_pct=0.9, mean=(0.5,) * 3, std=(0.5,) * 3)
    photos = sorted((shared / "images/photos").glob("*.jpg"))[:20]
    images = torch.stack([transform(Image.open(photo).convert("RGB")) for photo in photos])
    ratios = (0.0, 0.25, 0.5, 0.755, 0.87)
    plans = [plan_for_ratio(r, patches=196, depth=12) for r in ratios]
    with torch.inference_mode():
        mixed = network(images, [(plan, 4) for plan in plans]).logits.argmax(-1)
        for i, plan in enumerate(plans):
            own = slice(4 * i, 4 * i + 4)
            uniform = network(images[own], [(plan, 4)]).logits.argmax(-1)
            alone = torch.cat([network(image[None], [(plan, 1)]).logits for image in images[own]]).argmax(-1)
            assert torch.equal(uniform, mixed[own])
            assert torch.equal(alone, mixed[own])


@pytest.mark.parametrize("normalised", [(True, True, True), (False, True, False), (True, False, True)])
def test_normalised_pixels_may_stand_beside_others(
    backend: TorchBackend, tiny: LoadedModel, normalised: tuple[bool, ...]
) -> None:
    crops = batch_of(0.0, 0.0, 0.5)
    items = []
    for item, as_tensor in zip(crops.items, normalised, strict=True):
        pixels = item.request.pixels
        if as_tensor:
            pixels = tiny.normalise(torch.from_numpy(pixels[None]))[0].numpy()
        request = Request(pixels, item.request.ratio_spec, 0.0)
        items.append(BatchItem(request, item.ratio, item.reason))
    expected = run(backend, crops)
    for output, crop in zip(run(backend, Batch(tuple(items), 0.0)), expected, strict=True):
        np.testing.assert_allclose(output.logits, crop.logits, atol=1e-5)
        assert output.tokens == crop.tokens
