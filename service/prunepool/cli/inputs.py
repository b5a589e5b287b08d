"""Finds and reads the images that a command line names."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

STDIN = "-"
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})


def expand(names: Iterable[str]) -> Iterator[str]:
    """Yield files as named, and folders as the images in and below them, sorted by path.

    A folder without images is yielded itself, so that reading it fails.
    """
    for name in names:
        if name == STDIN or not Path(name).is_dir():
            yield name
            continue
        found = sorted(path for path in Path(name).rglob("*") if path.suffix.lower() in _SUFFIXES)
        yield from map(str, found or [Path(name)])


def read(name: str) -> bytes:
    """Read a file, or standard input.

    Raises:
        OSError: it cannot be read.
    """
    if name == STDIN:
        return sys.stdin.buffer.read()
    if Path(name).is_dir():
        raise IsADirectoryError(0, "the folder holds no images", name)
    return Path(name).read_bytes()
