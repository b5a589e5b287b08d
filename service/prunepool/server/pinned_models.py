"""Models as they were when they were wanted, for every engine that starts later: whatever becomes of their files.

The parent keeps the files of each wanted model open. A folder of the server has its model.json, and links to those
open files. So all engines load the very same version, also a successor that starts after the model was replaced or
removed in the store, and a version changes only where the parent changes it. What is written into a file in place
changes it for all; its sha256 shows that.
"""

from __future__ import annotations

import itertools
import os
import shutil
import stat
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from prunepool.errors import ModelError
from prunepool.store import ModelStore, StoredModel, generation_of
from prunepool.store.manifest_file import FILE_NAME, read, render

#: Another process of the same user finds a file here as long as this one has it open, under whatever name.
_OPEN_FILES = Path(f"/proc/{os.getpid()}/fd") if Path("/proc/self/fd").is_dir() else None


class Pins(Protocol):
    """Keeps versions of models; see :class:`PinnedModels`."""

    def pin(self, reference: str) -> str:
        """A reference to a model as it is now.

        Raises:
            ModelNotFound: there is no such model.
            ManifestInvalid: its model.json is invalid.
            ModelError: it cannot be kept.
        """

    def keep(self, references: Collection[str]) -> None:
        """Let go of all versions but these."""


class NoPins:
    """For engines in the process that changes models: they open each version once."""

    def pin(self, reference: str) -> str:
        """The reference itself."""
        return reference

    def keep(self, references: Collection[str]) -> None:
        """Nothing is kept."""


@dataclass(frozen=True)
class _Pin:
    """A version of a model.

    Attributes:
        folder: with its model.json and the links.
        files: descriptors of its open files, by name.
        generation: what tells it from others of its name.
        source: the folder in the store.
    """

    folder: Path
    files: dict[str, int]
    generation: str
    source: Path

    def is_still(self, stored: StoredModel) -> bool:
        """Whether the store has this version still, in the same files."""
        if self.generation != generation_of(stored.manifest) or self.source != stored.folder:
            return False
        if not (self.folder / FILE_NAME).is_file():  # somebody cleans up behind our back
            return False
        return _identities(stored.folder) == {
            name: _identity(os.fstat(fd)) for name, fd in self.files.items()
        }


class PinnedModels:
    """Keeps versions of models for the children of this process.

    Args:
        folder: of the server; what is kept goes into a folder there.
        store: where models come from.
    """

    def __init__(self, folder: Path, store: ModelStore) -> None:
        self._folder = folder
        self._store = store
        self._pins: dict[str, _Pin] = {}
        self._numbers = itertools.count()

    def pin(self, reference: str) -> str:
        """A reference to a model as it is now, for engines; see :class:`Pins`."""
        stored = self._store.open(reference)
        for path, pin in self._pins.items():
            if pin.is_still(stored):
                return path
        folder = self._folder / str(next(self._numbers)) / stored.manifest.name
        files: dict[str, int] = {}
        try:
            folder.mkdir(parents=True)
            for name in _identities(stored.folder):
                files[name] = os.open(stored.folder / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                in_store, opened = stored.folder.resolve() / name, str(files[name])
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).symlink_to(in_store if _OPEN_FILES is None else _OPEN_FILES / opened)
            (folder / FILE_NAME).write_bytes(render(stored.manifest))
        except OSError as error:
            _let_go(folder, files)
            where = f"{stored.folder}: cannot be kept for engines in {folder}"
            raise ModelError(f"{where} ({error.strerror})") from error
        self._pins[str(folder)] = _Pin(folder, files, generation_of(stored.manifest), stored.folder)
        return str(folder)

    def keep(self, references: Collection[str]) -> None:
        """Let go of all versions but these."""
        for path in self._pins.keys() - set(references):
            pin = self._pins.pop(path)
            _let_go(pin.folder, pin.files)


def open_pinned(folder: Path, store: ModelStore, reference: str) -> StoredModel:
    """Open a model in an engine.

    Args:
        folder: of pinned models, which only the parent writes.
        store: for what is not pinned.
        reference: a name in the store, or a folder.

    Raises:
        ModelNotFound: there is no such model.
        ManifestInvalid: its model.json is invalid.
    """
    path = Path(reference)
    if not path.is_relative_to(folder):
        return store.open(reference)
    return StoredModel(read(path / FILE_NAME), path, linked=True)


def _identities(folder: Path) -> dict[str, tuple[int, int]]:
    """The regular files of a model but its model.json, by name; what tells each from others.

    A link to outside its folder is no file of a model.
    """
    found, inside = {}, folder.resolve()
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        with suppress(OSError):  # one that is just being removed
            status = path.stat()
            if stat.S_ISREG(status.st_mode) and name != FILE_NAME and inside in path.resolve().parents:
                found[name] = _identity(status)
    return found


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _let_go(folder: Path, files: dict[str, int]) -> None:
    shutil.rmtree(folder.parent, ignore_errors=True)
    for fd in files.values():
        os.close(fd)
