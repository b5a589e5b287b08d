"""The labels of ImageNet's classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunepool.models.labels import imagenet_labels


def test_imagenets_labels_are_in_the_order_of_its_classes() -> None:
    labels = imagenet_labels(1000)
    assert labels is not None
    assert len(labels) == 1000
    assert {index: labels[index] for index in (0, 217, 482, 491, 497, 701)} == {
        0: "tench",
        217: "English springer",
        482: "cassette player",
        491: "chain saw",
        497: "church",
        701: "parachute",
    }


@pytest.mark.parametrize("classes", [1000, 11821, 21841, 21843])
def test_no_two_classes_share_a_label(classes: int) -> None:
    labels = imagenet_labels(classes)
    assert labels is not None
    assert len(set(labels)) == classes


def test_the_two_cranes_are_told_apart() -> None:
    labels = imagenet_labels(1000)
    assert labels is not None
    assert labels[134].startswith("crane: large long-necked wading bird")
    assert labels[517].startswith("crane: lifts and moves heavy objects")


@pytest.mark.parametrize("classes", [1, 10, 999])
def test_other_numbers_of_classes_are_not_imagenets(classes: int) -> None:
    assert imagenet_labels(classes) is None


@pytest.mark.shared
def test_the_labels_are_those_of_the_reference_photos(shared: Path) -> None:
    import csv

    labels = imagenet_labels(1000)
    assert labels is not None
    with (shared / "images" / "photos" / "labels.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            first = row["label"].split(",")[0]
            assert labels[int(row["label_index"])].split(",")[0].split(":")[0] == first
