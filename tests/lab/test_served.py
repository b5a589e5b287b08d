"""The accuracy of a running server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunepool import cli
from prunepool.client import Client
from prunepool.errors import ImageUndecodable, ModelNotFound, PrunepoolError
from prunepool.lab.images import ImageSet, find_images
from prunepool.lab.served import evaluate_server
from prunepool.settings import Settings
from prunepool.testing import FakeService, fake_gmacs, fake_model


@pytest.fixture
def engine() -> FakeService:
    """Ten classes and four; the first model is the default."""
    return FakeService([fake_model("ten"), fake_model("four", classes=4)])


@pytest.fixture
def url(serving: Any, engine: FakeService) -> Iterator[str]:
    """A server over it in a thread."""
    with serving(Settings(), engine) as found:
        yield found


@pytest.fixture
def images(photos: Path) -> ImageSet:
    return find_images(photos, photos / "labels.csv", [f"class {i}" for i in range(10)])


def test_every_image_is_sent_at_ratio_0_and_at_each_ratio(
    url: str, engine: FakeService, images: ImageSet
) -> None:
    with Client(url) as client:
        rows = evaluate_server(client, images, [0.0, 0.5], model=None, seed=0)
    assert sorted(options.reduction_ratio or 0 for _, options in engine.calls) == [0.0] * 12 + [0.5] * 12
    assert [(row.method, row.ratio) for row in rows] == [("dense", 0.0), ("served", 0.5)]


def test_figures_are_those_of_the_answers(url: str, images: ImageSet) -> None:
    """A fake engine answers the same at every ratio, with its best five of ten classes."""
    with Client(url) as client:
        dense, served = evaluate_server(client, images, [0.5], model="ten", seed=0)
        tops = [[p.index for p in client.classify(file).predictions] for file in images.files]
    assert images.labels is not None
    right = [label == top[0] for top, label in zip(tops, images.labels, strict=True)]
    among = [label in top for top, label in zip(tops, images.labels, strict=True)]
    for row in (dense, served):
        assert row.figures.top1 == pytest.approx(sum(right) / 12)
        assert row.figures.top5 == pytest.approx(sum(among) / 12)
        assert (row.figures.agreement, row.figures.kl) == (1.0, None)
    assert served.gmacs == pytest.approx(fake_gmacs(0.0) * fake_gmacs(0.5))


def test_a_model_with_few_classes_gives_all_of_them(url: str, images: ImageSet) -> None:
    with Client(url) as client:
        (dense,) = evaluate_server(client, images, [], model="four", seed=0)
    assert dense.figures.top5 == 1.0


@pytest.mark.parametrize("where", ["bad.png", "none.png"])
def test_an_image_that_the_server_cannot_decode_is_left_out_at_every_ratio(
    url: str, images: ImageSet, tmp_path: Path, where: str
) -> None:
    (tmp_path / "bad.png").write_bytes(b"bad")
    assert images.labels is not None
    broken = ImageSet((tmp_path / where, *images.files), np.concatenate([[3], images.labels]))
    why: list[str] = []
    with Client(url) as client:
        whole = evaluate_server(client, images, [0.5], model="ten", seed=0)
        assert evaluate_server(client, broken, [0.5], model="ten", seed=0, broken=why) == whole
        assert len(why) == 1
        assert why[0].startswith(f"{tmp_path / where}: ")
        with pytest.raises(PrunepoolError):
            evaluate_server(client, broken, [0.5], model="ten", seed=0)
        with pytest.raises(ImageUndecodable, match="none of 1 images can be decoded"):
            evaluate_server(client, broken.subset(np.array([0])), [], model="ten", seed=0, broken=[])


def test_the_command_asks_a_server(
    url: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ("--labels", str(photos / "labels.csv"))
    status = cli.run(
        ["evaluate", "--url", url, "--images", str(photos), *labels, "--ratios", "0.5",
         "--json", str(tmp_path / "out.json"), "--plot", str(tmp_path / "out.png")]
    )  # fmt: skip
    assert status == 0
    assert "served" in capsys.readouterr().out
    document = json.loads((tmp_path / "out.json").read_text())
    assert (document["model"], document["rows"][1]["figures"]["images"]) == ("ten", 12)
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_a_model_that_is_not_served_is_refused(
    url: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["evaluate", "five", "--url", url, "--images", str(photos)]) == 1
    assert ModelNotFound.__name__ not in capsys.readouterr().err
