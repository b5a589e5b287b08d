"""The calibrated plans keep the accuracy that docs/accuracy.md says they have."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from prunepool.imaging import Preprocess
from prunepool.lab.images import crops, find_images
from prunepool.lab.measure import measure
from prunepool.lab.statistics import halves
from prunepool.models.loader import load_model
from prunepool.models.vit import ReducingViT
from prunepool.reduction.plan import DENSE, ReductionPlan


@pytest.mark.nightly  # of a model that nobody serves; the default one's, below, are held in every run
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


#: Imagenette's classes among ImageNet's thousand.
IMAGENETTE = {
    "n01440764": 0,
    "n02102040": 217,
    "n02979186": 482,
    "n03000684": 491,
    "n03028079": 497,
    "n03394916": 566,
    "n03417042": 569,
    "n03425413": 571,
    "n03445777": 574,
    "n03888257": 701,
}


@pytest.mark.shared
def test_the_default_model_is_as_right_as_its_profile_says(shared: Path, root: Path, tmp_path: Path) -> None:
    """On images that it was neither trained nor calibrated on, as the calibration's seed split them."""
    with tarfile.open(shared / "data/imagenette160-val.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    files = sorted(file.relative_to(tmp_path) for file in tmp_path.rglob("*.jpg"))
    lines = [f"{file},{IMAGENETTE[file.parts[0]]}" for file in files]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label_index", *lines]))
    model = load_model("deit_tiny_imagenet1k", device="cpu", dtype="float32", store=root / "model_store")
    images = find_images(tmp_path, tmp_path / "labels.csv", model.manifest.labels)
    calibration = json.loads((root / "docs/benchmarks/calibration-imagenet1k.json").read_text())
    _, held_out = halves(images.labels, len(images), seed=calibration["seed"])
    some = images.subset(np.sort(held_out)[::3])

    plan = model.plan(0.755)
    batches = list(crops(some, Preprocess(224, 0.9, "bicubic"), 64))
    found = measure(model, batches, [DENSE, plan])
    dense, reduced = found[DENSE], found[plan]
    point = next(point for point in model.manifest.profile or () if point.ratio == 0.755)
    assert point.agreement is not None
    assert (dense.predicted == reduced.predicted).mean() >= point.agreement - 0.03
    assert point.top1 is not None
    assert (reduced.place == 0).mean() >= point.top1 - 0.08
