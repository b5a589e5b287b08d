"""Labels of classes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prunepool.errors import InvalidParameter
from prunepool.models.labels import imagenet_labels, read_labels


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.txt", "cat\ndog\ngrand piano\n"),
        ("l.txt", "cat\r\ndog\r\n  grand piano\n\n\n"),
        ("l.txt", "\ufeffcat\ndog\ngrand piano"),
        ("l.json", '["cat", "dog", "grand piano"]'),
        ("l.json", '{"1": "dog", "0": "cat", "2": "grand piano"}'),
    ],
)
def test_labels_are_read_in_order(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    assert read_labels(tmp_path / name) == ("cat", "dog", "grand piano")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.txt", b"", "one label a line; line 1 is empty"),
        ("l.txt", b"cat\n\ndog", "one label a line; line 2 is empty"),
        ("l.txt", b"\xff\xff", "a readable file of UTF-8 text"),
        ("l.json", b"{", "a JSON list of strings"),
        ("l.json", b"3", "a JSON list of strings"),
        ("l.json", b"[]", "a JSON list of strings"),
        ("l.json", b'["cat", 3]', 'of "0", "1", … to strings; number 1 is 3'),
        ("l.json", b'["cat", ""]', "number 1 is ''"),
        ("l.json", b'{"0": "cat", "2": "dog"}', "number 1 is None"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidParameter) as caught:
        read_labels(tmp_path / name)
    assert message in caught.value.detail
    assert caught.value.parameter == "labels"


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="No such file"):
        read_labels(tmp_path / "none.txt")


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


def test_json_is_told_by_the_suffix(tmp_path: Path) -> None:
    (tmp_path / "l.JSON").write_text(json.dumps(["cat"]))
    assert read_labels(tmp_path / "l.JSON") == ("cat",)
