"""Tensors as the protocol carries them, in JSON and as bytes behind it. Pure functions."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunepool.api.base64_images import decode_image_text
from prunepool.errors import InvalidParameter

_LENGTH = struct.Struct("<I")


def floats_of_bytes(name: str, data: memoryview, shape: Sequence[int]) -> NDArray[np.float32]:
    """An FP32 tensor from its bytes: little-endian, row-major.

    Args:
        name: what an error calls it.
        data: all of its bytes; the tensor is a view of them.
        shape: its shape.

    Raises:
        InvalidParameter: not as many bytes as the shape needs.
    """
    needed = 4 * math.prod(shape)
    if len(data) != needed:
        raise InvalidParameter(name, len(data), f"{needed} bytes of FP32, for shape {list(shape)}")
    return np.frombuffer(data, "<f4").reshape(shape).astype(np.float32, copy=False)


def floats_of_json(name: str, data: object, shape: Sequence[int]) -> NDArray[np.float32]:
    """An FP32 tensor from JSON numbers, in one list or nested as its shape says.

    Args:
        name: what an error calls it.
        data: the JSON value.
        shape: its shape.

    Returns:
        The tensor; a number too large for float32 is infinite in it.

    Raises:
        InvalidParameter: no numbers, or not as many or not nested as the shape says.
    """
    limit = f"{math.prod(shape)} numbers, in one list or nested as shape {list(shape)} says"
    try:
        # The dtype is said beforehand: numpy would make room for the longest text in every place.
        with np.errstate(over="ignore"):
            values = np.array(data, np.float32)
    except (TypeError, ValueError, OverflowError):
        raise InvalidParameter(name, "something else", limit) from None
    if values.ndim == 0 or values.size != math.prod(shape):
        raise InvalidParameter(name, f"{values.size} of them", limit)
    if values.ndim > 1 and values.shape != tuple(shape):
        raise InvalidParameter(name, f"a nesting of {list(values.shape)}", limit)
    return values.reshape(shape)


def elements_of_bytes(name: str, data: memoryview, count: int) -> list[bytes]:
    """The elements of a BYTES tensor, each behind its length as a little-endian uint32.

    Args:
        name: what an error calls it.
        data: all of its bytes.
        count: how many elements.

    Raises:
        InvalidParameter: other than `count` elements, or one that is cut short.
    """
    elements: list[bytes] = []
    start = 0
    while start < len(data) and len(elements) < count:
        begin = start + _LENGTH.size
        if begin > len(data):
            break
        (length,) = _LENGTH.unpack_from(data, start)
        start = begin + length
        if start > len(data):
            break
        elements.append(bytes(data[begin:start]))
    if len(elements) != count or start != len(data):
        limit = f"{count} elements of BYTES, each behind its length in four bytes"
        raise InvalidParameter(name, f"{len(data)} bytes that are not", limit)
    return elements


def images_of_json(name: str, data: object, count: int) -> list[bytes]:
    """The elements of a BYTES tensor of images: base64 texts or data URLs, as JSON carries no bytes.

    Args:
        name: what an error calls it.
        data: the JSON value: texts, each perhaps in a list of its own.
        count: how many elements.

    Raises:
        InvalidParameter: not `count` texts.
        ImageUndecodable: a text that is no base64.
        UnsupportedMediaType: a data URL of something else than an image.
    """
    limit = f"{count} texts, the images in base64"
    if not isinstance(data, list) or len(data) != count:
        got = f"{len(data)} of them" if isinstance(data, list) else type(data).__name__
        raise InvalidParameter(name, got, limit)
    texts = [item[0] if isinstance(item, list) and len(item) == 1 else item for item in data]
    for text in texts:
        if not isinstance(text, str):
            raise InvalidParameter(name, f"a list with a {type(text).__name__} in it", limit)
    return [decode_image_text(text) for text in texts]


def bytes_of(values: NDArray[np.float32] | Sequence[str]) -> bytes:
    """A tensor's bytes: FP32 of an array, BYTES of texts in UTF-8."""
    if isinstance(values, np.ndarray):
        return values.astype("<f4", copy=False).tobytes()
    return bytes_of_elements([text.encode() for text in values])


def bytes_of_elements(elements: Sequence[bytes]) -> bytes:
    """A BYTES tensor: each element behind its length."""
    return b"".join(part for element in elements for part in (_LENGTH.pack(len(element)), element))


def json_of(values: NDArray[np.float32] | Sequence[str]) -> Any:
    """A tensor as a flat list for orjson, which serialises arrays itself."""
    return np.ascontiguousarray(values).reshape(-1) if isinstance(values, np.ndarray) else list(values)
