"""The calibrated dial keeps the accuracy that docs/accuracy.md says it has."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from prunepool.imaging import Preprocess
from prunepool.lab.images import crops, find_images
from prunepool.lab.statistics import halves
from prunepool.models.vit import ReducingViT
from prunepool.reduction.plan import DENSE, ReductionPlan


@pytest.mark.shared
@torch.inference_mode()
def test_the_calibrated_plan_at_0_8_gmacs_agrees_with_the_dense_model(shared: Path, root: Path) -> None:
    """On photos that it was not chosen on, as the calibration's seed split them."""
    calibration = json.loads((root / "docs/benchmarks/calibration-vit-tiny.json").read_text())
    row = max((row for row in calibration["rows"] if row["gmacs"] <= 0.80), key=lambda row: row["gmacs"])
    plan = ReductionPlan(
        *(tuple(row["plan"][key]) for key in ("blocks", "removed", "thresholds")), row["plan"]["method"]
    )
    vit = timm.create_model("vit_tiny_patch16_224", pretrained=False)
    vit.load_state_dict(load_file(shared / "models/vit_tiny_patch16_224/model.safetensors"))
    network = ReducingViT(vit.eval())

    photos = find_images(shared / "images/photos", shared / "images/photos/labels.csv", range(1000))
    _, held_out = halves(photos.labels, len(photos), seed=calibration["seed"])
    agrees = []
    for batch in crops(photos.subset(held_out[:200]), Preprocess(224, 0.9, "bicubic"), 50):
        images = torch.from_numpy(batch.pixels).permute(0, 3, 1, 2) / 127.5 - 1
        tokens = network.advance(network.embed(images), 0, plan.blocks[0])
        dense, reduced = (
            network.run(tokens, [(which, len(images))], plan.blocks[0]).logits.argmax(-1)
            for which in (DENSE, plan)
        )
        agrees.append((dense == reduced).numpy())
    assert np.concatenate(agrees).mean() >= 0.945
