"""The files of weights in a folder, as transformers and timm name them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from prunepool.errors import WeightsInvalid
from prunepool.models.json_object import read_object

#: The first of these that is there is taken; an index names several files.
FILES_OF_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def find_weights(folder: Path) -> tuple[Path, ...]:
    """The files of weights of a folder.

    Raises:
        WeightsInvalid: there are none, or an index names others than there are.
    """
    name = next((one for one in FILES_OF_WEIGHTS if (folder / one).is_file()), None)
    if name is None:
        raise WeightsInvalid(f"{folder}: has no weights; {', '.join(FILES_OF_WEIGHTS)} are read")
    return tuple(folder / one for one in files_named_by(folder / name) or (name,))


def files_named_by(source: Path) -> tuple[str, ...]:
    """The names of the files that an index of weights names; none for a file of weights.

    Raises:
        WeightsInvalid: it names none, or something else than a file beside it.
        ManifestInvalid: it is not JSON.
    """
    if source.suffix != ".json":
        return ()
    files = read_object(source).get("weight_map")
    names = sorted({str(name) for name in files.values()}) if isinstance(files, Mapping) else []
    if not names:
        raise WeightsInvalid(f"{source}: its weight_map names no file")
    for name in names:
        if not _FILE_NAME.fullmatch(name):
            raise WeightsInvalid(f"{source}: its weight_map has {name!r}; only files beside it are read")
    return tuple(names)
