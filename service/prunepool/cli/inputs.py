"""Finds and reads the images that a command line names."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from prunepool.cli.options import UsageError
from prunepool.files import read_regular

STDIN = "-"
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})


def expand(names: Iterable[str]) -> Iterator[str]:
    """Yield files as named, and folders as the images in and below them, sorted by path.

    A folder without images is yielded itself, so that reading it fails.

    Raises:
        UsageError: a name is empty, as an unset variable of the shell is; as a path it would be the working folder.
    """
    for name in names:
        if not name:
            raise UsageError("the name of a file or folder is empty; . is the working folder")
        if name == STDIN or not Path(name).is_dir():
            yield name
            continue
        found = sorted(path for path in Path(name).rglob("*") if path.suffix.lower() in _SUFFIXES)
        yield from map(str, found or [Path(name)])


def read(name: str) -> bytes:
    """Read a file, or standard input.

    Raises:
        OSError: it cannot be read, is no regular file, or is longer than any image that is decoded.
    """
    from prunepool.imaging import ImageLimits  # NumPy and Pillow, which most commands do without

    limit = ImageLimits().max_bytes
    if name == STDIN:
        data = sys.stdin.buffer.read(limit + 1)
        if len(data) > limit:
            raise OSError(errno.EFBIG, f"has more than {limit:,} bytes, the most that are read", name)
        return data
    if Path(name).is_dir():
        raise IsADirectoryError(0, "the folder holds no images", name)
    return read_regular(name, limit)
