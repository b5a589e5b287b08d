"""The same numbers as the reference implementation of PPT, and as timm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from prunepool.models.vit import ReducingViT
from prunepool.reduction.plan import DENSE, ReductionPlan

pytestmark = pytest.mark.shared

CASES = range(5)


@pytest.fixture(scope="module")
def network(shared: Path) -> ReducingViT:
    vit = timm.create_model("vit_tiny_patch16_224", pretrained=False)
    vit.load_state_dict(load_file(shared / "models/vit_tiny_patch16_224/model.safetensors"))
    return ReducingViT(vit.eval())


@pytest.fixture(scope="module")
def arrays(shared: Path) -> dict[str, np.ndarray]:
    with np.load(shared / "reference/ppt_parity.npz") as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def meta(shared: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((shared / "reference/ppt_parity.json").read_text())
    return loaded


@pytest.fixture(scope="module")
def images(arrays: dict[str, np.ndarray]) -> torch.Tensor:
    pixels = torch.from_numpy(arrays["images_uint8"])
    return (pixels.float() / 255 - 0.5) / 0.5


def test_every_case_is_tested(meta: dict[str, Any]) -> None:
    assert len(meta["cases"]) == len(CASES)


@torch.inference_mode()
def test_dense_is_timm_to_the_bit(network: ReducingViT, images: torch.Tensor) -> None:
    assert torch.equal(network(images, [(DENSE, len(images))]).logits, network.vit(images))


@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_reference(
    case: int,
    network: ReducingViT,
    images: torch.Tensor,
    arrays: dict[str, np.ndarray],
    meta: dict[str, Any],
) -> None:
    wanted = meta["cases"][case]
    plan = ReductionPlan(tuple(wanted["blocks"]), (wanted["r"],) * 3, (wanted["threshold"],) * 3)
    logits, stages = network(images, [(plan, len(images))])

    assert np.abs(logits.numpy() - arrays[wanted["key"]]).max() < 1e-3
    # The tokens after each block are those that enter the next one's MLP.
    assert [after for _, after in network.geometry.tokens_per_block(plan)] == wanted["tokens_after_block"]
    variance = arrays[wanted["variance_key"]]
    decided = np.stack([stage.pruned.numpy() for stage in stages], axis=1)
    np.testing.assert_array_equal(decided, variance >= wanted["threshold"])
    np.testing.assert_allclose(
        np.stack([stage.variance.numpy() for stage in stages], axis=1), variance, atol=5e-7
    )


def test_the_papers_cost(network: ReducingViT) -> None:
    plan = ReductionPlan((3, 6, 9), (50, 50, 48), (7e-5,) * 3)
    assert network.geometry.gmacs(plan) == pytest.approx(0.798, abs=5e-4)
