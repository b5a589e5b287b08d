"""What backends decided by measuring, kept in files for all processes of a server.

Successors of a process that died, and engines beside it, do what the first decided: answers do not change when
something dies, and do not depend on which engine gives them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

_log = structlog.stdlib.get_logger("prunepool.processes")


class DecisionFile(MutableMapping[str, Any]):
    """A mapping in a file: read each time, because other processes decide as well, and written at once.

    Args:
        path: JSON. One that cannot be read is as none: what it said is measured again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        #: What could not be written still holds in this process.
        self._own: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        return self._values()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._own[key] = value
        self._write({**self._values(), key: value})

    def __delitem__(self, key: str) -> None:
        values = self._values()
        del values[key]
        self._own.pop(key, None)
        self._write(values)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values())

    def __len__(self) -> int:
        return len(self._values())

    @property
    def changed(self) -> float:
        """When the file was last changed, in seconds since the epoch; 0 if there is none."""
        try:
            return self._path.stat().st_mtime
        except OSError:
            return 0.0

    def clear(self) -> None:
        """Forget all decisions."""
        self._own.clear()
        with suppress(OSError):
            self._path.unlink()

    def _values(self) -> dict[str, Any]:
        return {**self._own, **_read(self._path)}

    def _write(self, values: Mapping[str, Any]) -> None:
        """Replace the file as a whole, so that no process reads half of it."""
        made = self._path.with_suffix(f".{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            made.write_text(json.dumps(values))
            made.replace(self._path)
        except OSError as error:
            _log.warning("a decision is not kept for other processes", file=str(self._path), why=str(error))


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
        if not isinstance(values, dict):
            raise ValueError(f"decisions are an object, not {type(values).__name__}")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        _log.warning("decisions cannot be read, and are made anew", file=str(path), why=str(error))
        return {}
    return values


class DecisionFolder:
    """The decisions of a server, by type of device and generation of the model.

    Args:
        path: the folder; created by the first decision.
        device_type: of the engine that decides or follows.
    """

    def __init__(self, path: Path, device_type: str) -> None:
        self._path = path
        self._device_type = device_type

    def of(self, generation: str) -> DecisionFile:
        """The decisions for one generation of a model, as they are now."""
        return DecisionFile(self._path / f"{self._device_type}-{generation}.json")
