"""Converted passes as files: compressed graphs over one file of constants. It needs no torch."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

#: Constants start at a multiple of so many bytes, as OpenVINO wants vectors.
_ALIGNED = 64

#: Where a graph says which bytes of the constants it means.
_PLACE = re.compile(rb'offset="(\d+)" size="(\d+)"')


def pack(models: Mapping[str, Any], *, halved: bool) -> tuple[dict[str, bytes], bytes]:
    """The files of several `openvino.Model`s, whose equal constants are kept once.

    Args:
        models: by name.
        halved: whether constants in float32 are kept in float16.

    Returns:
        The graph of each, compressed, and the constants of all.
    """
    import openvino as ov

    graphs: dict[str, bytes] = {}
    constants = bytearray()
    places: dict[bytes, int] = {}
    with TemporaryDirectory() as folder:
        for name, model in models.items():
            path = Path(folder) / "pass.xml"
            ov.save_model(model, path, compress_to_fp16=halved)
            own = path.with_suffix(".bin").read_bytes()

            def moved(place: re.Match[bytes], own: bytes = own) -> bytes:
                offset, size = map(int, place.groups())
                content = own[offset : offset + size]
                key = hashlib.sha256(content).digest()
                if key not in places:
                    constants.extend(bytes(-len(constants) % _ALIGNED))
                    places[key] = len(constants)
                    constants.extend(content)
                return b'offset="%d" size="%d"' % (places[key], size)

            # Without the time, so that the same model gives the same bytes.
            graphs[name] = gzip.compress(_PLACE.sub(moved, path.read_bytes()), mtime=0)
    return graphs, bytes(constants)


def unpack(graph: bytes) -> bytes:
    """OpenVINO's `.xml` of a compressed graph."""
    return gzip.decompress(graph)
