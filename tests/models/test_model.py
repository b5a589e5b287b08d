"""The Python API: loading, the dial, mixed batches in request order, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import prunepool
from prunepool.errors import ArchitectureUnsupported, InvalidParameter, ModelNotFound, WeightsInvalid
from prunepool.models.loaded_model import LoadedModel
from prunepool.models.loader import fastest_dtype, load_model, resolve_device
from prunepool.models.vit import Forward, ReducingViT
from prunepool.reduction.plan import DENSE, ReductionPlan


def copy_of(store: Path, to: Path, **changes: object) -> Path:
    """A copy of the store's model with keys of its manifest changed."""
    shutil.copytree(store / "tiny", to / "tiny")
    path = to / "tiny" / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return to


def test_the_package_offers_the_two_names_of_the_python_api() -> None:
    assert prunepool.load_model is load_model
    assert prunepool.ReductionPlan is ReductionPlan
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = prunepool.nothing


def test_the_dial_gives_the_papers_plan(tiny: LoadedModel) -> None:
    assert tiny.plan(0.755) == ReductionPlan((3, 6, 9), (50, 50, 48), (7e-5,) * 3)
    assert tiny.plan(0) is DENSE
    assert tiny.plan(0.001) is DENSE


@pytest.mark.parametrize("ratio", [0.81, -0.1, math.nan, math.inf])
def test_the_manifests_limit_holds(tiny: LoadedModel, ratio: float) -> None:
    with pytest.raises(InvalidParameter, match=r"reduction_ratio must be between 0 and 0\.8; got"):
        tiny.plan(ratio)


@given(ratio=st.floats(0, 0.8))
def test_applied_is_never_more_than_asked_or_done(tiny: LoadedModel, ratio: float) -> None:
    applied = tiny.dial.applied(ratio)
    removed = sum(tiny.plan(ratio).removed)
    assert applied <= ratio
    assert applied <= removed / 196
    assert ratio - applied < 1 / 196


@given(low=st.floats(0, 0.8), high=st.floats(0, 0.8))
def test_more_reduction_never_costs_more(tiny: LoadedModel, low: float, high: float) -> None:
    low, high = sorted((low, high))
    assert tiny.dial.gmacs(high) <= tiny.dial.gmacs(low) + 1e-6


def test_normalising_is_what_the_manifest_says(tiny: LoadedModel) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    mean, std = np.array(tiny.manifest.mean), np.array(tiny.manifest.std)
    expected = ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(tiny.normalise(torch.from_numpy(pixels)), expected, atol=2e-6)


def test_mixed_plans_answer_in_request_order(tiny: LoadedModel) -> None:
    images = torch.randn(6, 3, 224, 224)
    plans = [tiny.plan(r) for r in (0.755, 0.0, 0.5, 0.755, 0.1, 0.0)]
    mixed = tiny(images, plans).logits
    for i, plan in enumerate(plans):
        torch.testing.assert_close(mixed[i], tiny(images[i : i + 1], plan).logits[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", [(3, 224, 224), (1, 3, 192, 224), (1, 1, 224, 224), (0, 3, 224, 224)])
def test_images_of_another_shape_are_refused(tiny: LoadedModel, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidParameter, match=r"images must be of shape \[B, 3, 224, 224\], B ≥ 1; got"):
        tiny(torch.zeros(shape))


def test_one_plan_per_image_or_one_for_all(tiny: LoadedModel) -> None:
    with pytest.raises(InvalidParameter, match="one for each of 2 images; got 3"):
        tiny(torch.zeros(2, 3, 224, 224), [DENSE] * 3)


def test_a_folder_loads_like_a_name(tiny_store: Path) -> None:
    assert load_model(tiny_store / "tiny", device="cpu", dtype="float32").name == "tiny"


def test_an_unknown_model_is_named(tiny_store: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"no model 'huge'.*tiny"):
        load_model("huge", store=tiny_store)


def test_changed_weights_are_refused(tiny_store: Path, tmp_path: Path) -> None:
    store = copy_of(tiny_store, tmp_path)
    weights = store / "tiny" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(WeightsInvalid, match="sha256"):
        load_model("tiny", store=store)


def test_weights_of_another_architecture_are_refused(tiny_store: Path, tmp_path: Path) -> None:
    store = copy_of(tiny_store, tmp_path, architecture="deit_small_patch16_224")
    with pytest.raises(WeightsInvalid, match="size mismatch"):
        load_model("tiny", store=store)


def test_an_unknown_architecture_is_refused(tiny_store: Path, tmp_path: Path) -> None:
    store = copy_of(tiny_store, tmp_path, architecture="deit_gigantic")
    with pytest.raises(ArchitectureUnsupported, match="deit_gigantic"):
        load_model("tiny", store=store)


@pytest.mark.parametrize(("device", "message"), [("tpu9", "auto, cpu, cuda"), ("cuda:77", "one of the")])
def test_a_device_that_is_not_there_is_refused(device: str, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        resolve_device(device)


def test_an_unknown_dtype_is_refused(tiny_store: Path) -> None:
    with pytest.raises(InvalidParameter, match="dtype must be auto, float32"):
        load_model("tiny", store=tiny_store, device="cpu", dtype="int4")


class _Timed(ReducingViT):
    """Takes a fixed time in each dtype, by its own clock."""

    now = 0.0

    def __init__(self, vit: torch.nn.Module, seconds: dict[torch.dtype, float]) -> None:
        super().__init__(vit)
        self.seconds = seconds

    def forward(self, images: torch.Tensor, groups: object) -> Forward:
        _Timed.now += self.seconds[self.dtype]
        return Forward(images, [])


@pytest.mark.parametrize(
    ("bfloat16_seconds", "choice"),
    [(0.5, torch.bfloat16), (0.9, torch.bfloat16), (0.95, torch.float32), (9.0, torch.float32)],
)
def test_auto_dtype_is_measured_and_half_precision_must_win_clearly(
    tiny: LoadedModel, bfloat16_seconds: float, choice: torch.dtype
) -> None:
    network = _Timed(tiny.vit.vit, {torch.float32: 1.0, torch.bfloat16: bfloat16_seconds})
    assert fastest_dtype(network, 224, batch=1, rounds=3, clock=lambda: _Timed.now) == choice
