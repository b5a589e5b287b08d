"""One folder of models: what it holds, and moving a model's folder into and out of it."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from prunepool.errors import InvalidParameter, ManifestInvalid
from prunepool.store import manifest_file
from prunepool.store.manifest import NAME_PATTERN, Manifest
from prunepool.store.manifest_file import FILE_NAME

_OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


def check_name(name: str) -> str:
    """Return a model's name if it can be a folder of the store.

    Raises:
        InvalidParameter: it cannot.
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
    """Names of the models in a folder, in no order; none if there is no such folder."""
    if not is_there(root, Path.is_dir):
        return ()
    return tuple(folder.name for folder in root.iterdir() if holds(root, folder.name))


def is_there(path: Path, kind: Callable[[Path], bool] = Path.is_file) -> bool:
    """Whether a path exists and is of that kind; one without permission counts as absent, as in Python 3.14."""
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
    manifest = manifest_file.read(path)
    if manifest.name != folder.name:
        raise ManifestInvalid(
            f"{path}: name is {manifest.name!r}: in a store it must be that of its folder, {folder.name!r}"
        )
    return manifest


def move_in(staged: Path, target: Path, hidden: Path, *, replace: bool) -> bool:
    """Move a prepared folder to its place; if that fails, what was there before is restored.

    Args:
        staged: the prepared folder.
        target: its place, on the same file system.
        hidden: where a folder that is replaced goes until it is deleted.
        replace: whether to replace what is there.

    Returns:
        False if another writer took the place meanwhile.

    Raises:
        OSError: it cannot be moved for another reason.
    """
    if replace:
        set_aside(target, hidden)
    try:
        staged.rename(target)
    except OSError as error:
        with suppress(OSError):
            hidden.rename(target)
        if error.errno not in _OCCUPIED:
            raise
        return False
    finally:
        delete(hidden)
    return True


def set_aside(folder: Path, hidden: Path) -> None:
    """Hide a folder by one rename; it may be gone already."""
    with suppress(FileNotFoundError):
        folder.rename(hidden)


def delete(path: Path) -> None:
    """Delete a folder, or a link but not its target; it may be gone already."""
    with suppress(FileNotFoundError):
        if path.is_symlink():
            path.unlink()
        else:
            shutil.rmtree(path)
