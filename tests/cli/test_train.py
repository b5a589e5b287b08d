"""`prunepool train`, from the command line to a model in the store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunepool import cli
from prunepool.models.loader import load_model

FAST = ["--batch-size", "2", "--steps", "2", "--device", "cpu", "--dtype", "float32"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for i in range(4):
        path = folder / f"n{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 40, 3), 60 * i, np.uint8)).save(path)
    return folder


@pytest.fixture
def names(tmp_path: Path) -> Path:
    path = tmp_path / "names.txt"
    path.write_text("cat\ndog\n")
    return path


def test_from_random_weights_to_a_model_and_on_from_it(
    photos: Path, names: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    common = ["--images", str(photos), "--model-store", str(store), *FAST]
    first = [
        "train",
        "--name",
        "pets",
        "--architecture",
        "deit_tiny_patch16_224",
        "--class-names",
        str(names),
    ]
    first += ["--labels", "folders", "--run", str(tmp_path / "run"), "--weights", "float16", *common]
    assert cli.run(first) == 0, capsys.readouterr().err
    pets = load_model("pets", store=store, device="cpu", dtype="float32")
    assert pets.manifest.labels == ("cat", "dog")
    assert pets.manifest.weights.dtype == "float16"
    assert pets.manifest.origin == "trained with prunepool from random weights, on 4 images of photos"

    second = ["train", "pets", "--name", "taught", "--teacher", "pets", "--run", str(tmp_path / "run2")]
    assert cli.run([*second, *common, "--ratios", "0.755"]) == 0, capsys.readouterr().err
    assert "reduced loss" in capsys.readouterr().out
    taught = load_model("taught", store=store, device="cpu", dtype="float32")
    assert taught.manifest.origin == (
        "trained with prunepool from pets, taught by pets, on 4 images of photos"
    )

    assert cli.run([*second, *common]) == 1
    assert "taught" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "either MODEL or --architecture"),
        (["m", "--architecture", "deit_tiny_patch16_224"], "either MODEL or --architecture"),
        (["m"], "give --labels, --teacher or both"),
        (["m", "--labels", "folders", "--weights", "int8"], "weights must be one of float32"),
        (["--architecture", "deit_tiny_patch16_224", "--labels", "folders"], "needs --class-names"),
    ],
)
def test_wrong_usage_names_what_is_missing(
    arguments: list[str], complaint: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [
        "train",
        *arguments,
        "--name",
        "x",
        "--images",
        str(photos),
        "--model-store",
        str(tmp_path / "s"),
    ]
    assert cli.run(given) == 2
    assert complaint in " ".join(capsys.readouterr().err.split())
