"""What weights of other families have: positions inside attention, and batch norms of a hybrid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from prunepool.lab.small_networks import randomise, small_network
from prunepool.models import fitting, mapped_weights
from prunepool.models.description import ModelDescription
from prunepool.models.families import reducing

NAME = "beit_base_patch16_224"
DESCRIPTION = ModelDescription(
    name="mine",
    architecture=NAME,
    input_size=96,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    crop_pct=1.0,
    crop_mode="center",
    interpolation="bicubic",
    licence="unknown",
    origin="random",
)


def test_relative_positions_are_resampled_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def network(description: ModelDescription, classes: int) -> Any:
        with torch.device("meta"):
            return reducing(small_network(NAME, img_size=description.input_size, num_classes=classes))

    monkeypatch.setattr(fitting, "_network", network)
    path = tmp_path / "model.safetensors"
    save_file(randomise(small_network(NAME, img_size=64, num_classes=5)).state_dict(), path)
    description, said = fitting.fit_file(path, DESCRIPTION, 5)
    assert description.input_size == 96
    first = "blocks.0.attn.relative_position_bias_table"
    assert said[0].startswith(f"4 of its tensors were resampled to 96² ({first}, ")
    assert load_file(path)[first].shape == ((2 * 6 - 1) ** 2 + 3, 3)


def test_what_batch_norms_have_counted_is_left_out(tmp_path: Path) -> None:
    norms = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    path = tmp_path / "model.safetensors"
    save_file(norms.state_dict(), path)
    fitting.drop_counters(path)
    left = load_file(path)
    assert left.keys() == norms.state_dict().keys() - {"1.num_batches_tracked"}
    assert not fitting.differs({key: tuple(value.shape) for key, value in left.items()}, norms)
    with torch.device("meta"):
        empty = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    mapped_weights.fill(empty, path)
    images = torch.randn(1, 3, 2, 2)
    assert torch.equal(empty.eval()(images), norms.eval()(images))
