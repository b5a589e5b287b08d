"""Which images a folder means, what their classes are, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prunepool.errors import ImageUndecodable, InvalidParameter
from prunepool.imaging import Preprocess
from prunepool.lab.images import FOLDERS, ImageSet, crops, find_images

LABELS = ("cat", "dog", "fox", "owl")
PREPROCESS = Preprocess(96, 1.0)


def test_the_images_of_a_csv_in_its_order(photos: Path) -> None:
    found = find_images(photos, photos / "labels.csv", LABELS)
    assert [file.name for file in found.files[:3]] == ["00.png", "01.png", "02.png"]
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 2, 3] * 3


def test_each_class_has_a_folder_in_alphabetical_order(photos: Path) -> None:
    found = find_images(photos / "classes", FOLDERS, LABELS)
    assert found.labels is not None
    assert [(file.parent.name, label) for file, label in zip(found.files, found.labels, strict=True)][
        ::3
    ] == [(f"n{i}", i) for i in range(4)]


def test_folders_named_as_labels_are_those_classes(photos: Path, tmp_path: Path) -> None:
    for name in ("owl", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes((photos / "00.png").read_bytes())
    found = find_images(tmp_path, FOLDERS, LABELS)
    assert found.labels is not None
    assert found.labels.tolist() == [1, 3]


def test_without_labels_all_images_in_and_below_are_meant(photos: Path) -> None:
    found = find_images(photos, None, LABELS)
    assert (len(found), found.labels) == (24, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,label\na.png,1\n", "a CSV with the columns file and label_index"),
        ("file,label_index\n00.png,4\n", r"an integer from 0 to 3 .*line 2"),
        ("file,label_index\n00.png,cat\n", "an integer from 0 to 3"),
        ("file,label_index\n00.png,-1\n", "an integer from 0 to 3"),
        ("file,label_index\n00.png\n", "an integer from 0 to 3"),
        (
            "file,label_index\nnone.png,1\n",
            r"none\.png of .*labels\.csv, line 2, column file, is none; got '1 missing'",
        ),
        ("file,label_index\n", "one or more"),
    ],
)
def test_labels_that_cannot_be_are_refused(photos: Path, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(InvalidParameter, match=message):
        find_images(photos, tmp_path / "labels.csv", LABELS)


def test_a_csv_that_is_not_there_is_named(photos: Path) -> None:
    with pytest.raises(InvalidParameter, match=r"labels must be a CSV that can be read.*nope\.csv"):
        find_images(photos, photos / "nope.csv", LABELS)


def test_folders_that_are_no_classes_are_refused(photos: Path) -> None:
    with pytest.raises(
        InvalidParameter, match=r"there are 4 folders, .* one for each of the model's 3 classes"
    ):
        find_images(photos / "classes", FOLDERS, LABELS[:3])


def test_images_beside_the_class_folders_have_no_class(photos: Path) -> None:
    with pytest.raises(InvalidParameter, match="labels must be a CSV"):
        find_images(photos, FOLDERS, ("classes",))


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_folder_without_images_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidParameter, match="images must be a folder"):
        find_images(tmp_path / name, None, LABELS)


def test_a_sample_is_drawn_by_its_seed_and_keeps_the_order(photos: Path) -> None:
    everything = find_images(photos, photos / "labels.csv", LABELS)
    first, again, other = (everything.sample(6, seed=seed).files for seed in (1, 1, 2))
    assert first == again != other
    assert list(first) == sorted(first)


def test_a_sample_of_more_than_there_is_is_all(photos: Path) -> None:
    everything = find_images(photos, None, LABELS)
    assert everything.sample(99, seed=0) is everything


def test_crops_come_in_batches_with_their_labels(photos: Path) -> None:
    found = list(crops(find_images(photos, photos / "labels.csv", LABELS), PREPROCESS, 5))
    assert [batch.pixels.shape for batch in found] == [(5, 96, 96, 3), (5, 96, 96, 3), (2, 96, 96, 3)]
    assert [batch.labels.tolist() for batch in found if batch.labels is not None][-1] == [2, 3]


def test_a_digest_tells_other_images_and_other_labels_apart(photos: Path) -> None:
    images = find_images(photos, photos / "labels.csv", LABELS)
    assert images.labels is not None
    shifted = ImageSet(images.files, (images.labels + 1) % 4)
    unlabelled = ImageSet(images.files, None)
    backwards = images.subset(np.arange(11, -1, -1))
    digests = [
        next(crops(s, PREPROCESS, 12)).digest for s in (images, images, shifted, unlabelled, backwards)
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(ImageUndecodable, match=r"bad\.png: "):
        next(crops(find_images(tmp_path, None, LABELS), PREPROCESS, 1))


def test_an_image_that_went_away_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageUndecodable, match=r"gone\.png: No such file"):
        next(crops(ImageSet((tmp_path / "gone.png",), None), PREPROCESS, 1))
