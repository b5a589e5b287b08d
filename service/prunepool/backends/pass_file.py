"""A converted pass in one file with a digest of its bytes: what is read is what was written, or an error.

A file is read into memory and never mapped: it may be cut or replaced at any time, and a page of a mapped file that
is no longer there ends the process.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from pathlib import Path
from typing import NamedTuple

#: A mark, the bytes of the XML and of the weights, and the sha256 of both.
_HEADER = struct.Struct("<8sQQ32s")
_MARK = b"ppool-ov"


class PassFileInvalid(Exception):
    """A file is not what was written: cut, empty, changed, or something else."""


class ConvertedPass(NamedTuple):
    """What OpenVINO calls an intermediate representation.

    Attributes:
        xml: the operations.
        weights: their constants.
    """

    xml: bytes
    weights: bytes

    def digest(self) -> bytes:
        """The sha256 of both."""
        digest = hashlib.sha256(self.xml)
        digest.update(self.weights)
        return digest.digest()


def write(path: Path, converted: ConvertedPass) -> None:
    """Write a file that :func:`read` takes.

    Raises:
        OSError: it cannot be written, or the disk is full.
    """
    with path.open("wb") as file:
        file.write(_HEADER.pack(_MARK, len(converted.xml), len(converted.weights), converted.digest()))
        file.write(converted.xml)
        file.write(converted.weights)


def read(path: Path) -> ConvertedPass:
    """What was written to a file.

    Raises:
        FileNotFoundError: there is no such file.
        PassFileInvalid: it cannot be read, or is not what was written.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a named pipe would wait for who writes to it
            raise PassFileInvalid("it is no regular file")
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            header = file.read(_HEADER.size)
            if len(header) < _HEADER.size:
                raise PassFileInvalid(f"it has {found.st_size} bytes, less than a header")
            mark, xml_bytes, weight_bytes, digest = _HEADER.unpack(header)
            if mark != _MARK:
                raise PassFileInvalid("it is no converted pass")
            expected = _HEADER.size + xml_bytes + weight_bytes
            if found.st_size != expected:
                raise PassFileInvalid(f"it has {found.st_size} bytes, not {expected}")
            converted = ConvertedPass(file.read(xml_bytes), file.read(weight_bytes))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise PassFileInvalid(f"it cannot be read: {error.strerror or error}") from error
    if converted.digest() != digest:
        raise PassFileInvalid("its sha256 is not the one that was written")
    return converted
