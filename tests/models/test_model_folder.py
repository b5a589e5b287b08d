"""Folders as transformers and timm save models: loaded as they are, with their outputs and their pixels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from prunepool.errors import ArchitectureUnsupported, ManifestInvalid, PrunepoolError, WeightsInvalid
from prunepool.imaging import preprocess_image
from prunepool.models.add import AddedModel
from prunepool.models.add_folder import add_folder, description_of
from prunepool.models.loader import load_model, new_network
from prunepool.models.model_folder import read_folder
from prunepool.models.preprocess import preprocess_of
from prunepool.models.transformers_config import read_network
from prunepool.store import ModelStore

#: What transformers saved, and what it answers; transformers_reference.py made them.
SAVED = Path(__file__).parent / "transformers"
NAMES = sorted(folder.name for folder in SAVED.iterdir())
#: transformers resizes with torch, which rounds otherwise than Pillow.
_LEVELS = 2


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store")


def add(store: ModelStore, folder: Path) -> AddedModel:
    found = read_folder(folder)
    return add_folder(store, found, description_of(found, "mine", f"folder {folder.name}"))


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_transformers_answers_what_transformers_does(store: ModelStore, name: str) -> None:
    add(store, SAVED / name)
    model = load_model("mine", store=store.root, device="cpu", dtype="float32")
    expected = np.load(SAVED / name / "expected.npz")
    answers = model(torch.from_numpy(expected["pixels"])).logits.numpy()
    np.testing.assert_allclose(answers, expected["output"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_transformers_gets_the_pixels_of_its_image_processor(
    store: ModelStore, name: str
) -> None:
    manifest = add(store, SAVED / name).model.manifest
    expected = np.load(SAVED / name / "expected.npz")
    crop = preprocess_image(Image.fromarray(expected["image"]), preprocess_of(manifest)).astype(float)
    mean, std = np.array(manifest.mean), np.array(manifest.std)
    wanted = (expected["pixels"][0].transpose(1, 2, 0) * std + mean) * 255
    assert np.abs(crop - wanted).max() <= _LEVELS + 1e-3


def test_an_embedding_has_no_classes_and_that_is_said(store: ModelStore) -> None:
    added = add(store, SAVED / "clip-embedding")
    assert added.model.manifest.labels == ()
    assert added.notices == ("its output is an embedding, and /classify refuses it",)


@pytest.mark.parametrize("name", ["vit", "dinov2", "siglip", "clip"])
def test_a_folder_of_transformers_can_be_reduced(store: ModelStore, name: str) -> None:
    add(store, SAVED / name)
    model = load_model("mine", store=store.root, device="cpu", dtype="float32")
    pixels = torch.from_numpy(np.load(SAVED / name / "expected.npz")["pixels"])
    reduced = model(pixels, model.plan(0.5)).logits
    assert reduced.shape == (1, 5)
    assert torch.isfinite(reduced).all()
    assert not torch.equal(reduced, model(pixels).logits)


#: The smallest configuration of each class whose size timm has an architecture of.
KNOWN = [
    ("ViTForImageClassification", {}, "vit_base_patch16_224"),
    ("DeiTForImageClassification", {}, "vit_base_patch16_224"),
    ("DeiTForImageClassificationWithTeacher", {}, "deit_base_distilled_patch16_224"),
    ("Dinov2ForImageClassification", {}, "vit_base_patch14_dinov2"),
    ("Dinov2Model", {}, "vit_base_patch14_dinov2"),
    ("Dinov2WithRegistersModel", {}, "vit_base_patch14_reg4_dinov2"),
    ("Dinov2WithRegistersModel", {"num_register_tokens": 2}, "vit_base_patch14_reg4_dinov2"),
    ("SiglipForImageClassification", {}, "vit_base_patch16_siglip_gap_224"),
    ("SiglipVisionModel", {}, "vit_base_patch16_siglip_224"),
    ("CLIPForImageClassification", {}, "vit_base_patch32_clip_quickgelu_224"),
    ("CLIPVisionModel", {"hidden_act": "gelu"}, "vit_base_patch32_clip_224"),
]


@pytest.mark.parametrize(("saved_as", "changes", "architecture"), KNOWN)
def test_timms_architecture_of_a_known_size_is_the_network_that_all_options_make(
    saved_as: str, changes: dict[str, Any], architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"architectures": [saved_as], **changes}
    named = read_network(config, "config.json")
    assert named.architecture == architecture
    monkeypatch.setattr("prunepool.models.transformers_config._SIZES", {})
    spelled_out = read_network(config, "config.json")
    with torch.device("meta"):
        one, other = (
            new_network(network.architecture, 7, network.image_size, network.options)
            for network in (named, spelled_out)
        )
    assert repr(one.vit) == repr(other.vit)
    assert one.geometry == other.geometry
    for attribute in ("no_embed_class", "pool_include_prefix", "global_pool", "num_prefix_tokens"):
        assert getattr(one.vit, attribute) == getattr(other.vit, attribute)
    shapes = [{key: value.shape for key, value in net.vit.state_dict().items()} for net in (one, other)]
    assert shapes[0] == shapes[1]


def test_labels_licence_and_origin_are_those_of_the_folder(store: ModelStore, tmp_path: Path) -> None:
    folder = shutil.copytree(SAVED / "vit", tmp_path / "pets")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\ntags:\n- vision\n---\n# Pets\n")
    added = add(store, folder)
    manifest = added.model.manifest
    assert manifest.labels == ("cat", "dog", "fox", "owl", "yak")
    assert (manifest.licence, manifest.origin) == ("apache-2.0", "folder pets")
    assert added.notices == ()


def changed(source: str, target: Path, **changes: Any) -> Path:
    """A copy of a saved folder with another configuration; None removes a key."""
    folder = shutil.copytree(SAVED / source, target)
    config = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        config.pop(key, None)
        if value is not None:
            config[key] = value
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_names_that_nobody_gave_are_no_labels(store: ModelStore, tmp_path: Path) -> None:
    names = {str(index): f"LABEL_{index}" for index in range(5)}
    added = add(store, changed("vit", tmp_path / "f", id2label=names))
    assert added.model.manifest.labels[0] == "class 0"
    assert added.notices == ("its classes are called 'class 0' … 'class 4'; --labels names them",)


def test_without_a_processor_what_is_usual_is_assumed_and_said(store: ModelStore, tmp_path: Path) -> None:
    folder = shutil.copytree(SAVED / "vit", tmp_path / "f")
    (folder / "preprocessor_config.json").unlink()
    added = add(store, folder)
    assert added.model.manifest.crop_mode == "squash"
    assert any(
        "it has no preprocessor_config.json: its images are prepared as is usual for vit" in one
        for one in added.notices
    )


def test_a_processor_in_the_newer_file_is_read(store: ModelStore, tmp_path: Path) -> None:
    folder = shutil.copytree(SAVED / "deit", tmp_path / "f")
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(
        json.dumps({"image_processor": {**processor, "image_mean": [0.1, 0.2, 0.3]}})
    )
    assert add(store, folder).model.manifest.mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(("source", "pickled"), [("vit", False), ("deit", True)])
def test_weights_in_several_files_are_read(
    store: ModelStore, tmp_path: Path, source: str, pickled: bool
) -> None:
    folder = shutil.copytree(SAVED / source, tmp_path / "f")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    keys = sorted(weights)
    parts = [{key: weights[key] for key in keys[::2]}, {key: weights[key] for key in keys[1::2]}]
    index: dict[str, str] = {}
    for number, part in enumerate(parts):
        name = f"part-{number}.{'bin' if pickled else 'safetensors'}"
        (torch.save if pickled else save_file)(part, folder / name)
        index |= dict.fromkeys(part, name)
    document = json.dumps({"weight_map": index})
    (folder / ("pytorch_model.bin.index.json" if pickled else "model.safetensors.index.json")).write_text(
        document
    )
    add(store, folder)
    assert store.verify("mine").manifest.labels[0] == "cat"


def test_an_adapter_inside_a_model_is_refused_by_name(store: ModelStore, tmp_path: Path) -> None:
    folder = shutil.copytree(SAVED / "vit", tmp_path / "f")
    weights = load_file(folder / "model.safetensors")
    key = "vit.encoder.layer.0.attention.attention.query"
    weights[f"{key}.base_layer.weight"] = weights.pop(f"{key}.weight")
    weights |= {f"{key}.lora_{half}.default.weight": torch.zeros(2, 2) for half in "AB"}
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(WeightsInvalid, match=r"is an adapter of PEFT .*merge_and_unload\(\)"):
        add(store, folder)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        (
            {"architectures": ["SwinForImageClassification"]},
            ArchitectureUnsupported,
            "is a SwinForImageClassification; of transformers are served: CLIPForImage",
        ),
        ({"architectures": None}, ArchitectureUnsupported, "has no architectures"),
        ({"num_channels": 1}, ArchitectureUnsupported, "num_channels is 1; images have 3"),
        ({"hidden_act": "mish"}, ArchitectureUnsupported, "hidden_act is 'mish'"),
        ({"image_size": [32, 48]}, ArchitectureUnsupported, r"image_size is \[32, 48\]; one positive number"),
        ({"num_attention_heads": 5}, PrunepoolError, "num_heads must divide embed_dim"),
        (
            {"intermediate_size": 44},
            WeightsInvalid,
            r"blocks\.0\.mlp\.fc1\.weight is \[40, 24\], not \[44, 24\]",
        ),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(
    store: ModelStore, tmp_path: Path, changes: dict[str, Any], kind: type[PrunepoolError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        add(store, changed("vit", tmp_path / "f", **changes))
    assert "\n" not in caught.value.detail
    assert store.names() == ()


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        ({"size": {"height": 32, "width": 48}}, "size is .* it must be a square, or a shortest_edge"),
        ({"size": {"shortest_edge": 32}}, "do_center_crop is False; it must be true"),
        ({"resample": 4}, r"resample is 4; it must be one of 0 \(nearest\), 1 \(lanczos\)"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor is 0.0078"),
        ({"do_resize": False}, "do_resize is False"),
        ({"image_mean": [0.5]}, r"image_mean is \[0\.5\]; it must be three numbers"),
        ({"do_center_crop": True, "crop_size": 64}, "crop_size is 64; it must be at most size, 32"),
    ],
)
def test_an_input_that_is_not_served_is_refused_by_name(
    store: ModelStore, tmp_path: Path, processor: dict[str, Any], message: str
) -> None:
    folder = shutil.copytree(SAVED / "vit", tmp_path / "f")
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | processor))
    with pytest.raises(ManifestInvalid, match=rf"preprocessor_config\.json: {message}"):
        add(store, folder)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"has no config\.json, so that nothing says what its weights are"),
        ({"config.json": "{"}, r"config\.json: is not JSON"),
        ({"config.json": "[]"}, r"config\.json: is not a JSON object"),
        (
            {"config.json": '{"architectures": ["ViTModel"]}'},
            r"has no weights; model\.safetensors, .* are read",
        ),
        (
            {"config.json": "{}", "model.safetensors": ""},
            "has neither architecture, as timm's have it, nor architectures",
        ),
        ({"adapter_config.json": "{}"}, r"is an adapter of PEFT .* merge_and_unload\(\)"),
        (
            {
                "config.json": "{}",
                "model.safetensors.index.json": '{"weight_map": {"a": "../../etc/passwd"}}',
            },
            r"its weight_map has '\.\./\.\./etc/passwd'; only files beside it are read",
        ),
        ({"config.json": "{}", "model.safetensors.index.json": "{}"}, "its weight_map names no file"),
    ],
)
def test_a_folder_that_is_no_model_is_refused(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(PrunepoolError, match=message) as caught:
        read_folder(tmp_path)
    assert "\n" not in caught.value.detail
