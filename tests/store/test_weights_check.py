"""What the header of the weights says against the manifest."""

from __future__ import annotations

from typing import Any

import pytest

from prunepool.errors import WeightsInvalid
from prunepool.store import Manifest
from prunepool.store.weights_check import check_weights

SHAPES: dict[str, tuple[int, ...]] = {
    "pos_embed": (1, 197, 8),
    "patch_embed.proj.weight": (8, 3, 16, 16),
    "blocks.0.attn.qkv.weight": (24, 8),
    "blocks.1.attn.qkv.weight": (24, 8),
    "blocks.2.attn.qkv.weight": (24, 8),
    "blocks.3.attn.qkv.weight": (24, 8),
    "head.weight": (2, 8),
}
PARAMETERS = 1576 + 6144 + 4 * 192 + 16
GEOMETRY = {
    "depth": 4,
    "width": 8,
    "heads": 2,
    "mlp_width": 16,
    "patch_size": [16, 16],
    "patch_grid": [14, 14],
    "prefix_tokens": 1,
    "classes": 2,
}


@pytest.fixture
def described(document: dict[str, Any]) -> dict[str, Any]:
    weights = document["weights"] | {"parameters": PARAMETERS}
    return document | {"weights": weights, "geometry": GEOMETRY}


def test_weights_that_are_described(described: dict[str, Any]) -> None:
    check_weights(Manifest.model_validate(described), SHAPES)
    check_weights(Manifest.model_validate(described | {"geometry": None}), SHAPES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ["one"]}, "tiny: labels of its model.json is 1, but head.weight has 2 classes"),
        (
            {"labels": ["a", "b", "c"], "geometry": None},
            "labels of its model.json is 3, but head.weight has 2",
        ),
        (
            {"input_size": 384, "geometry": None},
            "input_size of its model.json is 384, but that makes 576 patches",
        ),
        (
            {"geometry": GEOMETRY | {"depth": 12}},
            "geometry.depth of its model.json is 12, but the file has 4",
        ),
        (
            {"geometry": GEOMETRY | {"width": 192}},
            "geometry.width of its model.json is 192, but head.weight has 8",
        ),
    ],
)
def test_weights_that_are_not(described: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsInvalid, match=message.replace(".", r"\.")):
        check_weights(Manifest.model_validate(described | change), SHAPES)


def test_another_number_of_parameters(described: dict[str, Any]) -> None:
    described["weights"]["parameters"] = 1
    with pytest.raises(
        WeightsInvalid, match=f"weights.parameters of its model.json is 1, but the file has {PARAMETERS}"
    ):
        check_weights(Manifest.model_validate(described), SHAPES)


def test_a_second_classifier_has_as_many_classes(described: dict[str, Any]) -> None:
    shapes = SHAPES | {"head_dist.weight": (3, 8)}
    with pytest.raises(WeightsInvalid, match=r"head_dist\.weight has 3 classes"):
        check_weights(Manifest.model_validate(described), shapes)
