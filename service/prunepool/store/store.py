"""The model store: finding, verifying, adding and removing models.

A store is a folder of models. It may have the models that are packaged with prunepool behind it: they are found and
read like the others, but never written, and a model of the same name in the folder hides them.

Every change is one rename within the store's file system: readers and other writers see a model either complete or
not at all.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from prunepool.errors import ManifestInvalid, ModelError, ModelNotFound
from prunepool.store import manifest_file
from prunepool.store.folders import (
    check_name,
    delete,
    holds,
    is_there,
    move_in,
    names_in,
    read_named,
    set_aside,
)
from prunepool.store.manifest import Manifest
from prunepool.store.manifest_file import FILE_NAME
from prunepool.store.model import StoredModel

_ATTEMPTS = 20


class ModelStore:
    """A folder of models, and the packaged ones behind it.

    Args:
        root: the folder; made when the first model is added.
        packaged: the folder of packaged models, which is only read; None for none.
    """

    def __init__(self, root: Path | str, packaged: Path | None = None) -> None:
        self.root = Path(root)
        self.packaged = packaged

    def names(self) -> tuple[str, ...]:
        """Names of all models, sorted; a folder without a model.json is none."""
        packaged = () if self.packaged is None else names_in(self.packaged)
        return tuple(sorted({*names_in(self.root), *packaged}))

    def list(self) -> tuple[StoredModel, ...]:
        """Every model in the store, by name.

        Raises:
            ManifestInvalid: the manifest of one of them is invalid.
        """
        return tuple(self.open(name) for name in self.names())

    def open(self, name_or_folder: str | Path) -> StoredModel:
        """Find a model and read its manifest; the weights are not read.

        Args:
            name_or_folder: its name, or the path of any folder with a model.json. A name in the store comes
                first, then one of a packaged model.

        Raises:
            ModelNotFound: there is neither; names the models that there are.
            ManifestInvalid: its model.json is invalid.
        """
        name = str(name_or_folder)
        for root in (self.root, self.packaged):
            if root is not None and holds(root, name):
                return StoredModel(read_named(root / name), root / name, packaged=root == self.packaged)
        folder = Path(name_or_folder)
        if (folder / FILE_NAME).is_file():
            return StoredModel(manifest_file.read(folder / FILE_NAME), folder)
        if folder.is_dir():
            raise ModelNotFound(f"{folder} is a folder without a {FILE_NAME}, so it is no model")
        raise self._not_found(name)

    def verify(self, name_or_folder: str | Path, advance: Callable[[int], None] | None = None) -> StoredModel:
        """Open a model and compare its weights with their recorded sha256.

        Raises:
            ModelNotFound: there is no such model.
            ManifestInvalid: its model.json is invalid.
            WeightsInvalid: its weights are missing or changed.
        """
        model = self.open(name_or_folder)
        model.verify(advance)
        return model

    def check_free(self, name: str) -> None:
        """Check that a name can be used; meant to be called before long work.

        Raises:
            InvalidParameter: the name is invalid.
            ModelError: a model of that name is in the store, or packaged.
        """
        if self._folder(name).exists():
            raise ModelError(
                f"{self.root} already has a model {name!r}; --force replaces it, --name takes another"
            )
        if self._is_packaged(name):
            raise ModelError(
                f"a model {name!r} is packaged with prunepool; --force hides it behind yours, "
                f"--name takes another"
            )

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A new folder on the store's file system to prepare a model in; removed at the end if it is still there.

        Raises:
            ModelError: the store cannot be written, or its disk is full.
        """
        folder = self.root / f".staging-{secrets.token_hex(8)}"
        try:
            with self._writing():
                folder.mkdir(parents=True)
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def add(self, manifest: Manifest, staged: Path, *, replace: bool = False) -> StoredModel:
        """Add a prepared model to the store, after comparing its weights with the manifest.

        Args:
            manifest: of the model.
            staged: a folder from :meth:`staging` that holds the weights; it becomes the model's folder.
            replace: whether to replace a model of that name.

        Raises:
            WeightsInvalid: the weights in `staged` are not those of the manifest.
            ModelError: the name is taken, or the store cannot be written.
        """
        StoredModel(manifest, staged).verify()
        target = self._folder(manifest.name)
        with self._writing():
            manifest_file.write(manifest, staged)
            for _ in range(_ATTEMPTS):
                if not replace:
                    self.check_free(manifest.name)
                elif target.is_dir() and not (target / FILE_NAME).is_file() and any(target.iterdir()):
                    raise ModelError(f"{target} is not a model (it has no {FILE_NAME}); it is left as it is")
                if move_in(staged, target, self._hidden(), replace=replace):
                    return StoredModel(manifest, target)
        raise ModelError(f"{target} was taken again {_ATTEMPTS} times by other writers; nothing was added")

    def remove(self, name: str) -> None:
        """Remove a model from the store and delete its files; its manifest may be invalid.

        Raises:
            ModelNotFound: there is no such model in the store.
            ModelError: the model is packaged, or cannot be deleted.
        """
        self.check_removable(name)
        hidden = self._hidden()
        try:
            set_aside(self.root / name, hidden)
            delete(hidden)
        except OSError as error:
            raise ModelError(f"cannot remove {name!r} from {self.root}: {error.strerror or error}") from error

    def check_removable(self, name: str) -> None:
        """Check that a model can be removed; meant to be called before the user is asked to confirm.

        Raises:
            ModelNotFound: there is no such model in the store.
            ModelError: the model is packaged.
        """
        if holds(self.root, name):
            return
        if self._is_packaged(name):
            raise ModelError(
                f"{name!r} is packaged with prunepool, in {self.packaged}, and read-only; "
                f"only what is in {self.root} can be removed"
            )
        raise self._not_found(name)

    def update_manifest(self, name_or_folder: str | Path, manifest: Manifest) -> StoredModel:
        """Replace a model's manifest atomically; its weights stay.

        A packaged model is not changed: a copy of it with this manifest goes into the store and hides it.

        Raises:
            ModelNotFound: there is no such model.
            ManifestInvalid: a value is invalid, or the name is not the model's.
            ModelError: the manifest cannot be written.
        """
        model = self.open(name_or_folder)
        if manifest.name != model.manifest.name:
            raise ManifestInvalid(
                f"{model.folder / FILE_NAME}: name is {manifest.name!r}: it must stay {model.manifest.name!r}"
            )
        if model.packaged:
            with self.staging() as staged:
                for file in model.folder.iterdir():
                    shutil.copyfile(file, staged / file.name)  # without its mode: the copy can be written
                return self.add(manifest, staged, replace=True)
        try:
            manifest_file.write(manifest, model.folder)
        except OSError as error:
            raise ModelError(f"cannot write {model.folder / FILE_NAME}: {error.strerror or error}") from error
        return StoredModel(manifest, model.folder)

    def work_file(self, model: StoredModel, name: str) -> Path:
        """The path of a working file for a model: in its folder, or in the store if the model is packaged.

        Raises:
            ModelError: the store cannot be written.
        """
        if not model.packaged:
            return model.folder / name
        with self._writing():
            self.root.mkdir(parents=True, exist_ok=True)
        return self.root / f".{model.manifest.name}-{name}"

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn an OSError into a ModelError that names the store."""
        try:
            yield
        except OSError as error:
            raise ModelError(f"cannot write to the store {self.root}: {error.strerror or error}") from error

    def _folder(self, name: str) -> Path:
        return self.root / check_name(name)

    def _hidden(self) -> Path:
        """A path in the store that no valid name can have."""
        return self.root / f".trash-{secrets.token_hex(8)}"

    def _is_packaged(self, name: str) -> bool:
        return self.packaged is not None and holds(self.packaged, name)

    def _not_found(self, name: str) -> ModelNotFound:
        where = str(self.root) if self.packaged is None else f"{self.root} or packaged with prunepool"
        if names := self.names():
            inventory = ("it has " if self.packaged is None else "there are: ") + ", ".join(names)
        else:
            inventory = "it is empty" if is_there(self.root, Path.is_dir) else "there is no such folder"
        return ModelNotFound(f"no model {name!r} in {where}; {inventory}")
