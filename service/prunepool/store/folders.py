"""One folder of models: what it holds, and copying files into it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from prunepool.errors import InvalidParameter, ManifestInvalid, ModelError
from prunepool.model_names import NAME_PATTERN, reserved_suffix
from prunepool.store import manifest_file
from prunepool.store.manifest import Manifest
from prunepool.store.manifest_file import FILE_NAME

_CHUNK_BYTES = 1 << 20


def check_name(name: str) -> str:
    """Return a model's name if it is valid as the name of a folder in the store.

    Raises:
        InvalidParameter: it is not valid.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise InvalidParameter(
            "name",
            name,
            "1 to 100 letters, digits, dots, dashes or underscores, a letter or digit first",
        )
    if (suffix := reserved_suffix(name)) is not None:
        limit = f"without {suffix} at its end, under which /v2 serves the encoded view of another model"
        raise InvalidParameter("name", name, limit)
    return name


def holds(root: Path, name: str) -> bool:
    """Whether a folder holds a model of that name, valid or not."""
    return re.fullmatch(NAME_PATTERN, name) is not None and exists(root / name / FILE_NAME)


def names_in(root: Path) -> tuple[str, ...]:
    """Names of the models in a folder, unordered; none if the folder does not exist.

    Raises:
        ModelError: the folder cannot be listed now.
    """
    if not exists(root, Path.is_dir):
        return ()
    try:
        return tuple(folder.name for folder in root.iterdir() if holds(root, folder.name))
    except OSError as error:  # no file left to open, no permission, a network that is gone
        raise ModelError(f"{root}: the models there cannot be listed ({error.strerror or error})") from error


def exists(path: Path, kind: Callable[[Path], bool] = Path.is_file) -> bool:
    """Whether a path exists and is of a kind; without permission it counts as absent, as in Python 3.14."""
    try:
        return kind(path)
    except PermissionError:  # the home folder of a service's user often belongs to another user
        return False


def what_is_at(root: Path) -> str:
    """Say in a clause why a path cannot be a store: nothing is there, no folder is, or it cannot be read."""
    try:
        root.stat()
    except FileNotFoundError:
        return "the folder does not exist"
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    return "it is not a folder"


def read_named(folder: Path) -> Manifest:
    """The manifest of a model in a store, where a model has the name of its folder.

    Raises:
        ManifestInvalid: it is invalid, or its name is not that of the folder.
    """
    path = folder / FILE_NAME
    manifest = manifest_file.read(path)
    if manifest.name != folder.name:
        raise ManifestInvalid(
            f"{path}: name is {manifest.name!r}: in a store it must be that of its folder, {folder.name!r}"
        )
    return manifest


def copy_folder(source: Path, target: Path, leave_out: Collection[str] = ()) -> None:
    """Copy the files of a folder, and of its subfolders, into an existing one; see :func:`copy_file`.

    Args:
        source: the folder.
        target: the existing one.
        leave_out: names in the folder that are not copied.
    """
    with _reading(source):
        paths = tuple(source.iterdir())
    for path in paths:
        if path.name in leave_out:
            continue
        if path.is_dir():
            (target / path.name).mkdir()
            copy_folder(path, target / path.name)
        else:
            copy_file(path, target / path.name)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's bytes, not its mode: the copy of a read-only file can be written.

    Raises:
        ModelError: the source cannot be read.
        OSError: the target cannot be written.
    """
    with _reading(source):
        file = source.open("rb")
    with file, target.open("wb") as copy:
        while True:
            with _reading(source):
                chunk = file.read(_CHUNK_BYTES)
            if not chunk:
                return
            copy.write(chunk)


def make_readable(folder: Path) -> None:
    """Give the files in a folder the mode that new files have: some libraries make theirs for the owner alone.

    A service in a container has another user than whoever added the model.
    """
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(0o666 & ~_umask())


def _umask() -> int:
    """The process's mask of modes, which can otherwise only be read by setting it for all threads."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0o022
    return next((int(line.split()[1], 8) for line in lines if line.startswith("Umask:")), 0o022)


@contextmanager
def _reading(source: Path) -> Iterator[None]:
    """Turn an OSError into a ModelError that names what cannot be read."""
    try:
        yield
    except OSError as error:
        raise ModelError(f"{source}: cannot be read ({error.strerror or error})") from error
