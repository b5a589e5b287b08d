"""Models as OpenVINO has prepared them for this processor, kept for later starts. It needs no torch.

To prepare a model takes seconds, to load a prepared one a fraction of that. OpenVINO has a cache of its own, but
does not notice changed bytes of weights and would answer with them. Here a file is what was written, or unused.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from prunepool import processor

log = logging.getLogger(__name__)

_DIGEST_BYTES = hashlib.sha256().digest_size
_SUFFIX = ".kernels"


class KernelCache:
    """What was prepared for one number format, in files of a folder.

    Args:
        folder: created when something is kept; None keeps nothing.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._prepared: dict[Path, Any] = {}

    def compile(self, core: Any, graph: bytes, constants: bytes, settings: Mapping[str, Any]) -> Any:
        """Load a model as it was prepared before, or prepare it now.

        Args:
            core: an `openvino.Core`.
            graph: OpenVINO's `.xml`.
            constants: OpenVINO's `.bin`.
            settings: of OpenVINO.

        Returns:
            An `openvino.CompiledModel`.

        Raises:
            RuntimeError: OpenVINO cannot prepare it.
        """
        path = None if self._folder is None else self._folder / _name(graph, constants, settings)
        if path is not None and (blob := _read(path)) is not None:
            try:
                return core.import_model(blob, "CPU", settings)
            except RuntimeError as error:
                log.warning("%s cannot be loaded and is made again: %s", path, error)
        compiled = core.compile_model(core.read_model(graph, constants), "CPU", settings)
        if path is not None:
            self._prepared[path] = compiled
        return compiled

    def keep(self) -> None:
        """Write what was prepared; if that fails, the next start prepares it again."""
        while self._prepared:
            path, compiled = self._prepared.popitem()
            _write(path, compiled.export_model().getvalue())


def _name(graph: bytes, constants: bytes, settings: Mapping[str, Any]) -> str:
    """A digest of a model, and one of all that it is prepared by and for."""
    import openvino

    model = hashlib.sha256(graph)
    model.update(constants)
    parts = [openvino.__version__, processor.name(), *processor.instructions()]
    parts += [f"{key}={value}" for key, value in sorted(settings.items())]
    machine = hashlib.sha256("\n".join(parts).encode())
    return f"{model.hexdigest()[:24]}-{machine.hexdigest()[:24]}{_SUFFIX}"


def _read(path: Path) -> bytes | None:
    """What was written to a file; None if it is missing or something else."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("%s cannot be read and is made again: %s", path, error.strerror)
        return None
    digest, blob = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(blob).digest() != digest:
        log.warning("%s is not what was written, and is made again", path)
        return None
    return blob


def _write(path: Path, blob: bytes) -> None:
    made = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made.write_bytes(hashlib.sha256(blob).digest() + blob)
        made.replace(path)
    except OSError as error:
        log.warning("%s is not kept for the next start: %s", path, error.strerror)
        with suppress(OSError):
            made.unlink(missing_ok=True)
