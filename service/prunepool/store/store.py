"""The folder of models: finding, verifying, adding and removing them.

Every change is one rename within the store's file system: a reader, or a second writer, sees a model whole
or not at all.
"""

from __future__ import annotations

import errno
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prunepool.errors import InvalidParameter, ManifestInvalid, ModelError, ModelNotFound
from prunepool.store import manifest as manifests
from prunepool.store.manifest import FILE_NAME, NAME_PATTERN, Manifest
from prunepool.store.model import StoredModel

_ATTEMPTS = 20
_OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


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


class ModelStore:
    """A folder of models.

    Args:
        root: the folder; made when the first model is added.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def names(self) -> tuple[str, ...]:
        """Names of the models in the store, sorted; a folder without a model.json is none."""
        if not self.root.is_dir():
            return ()
        return tuple(
            sorted(
                folder.name
                for folder in self.root.iterdir()
                if re.fullmatch(NAME_PATTERN, folder.name) and (folder / FILE_NAME).is_file()
            )
        )

    def list(self) -> tuple[StoredModel, ...]:
        """Every model in the store, by name.

        Raises:
            ManifestInvalid: one of them cannot be used.
        """
        return tuple(self.open(name) for name in self.names())

    def open(self, name_or_folder: str | Path) -> StoredModel:
        """Find a model and read its manifest; the weights are not looked at.

        Args:
            name_or_folder: its name in the store, or the path of any folder with a model.json. A name in
                the store comes first.

        Raises:
            ModelNotFound: neither; names what there is.
            ManifestInvalid: its model.json does not say what it must.
        """
        name = str(name_or_folder)
        if re.fullmatch(NAME_PATTERN, name) and (self.root / name / FILE_NAME).is_file():
            path = self.root / name / FILE_NAME
            manifest = manifests.read(path)
            if manifest.name != name:
                raise ManifestInvalid(
                    f"{path}: name is {manifest.name!r}: in a store it must be that of its folder, {name!r}"
                )
            return StoredModel(manifest, self.root / name)
        folder = Path(name_or_folder)
        if (folder / FILE_NAME).is_file():
            return StoredModel(manifests.read(folder / FILE_NAME), folder)
        if folder.is_dir():
            raise ModelNotFound(f"{folder} is a folder without a {FILE_NAME}, so it is no model")
        raise ModelNotFound(f"no model {name!r} in {self.root}; {self._inventory()}")

    def verify(self, name_or_folder: str | Path, advance: Callable[[int], None] | None = None) -> StoredModel:
        """Open a model and compare its weights with their recorded sha256.

        Raises:
            ModelNotFound: no such model.
            ManifestInvalid: its model.json does not say what it must.
            WeightsInvalid: its weights are missing or changed.
        """
        model = self.open(name_or_folder)
        model.verify(advance)
        return model

    def check_free(self, name: str) -> None:
        """Find out before long work that a name is taken.

        Raises:
            InvalidParameter: it is no name.
            ModelError: a model of that name is in the store.
        """
        if self._folder(name).exists():
            raise ModelError(
                f"{self.root} already has a model {name!r}; --force replaces it, --name takes another"
            )

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A new folder on the store's file system to prepare a model in.

        What is still there at the end is removed, so that a failure leaves nothing.

        Raises:
            ModelError: the store cannot be written, or its disk is full.
        """
        folder = self.root / f".staging-{secrets.token_hex(8)}"
        try:
            folder.mkdir(parents=True)
            yield folder
        except OSError as error:
            raise ModelError(f"cannot write to the store {self.root}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def add(self, manifest: Manifest, staged: Path, *, replace: bool = False) -> StoredModel:
        """Take a prepared model into the store, after comparing its weights with the manifest.

        Args:
            manifest: of the model.
            staged: a folder from :meth:`staging` with the weights in it; it becomes the model's.
            replace: whether a model of that name gives way; else it is an error.

        Raises:
            WeightsInvalid: the weights in `staged` are not those of the manifest.
            ModelError: a model of that name is there already, or the store cannot be written.
        """
        StoredModel(manifest, staged).verify()
        target = self._folder(manifest.name)
        try:
            manifests.write(manifest, staged)
            for _ in range(_ATTEMPTS):
                if not replace:
                    self.check_free(manifest.name)
                elif target.is_dir() and not (target / FILE_NAME).is_file() and any(target.iterdir()):
                    raise ModelError(f"{target} is not a model (it has no {FILE_NAME}); it is left as it is")
                if self._move_in(staged, target, replace=replace):
                    return StoredModel(manifest, target)
        except OSError as error:
            raise ModelError(f"cannot write to the store {self.root}: {error.strerror or error}") from error
        raise ModelError(f"{target} was taken again {_ATTEMPTS} times by other writers; nothing was added")

    def remove(self, name: str) -> None:
        """Take a model out of the store and delete its files; its manifest need not be valid.

        Raises:
            ModelNotFound: no such model in the store.
            ModelError: it cannot be deleted.
        """
        if name not in self.names():
            raise ModelNotFound(f"no model {name!r} in {self.root}; {self._inventory()}")
        hidden = self._hidden()
        try:
            _set_aside(self.root / name, hidden)
            _delete(hidden)
        except OSError as error:
            raise ModelError(f"cannot remove {name!r} from {self.root}: {error.strerror or error}") from error

    def update_manifest(self, name_or_folder: str | Path, manifest: Manifest) -> StoredModel:
        """Replace a model's manifest in one step; its weights stay.

        Raises:
            ModelNotFound: no such model.
            ManifestInvalid: a value it may not have, or another name than the model's.
            ModelError: it cannot be written.
        """
        model = self.open(name_or_folder)
        if manifest.name != model.manifest.name:
            raise ManifestInvalid(
                f"{model.folder / FILE_NAME}: name is {manifest.name!r}: it must stay {model.manifest.name!r}"
            )
        try:
            manifests.write(manifest, model.folder)
        except OSError as error:
            raise ModelError(f"cannot write {model.folder / FILE_NAME}: {error.strerror or error}") from error
        return StoredModel(manifest, model.folder)

    def _folder(self, name: str) -> Path:
        return self.root / check_name(name)

    def _move_in(self, staged: Path, target: Path, *, replace: bool) -> bool:
        """Put a prepared folder in its place; what was there comes back if that fails.

        Returns:
            False where another writer took the place meanwhile.
        """
        old = self._hidden()
        if replace:
            _set_aside(target, old)
        try:
            staged.rename(target)
        except OSError as error:
            with suppress(OSError):
                old.rename(target)
            if error.errno not in _OCCUPIED:
                raise
            return False
        finally:
            _delete(old)
        return True

    def _hidden(self) -> Path:
        """A path in the store that no name can be."""
        return self.root / f".trash-{secrets.token_hex(8)}"

    def _inventory(self) -> str:
        names = self.names()
        if names:
            return "it has " + ", ".join(names)
        return "it is empty" if self.root.is_dir() else "there is no such folder"


def _set_aside(folder: Path, hidden: Path) -> None:
    """Out of sight in one rename; gone already is fine."""
    with suppress(FileNotFoundError):
        folder.rename(hidden)


def _delete(path: Path) -> None:
    """Delete a folder with all in it, or a link but not what it points at; gone already is fine."""
    with suppress(FileNotFoundError):
        if path.is_symlink():
            path.unlink()
        else:
            shutil.rmtree(path)
