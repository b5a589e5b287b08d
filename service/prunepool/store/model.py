"""One model of the store: its manifest, its folder, and the checksum of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from prunepool.errors import WeightsInvalid
from prunepool.store.compiled import CompiledFile
from prunepool.store.manifest import Manifest
from prunepool.store.manifest_file import FILE_NAME

_CHUNK = 1 << 20


def sha256_of(path: Path, advance: Callable[[int], None] | None = None) -> str:
    """The sha256 of a file, hexadecimal.

    Args:
        path: the file.
        advance: called with the number of bytes read since the last call.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            if advance is not None:
                advance(len(chunk))
    return digest.hexdigest()


def tensor_shapes(path: Path) -> Mapping[str, tuple[int, ...]]:
    """The shape of every tensor of a safetensors file, read from its header.

    Raises:
        WeightsInvalid: the file is not safetensors.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            keys: Iterable[str] = file.keys()
            return {key: tuple(file.get_slice(key).get_shape()) for key in keys}
    except (SafetensorError, OSError) as error:
        raise WeightsInvalid(f"{path}: is not a safetensors file ({error})") from error


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model with a valid manifest; its weights have not been checked.

    Attributes:
        manifest: read from its model.json.
        folder: the model's folder.
        packaged: whether it is part of the installed package, and so read-only.
        linked: whether its files are links that a server of this user has made to the files of a model.
    """

    manifest: Manifest
    folder: Path
    packaged: bool = False
    linked: bool = False

    @property
    def weights_path(self) -> Path:
        """The file of weights.

        Raises:
            WeightsInvalid: the file is missing, or is a link to outside the model's folder.
        """
        return self._path(self.manifest.weights.file)

    def _path(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise WeightsInvalid(f"{path}: the weights of {self.manifest.name} are not there")
        if not self.linked and self.folder.resolve() not in path.resolve().parents:
            raise WeightsInvalid(f"{path}: links to {path.resolve()}, outside the model's folder")
        return path

    def verify(self, advance: Callable[[int], None] | None = None) -> None:
        """Compare the weights, and the files of a compiled model, with their recorded sha256.

        Args:
            advance: called with the number of bytes read since the last call.

        Raises:
            WeightsInvalid: a file is missing, unreadable or changed; names both hashes.
        """
        weights = self.manifest.weights
        compiled = self.manifest.compiled
        files = [(weights.file, weights.sha256)]
        files += [] if compiled is None else [(one.file, one.sha256) for one in compiled.files()]
        for name, recorded in files:
            path = self._path(name)
            try:
                found = sha256_of(path, advance)
            except OSError as error:
                raise WeightsInvalid(f"{path}: cannot be read ({error.strerror})") from error
            _check_sha256(path, found, recorded)

    def read_compiled(self, file: CompiledFile) -> bytes:
        """A file of the compiled model, as it was when it was compared with its sha256.

        It is read and not mapped: a file that changes later changes nothing of what was read.

        Raises:
            WeightsInvalid: it is missing, unreadable or changed; names both hashes.
        """
        path = self._path(file.file)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise WeightsInvalid(f"{path}: cannot be read ({error.strerror})") from error
        _check_sha256(path, hashlib.sha256(content).hexdigest(), file.sha256)
        return content

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every tensor, read from the file's header.

        Raises:
            WeightsInvalid: the file is missing or is not safetensors.
        """
        return tensor_shapes(self.weights_path)


def _check_sha256(path: Path, found: str, recorded: str) -> None:
    if found != recorded:
        raise WeightsInvalid(f"{path}: has sha256 {found}, but {FILE_NAME} records {recorded}")
