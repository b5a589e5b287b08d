"""Finds and reads the images that a command line names."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from prunepool.cli.options import UsageError
from prunepool.files import read_regular
from prunepool.imaging.image_files import find_files

STDIN = "-"


def expand(names: Iterable[str], notices: list[str]) -> Iterator[str]:
    """Yield files as named, and folders as the images in and below them, sorted by path.

    A folder without images is yielded itself, so that reading it fails.

    Args:
        names: as given.
        notices: gets a line for each folder that holds something else.

    Raises:
        UsageError: a name is empty, as an unset variable of the shell is; as a path it would be the working folder.
    """
    for name in names:
        if not name:
            raise UsageError("the name of a file or folder is empty; . is the working folder")
        if name == STDIN or not Path(name).is_dir():
            yield name
            continue
        found = find_files(Path(name))
        if found.skipped:
            notices.append(f"{name}: {found.notice}")
        yield from map(str, found.files or [Path(name)])


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
