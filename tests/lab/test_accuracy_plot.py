"""The picture of the trade-off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunepool.lab.accuracy_figures import figures
from prunepool.lab.accuracy_plot import draw
from prunepool.lab.accuracy_row import DENSE_ROW, AccuracyRow
from prunepool.lab.evaluate import DIAL
from prunepool.lab.model_outputs import ModelOutputs
from prunepool.reduction.methods import METHODS


def row(method: str, gmacs: float, wrong: int, *, labels: bool) -> AccuracyRow:
    place = np.array([1] * wrong + [0] * (20 - wrong))
    dense = ModelOutputs(np.zeros(20, int), np.ones(20, np.float32), place * 0 if labels else None, None)
    found = ModelOutputs(place, np.ones(20, np.float32), place if labels else None, None)
    return AccuracyRow(method, 0.5, gmacs, None, figures(found, dense, seed=0))


@pytest.mark.parametrize("labels", [True, False])
def test_a_picture_of_every_method(tmp_path: Path, labels: bool) -> None:
    rows = [row(DENSE_ROW, 1.2, 0, labels=labels)]
    for method in (DIAL, "served", *METHODS):
        rows += [row(method, 0.8, 3, labels=labels), row(method, 1.0, 1, labels=labels)]
    draw(rows, tmp_path / "new" / "a.png", title="small")
    with Image.open(tmp_path / "new" / "a.png") as image:
        assert image.width == (1500 if labels else 810)
        assert len(image.convert("RGB").getcolors(1 << 20) or ()) > 8


def test_other_figures_make_another_picture(tmp_path: Path) -> None:
    dense, other = row(DENSE_ROW, 1.2, 0, labels=True), row("ppt", 0.8, 3, labels=True)
    draw([dense, other], tmp_path / "a.png", title="small")
    draw([dense, replace(other, gmacs=0.9)], tmp_path / "b.png", title="small")
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()
