"""Finding models in the catalogue of timm."""

from __future__ import annotations

import pytest

from prunepool.errors import ArchitectureUnsupported
from prunepool.models.catalogue import look_up


@pytest.mark.parametrize(
    "name",
    [
        "deit_small_patch16_224.fb_in1k",
        "deit_small_patch16_224",
        "timm/deit_small_patch16_224.fb_in1k",
        "hf-hub:timm/deit_small_patch16_224.fb_in1k",
    ],
)
def test_a_model_is_found_by_all_its_spellings(name: str) -> None:
    entry = look_up(name)
    assert entry.full_name == "deit_small_patch16_224.fb_in1k"
    assert entry.hub_id == "timm/deit_small_patch16_224.fb_in1k"
    assert (entry.input_size, entry.classes, entry.crop_pct, entry.interpolation) == (
        224,
        1000,
        0.9,
        "bicubic",
    )
    assert (entry.mean, entry.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (entry.licence, entry.crop_mode) == ("apache-2.0", "center")


def test_a_tag_decides_the_mean() -> None:
    assert look_up("vit_base_patch16_224.augreg_in21k").mean == (0.5, 0.5, 0.5)
    assert look_up("vit_base_patch16_224.augreg_in21k").classes == 21843


def test_a_name_that_timm_has_not_gets_close_ones() -> None:
    with pytest.raises(ArchitectureUnsupported) as caught:
        look_up("deit_smal_patch16_224")
    assert "has no architecture 'deit_smal_patch16_224'; close to it: " in caught.value.detail
    assert "deit_small_patch16_224" in caught.value.detail


@pytest.mark.parametrize("name", ["", "???", "../x"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ArchitectureUnsupported, match="has no architecture"):
        look_up(name)


def test_a_tag_that_timm_has_not_gets_those_it_has() -> None:
    with pytest.raises(ArchitectureUnsupported, match=r"knows no weights 'fb' of .*; it knows fb_in1k$"):
        look_up("deit_small_patch16_224.fb")


@pytest.mark.parametrize("name", ["resnet50", "swin_tiny_patch4_window7_224", "convnext_tiny"])
def test_networks_other_than_vision_transformers_are_refused(name: str) -> None:
    with pytest.raises(
        ArchitectureUnsupported,
        match=f"^{name} belongs to no family of models whose tokens can be reduced",
    ):
        look_up(name)
