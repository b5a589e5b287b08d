"""Sets of images on disk, with or without labels, and their crops in batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prunepool.errors import ImageUndecodable, InvalidParameter, PrunepoolError
from prunepool.files import read_regular
from prunepool.imaging import ImageLimits, Preprocess, decode
from prunepool.imaging.image_files import NOTHING, SUFFIXES, FoundFiles, find_files
from prunepool.lab.label_csv import FILE, read_label_csv

#: Instead of a label file: each class has a folder.
FOLDERS = "folders"


@dataclass(frozen=True, slots=True, eq=False)
class ImageSet:
    """Images on disk.

    Attributes:
        files: their paths.
        labels: class index of each image, int64 [n]; None if unknown.
        found: what the folder holds besides; empty where a CSV names the images.
    """

    files: tuple[Path, ...]
    labels: NDArray[np.int64] | None
    found: FoundFiles = NOTHING

    def __len__(self) -> int:
        return len(self.files)

    def subset(self, indices: NDArray[np.int64]) -> ImageSet:
        """The images at some indices."""
        labels = None if self.labels is None else self.labels[indices]
        return ImageSet(tuple(self.files[i] for i in indices), labels, self.found)

    def sample(self, count: int, *, seed: int) -> ImageSet:
        """A random sample of this size, or all images if there are no more, in their order."""
        if count >= len(self):
            return self
        return self.subset(np.sort(np.random.default_rng(seed).permutation(len(self))[:count]))


def find_images(folder: Path, labels: Path | str | None, classes: Sequence[str]) -> ImageSet:
    """Find the images of a folder and their classes.

    Args:
        folder: searched recursively.
        labels: a CSV with the columns `file` (relative to the folder) and `label_index`: then the images are
            those that it lists. `folders`: each class has a folder, named as its label, or else as many
            folders as there are classes, in alphabetical order. None: no labels.
        classes: the model's labels.

    Raises:
        InvalidParameter: there are no images, the labels are unreadable or not the model's, or it has no classes.
    """
    if not classes:
        raise InvalidParameter(
            "model", "one without classes", "one with labels: its answers are compared by class"
        )
    if not folder.is_dir():
        raise InvalidParameter("images", str(folder), "a folder of images")
    if labels is not None and str(labels) != FOLDERS:
        return _from_csv(folder, Path(labels), len(classes))
    found = find_files(folder)
    files = found.files
    if not files:
        raise InvalidParameter("images", str(folder), f"a folder with {', '.join(sorted(SUFFIXES))} files")
    if labels is None:
        return ImageSet(files, None, found)
    names = sorted({path.relative_to(folder).parts[0] for path in files if path.parent != folder})
    index = _classes_of(names, classes)
    if any(path.parent == folder for path in files):
        raise InvalidParameter("labels", FOLDERS, f"a CSV where images lie in {folder} itself")
    labelled = [index[path.relative_to(folder).parts[0]] for path in files]
    return ImageSet(files, np.array(labelled, np.int64), found)


def _classes_of(folders: Sequence[str], classes: Sequence[str]) -> dict[str, int]:
    """The class of each folder."""
    if set(folders) <= set(classes):
        return {name: list(classes).index(name) for name in folders}
    if len(folders) == len(classes):
        return {name: i for i, name in enumerate(folders)}
    limit = f"a CSV, for there are {len(folders)} folders, neither named as labels nor one for each of the "
    raise InvalidParameter("labels", FOLDERS, f"{limit}model's {len(classes)} classes")


def _from_csv(folder: Path, path: Path, classes: int) -> ImageSet:
    listed = read_label_csv(path, classes)
    if not listed:
        raise InvalidParameter("images", "none", f"the files that {path} lists, one or more")
    missing = [row for row in listed if not (folder / row.name).is_file()]
    if missing:
        first = f"{folder / missing[0].name} of {path}, line {missing[0].line}, column {FILE}"
        named = f"{len(missing)} missing"
        raise InvalidParameter("images", named, f"the files that the CSV lists, and {first}, is none")
    return ImageSet(
        tuple(folder / row.name for row in listed), np.array([row.label for row in listed], np.int64)
    )


@dataclass(frozen=True, slots=True, eq=False)
class Crops:
    """A batch of images as the model's input.

    Attributes:
        pixels: uint8 [n, size, size, 3].
        labels: int64 [n], or None.
        digest: sha256 of both.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    digest: str


def crops(
    images: ImageSet, preprocess: Preprocess, batch: int, broken: list[str] | None = None
) -> Iterator[Crops]:
    """Decode a set of images in batches.

    Args:
        images: the images.
        preprocess: the input of the model.
        batch: images in each batch.
        broken: gets why an image cannot be decoded, which is then left out; without it such an image is an error.

    Raises:
        ImageUndecodable: an image is missing or cannot be decoded, or none can; names it.
    """
    limits = ImageLimits()
    some = False
    for first in range(0, len(images), batch):
        part = images.subset(np.arange(first, min(first + batch, len(images))))
        decoded: dict[int, NDArray[np.uint8]] = {}
        for place, file in enumerate(part.files):
            try:
                decoded[place] = _decoded(file, preprocess, limits)
            except ImageUndecodable as error:
                if broken is None:
                    raise
                broken.append(error.detail)
        if not decoded:
            continue
        some = True
        pixels = np.stack(list(decoded.values()))
        labels = None if part.labels is None else part.labels[list(decoded)]
        digest = hashlib.sha256(pixels.tobytes())
        digest.update(b"" if labels is None else labels.tobytes())
        yield Crops(pixels, labels, digest.hexdigest())
    if broken and len(images) and not some:
        raise ImageUndecodable(f"none of {len(images)} images can be decoded; {broken[-1]}")


def _decoded(file: Path, preprocess: Preprocess, limits: ImageLimits) -> NDArray[np.uint8]:
    try:
        return decode(read_regular(file, limits.max_bytes), preprocess, limits)
    except PrunepoolError as error:
        raise ImageUndecodable(f"{file}: {error.detail}") from error
    except OSError as error:
        raise ImageUndecodable(f"{file}: {error.strerror or error}") from error
