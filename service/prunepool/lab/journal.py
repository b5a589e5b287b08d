"""A journal of measurements, so that interrupted work can be resumed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import orjson

import prunepool
from prunepool.errors import ModelError
from prunepool.lab.model_outputs import ModelOutputs
from prunepool.models.loaded_model import LoadedModel
from prunepool.reduction.plan import ReductionPlan

#: To be changed when the same key no longer means the same outputs.
_VERSION = 3


def key_of(model: LoadedModel, plan: ReductionPlan, crops: str) -> str:
    """A hash of everything that a measurement depends on.

    Args:
        model: its weights and dtype are hashed.
        plan: the reduction plan.
        crops: digest of the images and labels.
    """
    told = {
        "version": [_VERSION, prunepool.__version__],
        "weights": model.manifest.weights.sha256,
        "mean": model.manifest.mean,
        "std": model.manifest.std,
        "device": model.device.type,
        "dtype": str(model.dtype),
        "plan": asdict(plan),
        "crops": crops,
    }
    return hashlib.sha256(orjson.dumps(told, option=orjson.OPT_SORT_KEYS)).hexdigest()


class Journal:
    """Outputs by key, in a file of one JSON object per line; earlier runs' outputs are read first.

    Args:
        lines: of earlier runs; an incomplete last line is skipped.
        file: new outputs are appended to it.
    """

    def __init__(self, lines: bytes, file: BinaryIO | None) -> None:
        self._found: dict[str, ModelOutputs] = {}
        self._file = file
        for line in lines.splitlines():
            try:
                document = orjson.loads(line)
                self._found[document["key"]] = ModelOutputs.from_json(document)
            except (orjson.JSONDecodeError, KeyError):  # cut short, or of another version
                continue

    def __len__(self) -> int:
        return len(self._found)

    def get(self, key: str) -> ModelOutputs | None:
        """The outputs of a key, if they were measured before."""
        return self._found.get(key)

    def put(self, key: str, answers: ModelOutputs) -> None:
        """Record outputs."""
        self._found[key] = answers
        if self._file is not None:
            self._file.write(orjson.dumps({"key": key, **answers.to_json()}) + b"\n")
            self._file.flush()


@contextmanager
def open_journal(path: Path) -> Iterator[Journal]:
    """Open the journal in a file, which is created if missing.

    Raises:
        ModelError: it cannot be read or written.
    """
    try:
        lines = path.read_bytes() if path.exists() else b""
        file = path.open("ab")
    except OSError as error:
        raise ModelError(f"{path}: cannot be read and written ({error.strerror})") from error
    with file:
        if lines and not lines.endswith(b"\n"):
            file.write(b"\n")  # ends the line that was cut short
        yield Journal(lines, file)
