"""What one folder of models holds, and how a model's folder leaves it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from prunepool.errors import InvalidParameter, ManifestInvalid
from prunepool.store import manifest as manifests
from prunepool.store.manifest import FILE_NAME, NAME_PATTERN, Manifest


def check_name(name: str) -> str:
    """Let a model's name pass.

    Raises:
        InvalidParameter: it could not be a folder of the store.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise InvalidParameter(
            "name",
            name,
            "1 to 100 letters, digits, dots, dashes or underscores, a letter or digit first",
        )
    return name


def holds(root: Path, name: str) -> bool:
    """Whether a folder holds a model of that name, valid or not."""
    return re.fullmatch(NAME_PATTERN, name) is not None and is_there(root / name / FILE_NAME)


def names_in(root: Path) -> tuple[str, ...]:
    """Names of the models in a folder, in no order; none where there is no such folder."""
    if not is_there(root, Path.is_dir):
        return ()
    return tuple(folder.name for folder in root.iterdir() if holds(root, folder.name))


def is_there(path: Path, kind: Callable[[Path], bool] = Path.is_file) -> bool:
    """Whether a path is of that kind; one that may not be looked at is not there, as in Python 3.14."""
    try:
        return kind(path)
    except PermissionError:  # the home of a service's user may well be another's
        return False


def read_named(folder: Path) -> Manifest:
    """The manifest of a model in a store, where folder and model have one name.

    Raises:
        ManifestInvalid: it does not say what it must, or another name than the folder's.
    """
    path = folder / FILE_NAME
    manifest = manifests.read(path)
    if manifest.name != folder.name:
        raise ManifestInvalid(
            f"{path}: name is {manifest.name!r}: in a store it must be that of its folder, {folder.name!r}"
        )
    return manifest


def set_aside(folder: Path, hidden: Path) -> None:
    """Out of sight in one rename; gone already is fine."""
    with suppress(FileNotFoundError):
        folder.rename(hidden)


def delete(path: Path) -> None:
    """Delete a folder with all in it, or a link but not what it points at; gone already is fine."""
    with suppress(FileNotFoundError):
        if path.is_symlink():
            path.unlink()
        else:
            shutil.rmtree(path)
