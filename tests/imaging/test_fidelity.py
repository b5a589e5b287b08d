"""On real photos: the pixels are timm's, and draft mode costs no accuracy."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.data import create_transform

from prunepool.imaging import ImageLimits, Preprocess, decode

pytestmark = pytest.mark.shared

LIMITS = ImageLimits()
PREPROCESS = Preprocess()
#: Twice the resized short side: a JPEG is decoded at a reduced scale if at least this is left.
DRAFT_LEAVES = 2 * 248
ENLARGEMENT = 4


def timm_crop(data: bytes) -> np.ndarray:
    transform = create_transform(
        input_size=224, interpolation="bicubic", crop_pct=0.9, is_training=False, normalize=False
    )
    return transform(Image.open(io.BytesIO(data)).convert("RGB")).permute(1, 2, 0).numpy()


def is_drafted(data: bytes) -> bool:
    return min(Image.open(io.BytesIO(data)).size) >= 2 * DRAFT_LEAVES


@pytest.mark.parametrize(("folder", "step"), [("photos", 5), ("val", 4), ("web", 1)])
def test_default_pixels_are_timms_within_two_levels(shared: Path, folder: str, step: int) -> None:
    files = sorted((shared / "images" / folder).rglob("*.jpg"))[::step]
    photos = [data for data in map(Path.read_bytes, files) if not is_drafted(data)]
    assert len(photos) >= 60
    for data in photos:
        difference = np.abs(decode(data, PREPROCESS, LIMITS).astype(int) - timm_crop(data))
        assert difference.max() <= 2
        assert difference.mean() < 0.02


def test_pixels_of_pictures_much_taller_than_wide_are_nearly_timms(shared: Path) -> None:
    """Pillow 13 starts with the columns there, so overshoots are clipped elsewhere."""
    differences = []
    for file in sorted((shared / "images" / "web").rglob("*.jpg"))[::3]:
        photo = Image.open(file).convert("RGB")
        buffer = io.BytesIO()
        photo.crop((0, 0, photo.height * 9 // 20, photo.height)).save(buffer, "PNG", compress_level=1)
        data = buffer.getvalue()
        differences.append(np.abs(decode(data, PREPROCESS, LIMITS).astype(int) - timm_crop(data)))
    assert len(differences) >= 20
    assert max(difference.max() for difference in differences) <= 12
    assert np.mean([(difference > 2).mean() for difference in differences]) < 1e-4


def test_draft_pixels_are_within_one_level_of_timm_on_web_photos(shared: Path) -> None:
    """Crops so small that draft mode applies to photos of 500×375, with all their natural detail."""
    preprocess = Preprocess(size=80)
    differences = []
    for file in sorted((shared / "images" / "web").rglob("*.jpg")):
        data = file.read_bytes()
        drafted = decode(data, preprocess, LIMITS).astype(int)
        difference = np.abs(drafted - decode(data, preprocess, LIMITS, draft=False)).mean()
        differences += [difference] if difference > 0 else []
    assert len(differences) >= 20
    assert np.mean(differences) < 1


def enlarged(file: Path) -> bytes:
    photo = Image.open(file).convert("RGB")
    buffer = io.BytesIO()
    size = (photo.width * ENLARGEMENT, photo.height * ENLARGEMENT)
    photo.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


@torch.inference_mode()
def top1(model: torch.nn.Module, crops: list[np.ndarray], labels: list[int]) -> float:
    hits = 0
    for start in range(0, len(crops), 25):
        pixels = torch.from_numpy(np.stack(crops[start : start + 25])).permute(0, 3, 1, 2)
        classes = model(pixels.float() / 127.5 - 1).argmax(1)
        hits += int((classes == torch.tensor(labels[start : start + 25])).sum())
    return hits / len(crops)


@pytest.mark.nightly  # what it does to the pixels is held in every run
def test_draft_mode_is_within_one_percent_of_the_exact_top1(shared: Path) -> None:
    weights = load_file(shared / "models" / "vit_tiny_patch16_224" / "model.safetensors")
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False).eval()
    model.load_state_dict(weights, strict=True)
    photos = shared / "images" / "photos"
    rows = list(csv.DictReader((photos / "labels.csv").read_text().splitlines()))[::5]
    files = [enlarged(photos / row["file"]) for row in rows]
    labels = [int(row["label_index"]) for row in rows]
    exact = [decode(data, PREPROCESS, LIMITS, draft=False) for data in files]
    drafted = [decode(data, PREPROCESS, LIMITS) for data in files]
    assert all((a != b).any() for a, b in zip(exact, drafted, strict=True)), "draft mode did not apply"
    accuracy = top1(model, exact, labels)
    assert accuracy > 0.8
    assert round(abs(top1(model, drafted, labels) - accuracy), 6) <= 0.01
