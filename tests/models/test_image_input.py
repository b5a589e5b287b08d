"""Image processors of transformers, as they were configured over the years."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunepool.models.image_input import IMAGENET_MEAN, input_of_processor, share_of

SQUARE = {"height": 224, "width": 224}
SHORT = {"shortest_edge": 256}
OLD = {"feature_extractor_type": "ViTFeatureExtractor"}
CLIPS = {"image_processor_type": "CLIPImageProcessorFast"}


@pytest.mark.parametrize(
    ("kind", "processor", "crop_mode", "crop_pct", "interpolation"),
    [
        ("vit", {}, "squash", 1.0, "bilinear"),
        ("vit", {**OLD, "size": 224, "resample": 3}, "squash", 1.0, "bicubic"),
        ("vit", {"size": SQUARE, "resample": 0, "do_center_crop": None}, "squash", 1.0, "nearest"),
        ("deit", {"size": 256, "crop_size": 224}, "squash", 0.875, "bicubic"),
        ("deit", {"do_center_crop": False, "size": SQUARE, "crop_size": 199}, "squash", 1.0, "bicubic"),
        ("clip", {"size": 224, "crop_size": 224, "resample": 3}, "center", 1.0, "bicubic"),
        ("clip", {"size": SHORT, "crop_size": SQUARE}, "center", 0.875, "bicubic"),
        ("vit", {"size": SHORT, "do_center_crop": True, "crop_size": SQUARE}, "center", 0.875, "bilinear"),
        ("vit", {**CLIPS, "size": 256, "crop_size": 224}, "center", 0.875, "bicubic"),
        ("dinov2_with_registers", {}, "center", 0.875, "bicubic"),
        ("siglip", {"resample": 2}, "squash", 1.0, "bilinear"),
    ],
)
def test_a_processor_is_read(
    kind: str, processor: dict[str, Any], crop_mode: str, crop_pct: float, interpolation: str
) -> None:
    found, notices = input_of_processor(processor, kind, 224, "preprocessor_config.json")
    assert (found.size, found.crop_mode, found.interpolation) == (224, crop_mode, interpolation)
    assert found.crop_pct == pytest.approx(crop_pct)
    assert notices == ()


def test_without_normalisation_pixels_stay_from_0_to_1() -> None:
    found, _ = input_of_processor({"do_normalize": False}, "vit", 224, "p.json")
    assert (found.mean, found.std) == ((0, 0, 0), (1, 1, 1))


def test_a_processor_for_another_size_than_the_networks_is_said() -> None:
    found, notices = input_of_processor({"size": 384}, "vit", 224, "p.json")
    assert found.size == 224
    assert notices == (
        "its image processor makes images of 384², and the network takes 224²: they are made 224²",
    )


def test_what_a_processor_leaves_open_is_usual_for_its_model() -> None:
    found, _ = input_of_processor({"image_mean": None}, "deit", 224, "p.json")
    assert found.mean == IMAGENET_MEAN


@given(st.integers(1, 4096), st.integers(0, 4096))
def test_a_crop_over_its_share_is_the_resized_side_again(crop: int, more: int) -> None:
    resized = crop + more
    share = share_of(crop, resized)
    assert 0 < share <= 1
    assert math.floor(crop / share) == resized
