"""Converts tensors from and to the protocol's JSON and bytes. Pure functions."""

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
    """Read an FP32 tensor from bytes: little-endian, row-major.

    Args:
        name: the tensor's name in errors.
        data: its bytes; the result is a view of them.
        shape: its shape.

    Returns:
        float32 of that shape.

    Raises:
        InvalidParameter: the number of bytes does not match the shape.
    """
    needed = 4 * math.prod(shape)
    if len(data) != needed:
        raise InvalidParameter(name, len(data), f"{needed} bytes of FP32, for shape {list(shape)}")
    return np.frombuffer(data, "<f4").reshape(shape).astype(np.float32, copy=False)


def floats_of_json(name: str, data: object, shape: Sequence[int]) -> NDArray[np.float32]:
    """Read an FP32 tensor from JSON numbers, in one flat list or nested like the shape.

    Args:
        name: the tensor's name in errors.
        data: the JSON value.
        shape: its shape.

    Returns:
        float32 of that shape; numbers too large for float32 become infinite.

    Raises:
        InvalidParameter: the values are not numbers, or their number or nesting does not match the shape.
    """
    limit = f"{math.prod(shape)} numbers, in one list or nested as shape {list(shape)} says"
    try:
        # Without a dtype, numpy would reserve the length of the longest text for every element.
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
    """Read the elements of a BYTES tensor, each preceded by its length as a little-endian uint32.

    Args:
        name: the tensor's name in errors.
        data: its bytes.
        count: number of elements.

    Raises:
        InvalidParameter: there are not `count` complete elements.
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
    """Read the elements of a BYTES tensor of images from JSON: base64 texts or data URLs.

    Args:
        name: the tensor's name in errors.
        data: the JSON value: a list of texts, each of them possibly in a list of its own.
        count: number of elements.

    Raises:
        InvalidParameter: there are not `count` texts.
        ImageUndecodable: a text is not valid base64.
        UnsupportedMediaType: a data URL names a type that is not an image.
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
    """Convert a tensor to bytes: an array to FP32, texts to BYTES in UTF-8."""
    if isinstance(values, np.ndarray):
        return values.astype("<f4", copy=False).tobytes()
    return bytes_of_elements([text.encode() for text in values])


def bytes_of_elements(elements: Sequence[bytes]) -> bytes:
    """Convert a BYTES tensor to bytes: each element preceded by its length."""
    return b"".join(part for element in elements for part in (_LENGTH.pack(len(element)), element))


def json_of(values: NDArray[np.float32] | Sequence[str]) -> Any:
    """Return a tensor as a flat list or array, both of which orjson serialises."""
    return np.ascontiguousarray(values).reshape(-1) if isinstance(values, np.ndarray) else list(values)
