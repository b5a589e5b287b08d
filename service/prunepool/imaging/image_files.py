"""Finds the image files of a folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: Suffixes of the formats that :func:`prunepool.imaging.decode` reads, in lower case.
SUFFIXES = frozenset(
    {".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp"}
)


@dataclass(frozen=True, slots=True)
class FoundFiles:
    """The image files of a folder.

    Attributes:
        files: their paths, sorted.
        skipped: how many entries were passed over, by the reason.
    """

    files: tuple[Path, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def notice(self) -> str:
        """What was passed over, in words; empty if nothing was."""
        if not self.skipped:
            return ""
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.skipped.items()))
        return f"skipped {sum(self.skipped.values())}: {reasons}"


#: Where no folder was searched.
NOTHING = FoundFiles(())


def find_files(folder: Path) -> FoundFiles:
    """Find the image files in and below a folder, by their suffix.

    Passed over are hidden files and folders (also the `._` twins that macOS writes, and `.ipynb_checkpoints`),
    other suffixes, folders that are links or cannot be read, and what is no regular file: reading a pipe would
    wait for ever, and a device never ends.
    """
    files: list[Path] = []
    skipped: Counter[str] = Counter()

    def unreadable(_: OSError) -> None:
        skipped["folders that cannot be read"] += 1

    for here, folders, names in os.walk(folder, onerror=unreadable):
        root = Path(here)
        kept = [name for name in folders if not name.startswith(".")]
        skipped["hidden"] += len(folders) - len(kept)
        folders[:] = kept
        for name in kept:
            skipped["links to folders"] += (root / name).is_symlink()
        for name in names:
            reason = _reason(root / name)
            if reason is None:
                files.append(root / name)
            else:
                skipped[reason] += 1
    return FoundFiles(tuple(sorted(files)), {reason: count for reason, count in skipped.items() if count})


def _reason(path: Path) -> str | None:
    """Why a file is passed over; None for an image file."""
    if path.name.startswith("."):
        return "hidden"
    if path.suffix.lower() not in SUFFIXES:
        return "of other kinds"
    return None if path.is_file() else "no regular files"
