"""The model store: finding, verifying, adding and removing models.

A store is a folder of models. It may have the models that are packaged with prunepool behind it: they are found and
read like the others, but never written, and a model of the same name in the folder takes precedence.

A model is prepared in a hidden folder and renamed to its place, so readers and other writers never see half of one.
Replacing a model is one step if the file system can exchange two folders, as Linux's own can. Otherwise, as on NFS,
it is two steps: a reader between them finds no model of that name, or the packaged one. If a process dies midway,
the next change deletes or restores what it left.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from prunepool.errors import ModelError, ModelNotFound
from prunepool.store import hidden, manifest_file, replacement, update
from prunepool.store.folders import check_name, exists, holds, make_readable, names_in, read_named, what_is_at
from prunepool.store.lock import locked
from prunepool.store.manifest import Manifest
from prunepool.store.manifest_file import FILE_NAME
from prunepool.store.model import StoredModel
from prunepool.store.weights_check import check_weights

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
        """Names of all models, sorted; a folder without a model.json is not a model.

        Raises:
            ModelError: one of the folders cannot be listed now.
        """
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
            ModelNotFound: neither exists; names the models that do.
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
        """Open a model, and compare its weights with their recorded sha256 and with what the manifest says of them.

        Raises:
            ModelNotFound: there is no such model.
            ManifestInvalid: its model.json is invalid.
            WeightsInvalid: its weights are missing or changed, or not those that the manifest describes: another
                number of classes than labels, of parameters, of patches.
        """
        model = self.open(name_or_folder)
        model.verify(advance)
        check_weights(model.manifest, model.shapes())
        return model

    def check_free(self, name: str) -> None:
        """Check that a name can be used; call it before long work, to fail early if the name is taken.

        Raises:
            InvalidParameter: the name is invalid.
            ModelError: a model of that name is in the store, or packaged.
        """
        if self._folder(name).exists():
            raise ModelError(
                f"{self.root} already has a model {name!r}; use --force to replace it, or --name to choose "
                "another"
            )
        if self._is_packaged(name):
            raise ModelError(
                f"a model {name!r} is packaged with prunepool; use --force to let yours take precedence, "
                "or --name to choose another"
            )

    @contextmanager
    def staging(self, model: StoredModel | None = None) -> Iterator[Path]:
        """A new folder on the store's file system to prepare a model in; deleted at the end unless it was added.

        Write to it within :meth:`writing`.

        Args:
            model: the model whose files are prepared, if it exists; it may lie elsewhere than in the store.

        Raises:
            ModelError: the store cannot be written.
        """
        home = self._home(model)
        hidden.clean(home)
        with ExitStack() as stack:
            with self.writing():
                folder = stack.enter_context(hidden.staging(home))
            yield folder

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn an OSError of a block that writes to the store into a ModelError that names the store.

        Raises:
            ModelError: the store cannot be written, or its disk is full.
        """
        try:
            yield
        except OSError as error:
            raise ModelError(f"cannot write to the store {self.root}: {error.strerror or error}") from error

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
        with self.writing(), locked(self.root):
            return self._place(manifest, staged, replace=replace)

    def _place(self, manifest: Manifest, staged: Path, *, replace: bool) -> StoredModel:
        """Move a prepared model to its place; within :meth:`writing`."""
        target = self._folder(manifest.name)
        move = replacement.replace if replace else replacement.move
        manifest_file.write(manifest, staged)
        make_readable(staged)
        for _ in range(_ATTEMPTS):
            if not replace:
                self.check_free(manifest.name)
            elif _is_foreign(target):
                raise ModelError(f"{target} is not a model (it has no {FILE_NAME}); it is left as it is")
            if move(staged, target):
                return StoredModel(manifest, target)
        raise ModelError(
            f"{target} was taken {_ATTEMPTS} times by other writers; nothing was added; try again"
        )

    def remove(self, name: str) -> None:
        """Remove a model from the store and delete its files; its manifest may be invalid.

        Raises:
            ModelNotFound: there is no such model in the store.
            ModelError: the model is packaged, or cannot be deleted.
        """
        self.check_removable(name)
        hidden.clean(self.root)
        trash = hidden.trash(self.root)
        try:
            with locked(self.root), suppress(FileNotFoundError):  # removed by another writer
                (self.root / name).rename(trash)
            hidden.delete(trash)
        except OSError as error:
            raise ModelError(f"cannot remove {name!r} from {self.root}: {error.strerror or error}") from error

    def check_removable(self, name: str) -> None:
        """Check that a model can be removed; call it before prompting, to fail before the user confirms.

        Raises:
            ModelNotFound: there is no such model in the store.
            ModelError: the model is packaged.
        """
        if holds(self.root, name):
            return
        if self._is_packaged(name):
            raise ModelError(
                f"{name!r} is packaged with prunepool, in {self.packaged}, and read-only; "
                f"only models in {self.root} can be removed"
            )
        raise self._not_found(name)

    def update_manifest(
        self,
        name_or_folder: str | Path,
        measured: Manifest,
        found: Mapping[str, object],
        *,
        depends_on: Collection[str] = (),
        staged: Path | None = None,
    ) -> StoredModel:
        """Write what was found out of a model into its manifest, atomically; its weights stay.

        To find it out may have taken long: the manifest is read again, and what others wrote into it stays too.

        A packaged model is not changed: a copy of it with this manifest goes into the store and takes precedence.

        Args:
            name_or_folder: the model.
            measured: its manifest when the work began.
            found: values of the manifest.
            depends_on: values of the manifest that the work depends on, beside the network and its input.
            staged: a folder from :meth:`staging` with files that belong to what was found out. A model of the
                store is replaced as a whole.

        Raises:
            ModelNotFound: there is no such model.
            ManifestInvalid: a value is invalid, or the name is not the model's.
            WeightsInvalid: with `staged`, the files are not those of the manifest.
            ModelError: the model has become another one since, its manifest cannot be written, or a packaged file
                cannot be read.
        """
        with ExitStack() as stack:
            home = self._home(self.open(name_or_folder))
            with self.writing():
                home.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(home))
            now = self.open(name_or_folder)
            manifest = update.updated(now, measured, found, depends_on)
            if now.packaged and staged is None:
                staged = stack.enter_context(self.staging())
            if staged is not None and home == self.root:
                with self.writing():
                    update.complete(now, manifest, staged)
                    StoredModel(manifest, staged).verify()
                    return self._place(manifest, staged, replace=True)
            try:
                update.move_in(now, manifest, staged)
            except OSError as error:
                raise ModelError(
                    f"cannot write {now.folder / FILE_NAME}: {error.strerror or error}"
                ) from error
            return StoredModel(manifest, now.folder)

    def work_file(self, model: StoredModel, name: str) -> Path:
        """The path of a working file for a model: in its folder, or in the store if the model is packaged.

        Raises:
            ModelError: the store cannot be written.
        """
        if not model.packaged:
            return model.folder / name
        with self.writing():
            self.root.mkdir(parents=True, exist_ok=True)
        return self.root / f".{model.manifest.name}-{name}"

    def _home(self, model: StoredModel | None) -> Path:
        """The folder that a model is changed in: the store, or that of a model elsewhere."""
        if model is None or model.packaged or model.folder.parent == self.root:
            return self.root
        return model.folder

    def _folder(self, name: str) -> Path:
        return self.root / check_name(name)

    def _is_packaged(self, name: str) -> bool:
        return self.packaged is not None and holds(self.packaged, name)

    def _not_found(self, name: str) -> ModelNotFound:
        where = str(self.root) if self.packaged is None else f"{self.root} or packaged with prunepool"
        if names := self.names():
            inventory = ("it has " if self.packaged is None else "there are: ") + ", ".join(names)
        else:
            inventory = "it is empty" if exists(self.root, Path.is_dir) else what_is_at(self.root)
        return ModelNotFound(f"no model {name!r} in {where}; {inventory}")


def _is_foreign(path: Path) -> bool:
    """Whether a path holds something that is not a model and not an empty folder."""
    if not path.exists() or exists(path / FILE_NAME):
        return False
    return not path.is_dir() or any(path.iterdir())
