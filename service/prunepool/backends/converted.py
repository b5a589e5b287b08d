"""Compiled models that were found or made beside the server: in a model's folder, or in one for conversions.

It needs no torch: a conversion runs in a process of its own, :mod:`prunepool.backends.openvino_convert`.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

import prunepool
from prunepool.errors import WeightsInvalid
from prunepool.store import Compiled, CompiledFile, Manifest, StoredModel, hidden

#: Describes what a folder of conversions holds; written last.
COMPILED = "compiled.json"

#: The code that a conversion is made by; the answers of another release may differ.
_SOURCES = ("backends/dynamic_pass.py", "backends/openvino_*.py", "models/*.py", "reduction/*.py")

log = logging.getLogger(__name__)


class CompiledModel(NamedTuple):
    """A compiled model, wherever its files are.

    Attributes:
        compiled: what it consists of.
        read: gives the contents of a file, compared with its sha256.
    """

    compiled: Compiled
    read: Callable[[CompiledFile], bytes]


class ConvertedModels:
    """A folder of conversions, each in a folder named by a digest of everything that it was made from.

    Args:
        root: the folder; created by the first conversion.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, manifest: Manifest) -> Path:
        """Where the conversion of a model belongs."""
        parts = [manifest.weights.sha256, str(manifest.input_size), str(manifest.geometry)]
        parts += [str(manifest.reduction), str(manifest.planned), str(manifest.mean), str(manifest.std)]
        digest = hashlib.sha256("\n".join([*_MADE_BY, *parts]).encode()).hexdigest()
        return self.root / f"{manifest.name}-{digest[:24]}"

    def find(self, stored: StoredModel) -> CompiledModel | None:
        """The conversion of a model, its files not compared yet; None if there is none."""
        folder = self.folder(stored.manifest)
        try:
            compiled = Compiled.model_validate_json(_bytes_of(folder / COMPILED), strict=True)
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            log.warning("%s cannot be read: %s", folder / COMPILED, type(error).__name__)
            return None
        return CompiledModel(compiled, lambda file: _read(folder / file.file, file.sha256))

    def discard(self, stored: StoredModel) -> bool:
        """Delete a conversion, so that it is made again; whether that could be done, or else the log says why."""
        try:
            hidden.delete(self.folder(stored.manifest))
        except OSError as error:
            log.warning("%s: stays with PyTorch: %s", stored.manifest.name, error)
            return False
        return True

    def convert(self, stored: StoredModel, when_done: Callable[[], None]) -> None:
        """Convert a model beside all else, in a process of its own.

        Args:
            stored: the model.
            when_done: called from another thread once the conversion can be found; a failure is logged instead.
        """
        name = f"prunepool-convert-{stored.manifest.name}"
        threading.Thread(target=self._convert, args=(stored, when_done), name=name, daemon=True).start()

    def _convert(self, stored: StoredModel, when_done: Callable[[], None]) -> None:
        name, target = stored.manifest.name, self.folder(stored.manifest)
        try:
            with self._alone(target):
                if self.find(stored) is None:
                    hidden.delete(target)  # whatever else has its place
                    log.info("%s: served by PyTorch while it is converted for OpenVINO", name)
                    _run(stored, target)
        except (OSError, subprocess.SubprocessError) as error:
            why = (
                error.stderr.strip().splitlines()[-1:]
                if isinstance(error, subprocess.CalledProcessError)
                else []
            )
            log.warning("%s: stays with PyTorch, the conversion failed: %s", name, why[0] if why else error)
            return
        when_done()

    @contextmanager
    def _alone(self, target: Path) -> Iterator[None]:
        """Wait until no other process converts the same model."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / f".{target.name}.lock").open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _run(stored: StoredModel, target: Path) -> None:
    """Convert in another process: it needs PyTorch and much memory, and both go when it ends."""
    command = [sys.executable, "-m", "prunepool.backends.openvino_convert", str(stored.folder), str(target)]
    command += ["--linked"] if stored.linked else []
    # Modules are not looked for in the working directory, as `-m` would.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
    # It reads from the pipe, to end if this process does. A signal to the terminal is not for it.
    with subprocess.Popen(  # noqa: S603 - this interpreter, and paths of the operator's
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=environment,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        if code := process.wait():
            raise subprocess.CalledProcessError(code, command[2], stderr=said)


def _read(path: Path, sha256: str) -> bytes:
    try:
        content = _bytes_of(path)
    except OSError as error:
        raise WeightsInvalid(f"{path}: cannot be read ({error.strerror})") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise WeightsInvalid(f"{path}: has sha256 {found}, but {COMPILED} records {sha256}")
    return content


def _bytes_of(path: Path) -> bytes:
    """The contents of a regular file, read and not mapped: it may change at any time."""
    if path.exists() and not path.is_file():  # a named pipe would be waited for
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    return path.read_bytes()


def _made_by() -> list[str]:
    """What conversions depend on besides the model: the code, and the version of OpenVINO."""
    package = Path(prunepool.__file__).parent
    files = sorted(path for pattern in _SOURCES for path in package.glob(pattern))
    try:
        openvino = version("openvino")
    except PackageNotFoundError:
        openvino = ""
    return [openvino, *(path.read_text(encoding="utf-8") for path in files)]


#: Read when this module is imported, as the code itself is: a file that is changed while the process runs, by an
#: upgrade for one, changes nothing of what runs.
_MADE_BY = _made_by()
