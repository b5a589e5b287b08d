"""The accuracy of number formats, each against float32 at the same ratio."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from prunepool import cli
from prunepool.backends.compiled_pass import Answers, Group
from prunepool.errors import InvalidParameter
from prunepool.lab import number_formats
from prunepool.lab.images import Crops
from prunepool.lab.number_formats import check_formats, evaluate_formats, with_formats
from prunepool.models.loaded_model import LoadedModel
from prunepool.store import ProfilePoint


class Passes:
    """PyTorch's answers; those of the last image of a reduced batch are turned round."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model

    def __call__(self, images: np.ndarray, groups: Sequence[Group]) -> Answers:
        logits = self._model.vit(torch.from_numpy(images), list(groups)).logits.numpy().copy()
        if not groups[0][0].dense:
            logits[-1] = -logits[-1]
        return Answers(logits, [])


def test_each_format_is_held_against_float32_at_its_ratio(
    small: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def open_formats(model: LoadedModel, dtypes: Sequence[str], threads: int) -> dict[str, Passes]:
        asked.extend(dtypes)
        return {dtype: Passes(model) for dtype in dtypes}

    monkeypatch.setattr(number_formats, "open_formats", open_formats)
    size = small.manifest.input_size
    pixels = np.random.default_rng(1).integers(0, 256, (4, size, size, 3), dtype=np.uint8)
    crops = Crops(pixels, np.zeros(4, np.int64), "")
    rows = evaluate_formats(small, [crops], [0.5], ["int8", "float32", "bfloat16"], seed=0)
    assert asked == ["int8", "bfloat16"]
    assert [(row.method, row.ratio) for row in rows] == [
        (dtype, ratio) for dtype in ("float32", "int8", "bfloat16") for ratio in (0.0, 0.5)
    ]
    assert [row.figures.agreement for row in rows] == [1, 1, 1, 0.75, 1, 0.75]
    profile = (
        ProfilePoint(ratio=0.0, gmacs=1.0),
        ProfilePoint(ratio=0.3, gmacs=0.9),
        ProfilePoint(ratio=0.5, gmacs=0.8),
    )
    dense, untouched, half = with_formats(profile, rows)
    assert dense.formats is not None
    assert half.formats is not None
    assert (dense.formats["int8"].agreement, half.formats["int8"].agreement) == (1.0, 0.75)
    assert untouched.formats is None


def test_a_format_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="dtypes must be of float32, bfloat16"):
        check_formats(["int8", "int4"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dtypes", "int8", "--url", "http://127.0.0.1:1"], "--dtypes measures a model's own dial"),
        (["--keep-formats"], "--keep-formats needs --dtypes"),
    ],
)
def test_a_wrong_call_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["evaluate", "tiny", "--images", str(tmp_path), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
