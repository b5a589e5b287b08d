"""Folders as timm saves models, for its hub and for itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_model_data_config
from timm.models import save_for_hf
from torch import nn

from prunepool.errors import ArchitectureUnsupported, ManifestInvalid, PrunepoolError
from prunepool.imaging import preprocess_image
from prunepool.models.add import AddedModel
from prunepool.models.add_folder import add_folder, description_of
from prunepool.models.loader import load_model
from prunepool.models.model_folder import read_folder
from prunepool.models.preprocess import preprocess_of
from prunepool.store import ModelStore

SMALL = {"img_size": 64, "depth": 4, "embed_dim": 24, "num_heads": 3}


def saved(folder: Path, architecture: str = "vit_tiny_patch16_224", **changes: Any) -> nn.Module:
    """A small network that timm saved into a folder."""
    torch.manual_seed(0)
    network = timm.create_model(architecture, **{"num_classes": 3, **SMALL, **changes}).eval()
    save_for_hf(network, folder, model_config={"label_names": ["cat", "dog", "owl"]}, safe_serialization=True)
    return network


def configure(folder: Path, **changes: Any) -> None:
    """Change a folder's `pretrained_cfg`."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["pretrained_cfg"] |= changes
    path.write_text(json.dumps(config))


def add(tmp_path: Path, folder: Path) -> AddedModel:
    found = read_folder(folder)
    return add_folder(ModelStore(tmp_path / "store"), found, description_of(found, "mine", "a folder"))


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("vit_tiny_patch16_224", {}),
        ("vit_tiny_patch16_224", {"reg_tokens": 2, "global_pool": "avg", "init_values": 0.1}),
        ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "map", "drop_path_rate": 0.1}),
        ("deit_tiny_distilled_patch16_224", {}),
        ("vit_base_patch32_clip_quickgelu_224", {}),
    ],
)
def test_what_timm_saved_answers_as_timm_does(
    tmp_path: Path, architecture: str, changes: dict[str, Any]
) -> None:
    network = saved(tmp_path / "f", architecture, **changes)
    added = add(tmp_path, tmp_path / "f")
    assert (added.model.manifest.labels, added.notices) == (("cat", "dog", "owl"), ())
    model = load_model("mine", store=tmp_path / "store", device="cpu", dtype="float32")
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(model(images).logits, network(images))


def test_what_transformers_wraps_of_timm_is_read_as_timms(tmp_path: Path) -> None:
    saved(tmp_path / "f")
    weights = load_file(tmp_path / "f" / "model.safetensors")
    save_file(
        {f"timm_model.{key}": value for key, value in weights.items()}, tmp_path / "f" / "model.safetensors"
    )
    path = tmp_path / "f" / "config.json"
    wrapped = {"architectures": ["TimmWrapperForImageClassification"], "model_type": "timm_wrapper"}
    names = {"label_names": ["LABEL_0", "LABEL_1", "LABEL_2"]}
    path.write_text(json.dumps(json.loads(path.read_text()) | wrapped | names))
    added = add(tmp_path, tmp_path / "f")
    assert load_file(added.model.weights_path).keys() == weights.keys()
    assert added.notices == ("its classes are called 'class 0' … 'class 2'; --labels names them",)


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_its_pixels_are_those_of_timms_transform(tmp_path: Path, crop_mode: str) -> None:
    network = saved(tmp_path / "f")
    wanted = {"crop_mode": crop_mode, "crop_pct": 0.8, "interpolation": "bilinear", "mean": [0.1, 0.2, 0.3]}
    configure(tmp_path / "f", **wanted)
    manifest = add(tmp_path, tmp_path / "f").model.manifest
    settings = resolve_model_data_config(network) | wanted | {"input_size": (3, 64, 64)}
    transform = create_transform(**settings, normalize=False)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 110, 3), np.uint8))
    crop = preprocess_image(image, preprocess_of(manifest)).astype(int)
    assert np.abs(crop - transform(image).permute(1, 2, 0).numpy()).max() <= 2
    assert (manifest.mean, manifest.std, manifest.input_size) == ((0.1, 0.2, 0.3), settings["std"], 64)


def test_a_network_without_a_head_is_an_embedding(tmp_path: Path) -> None:
    saved(tmp_path / "f", num_classes=0)
    path = tmp_path / "f" / "config.json"
    config = json.loads(path.read_text())
    del config["label_names"]
    path.write_text(json.dumps(config))
    added = add(tmp_path, tmp_path / "f")
    assert added.model.manifest.labels == ()
    assert "its output is an embedding" in added.notices[0]


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"architecture": "vit_enormous"}, ArchitectureUnsupported, "has no architecture 'vit_enormous'"),
        ({"architecture": "resnet18"}, ArchitectureUnsupported, "resnet18 belongs to no family"),
        ({"model_args": {"block_fn": "Mine"}}, ArchitectureUnsupported, "model_args.block_fn is 'Mine'"),
        ({"model_args": {"depth": -1}}, ManifestInvalid, "depth is -1: input should be greater than 0"),
        ({"pretrained_cfg": {"input_size": [3, 64, 96]}}, ManifestInvalid, r"input_size is \[3, 64, 96\]"),
        ({"pretrained_cfg": {"interpolation": "random"}}, ManifestInvalid, "interpolation is 'random'"),
        ({"pretrained_cfg": {"mean": 0.5}}, ManifestInvalid, "mean is 0.5; it must be three numbers"),
        ({"pretrained_cfg": {"crop_mode": "pad"}}, ManifestInvalid, "crop_mode is 'pad'"),
        ({"pretrained_cfg": {"crop_pct": "all"}}, ManifestInvalid, "crop_pct is 'all'"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], kind: type[PrunepoolError], message: str
) -> None:
    saved(tmp_path / "f")
    path = tmp_path / "f" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(kind, match=message) as caught:
        add(tmp_path, tmp_path / "f")
    assert "\n" not in caught.value.detail
