"""Tensors in JSON and in bytes: round trips, and refusals."""

from __future__ import annotations

import base64
import contextlib
import math
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from prunepool.api.oip import tensors
from prunepool.errors import ImageUndecodable, InvalidParameter, RequestError, UnsupportedMediaType

arrays = npst.arrays(np.float32, npst.array_shapes(max_dims=4, max_side=4))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(arrays)
def test_floats_survive_as_bytes(array: np.ndarray) -> None:
    again = tensors.floats_of_bytes("x", memoryview(tensors.bytes_of(array)), array.shape)
    np.testing.assert_array_equal(again, array)
    assert again.dtype == np.float32


@given(
    npst.arrays(
        np.float32,
        npst.array_shapes(max_dims=4, max_side=4),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    ),
    st.booleans(),
)
def test_floats_survive_as_json(array: np.ndarray, flat: bool) -> None:
    text = orjson.dumps(tensors.json_of(array) if flat else array, option=orjson.OPT_SERIALIZE_NUMPY)
    again = tensors.floats_of_json("x", orjson.loads(text), array.shape)
    np.testing.assert_array_equal(again, array)
    assert again.dtype == np.float32


@given(st.lists(st.binary()))
def test_elements_survive_as_bytes(elements: list[bytes]) -> None:
    packed = b"".join(len(element).to_bytes(4, "little") + element for element in elements)
    assert tensors.elements_of_bytes("x", memoryview(packed), len(elements)) == elements


@given(st.lists(st.text()))
def test_texts_become_elements(texts: list[str]) -> None:
    packed = tensors.bytes_of(texts)
    assert tensors.elements_of_bytes("x", memoryview(packed), len(texts)) == [t.encode() for t in texts]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("form", ["{}", "data:image/png;base64,{}"])
def test_images_survive_as_json(nested: bool, form: str) -> None:
    text = form.format(base64.b64encode(b"\xff\xd8photo").decode())
    assert tensors.images_of_json("x", [[text]] if nested else [text], 1) == [b"\xff\xd8photo"]


@pytest.mark.parametrize("length", [0, 15, 17])
def test_too_few_or_too_many_bytes_are_refused_with_both_numbers(length: int) -> None:
    with pytest.raises(InvalidParameter, match=rf"x must be 16 bytes .* shape \[2, 2\]; got {length}"):
        tensors.floats_of_bytes("x", memoryview(bytes(length)), [2, 2])


@pytest.mark.parametrize(
    "data",
    [
        [1, 2, 3],
        [1, 2, 3, 4, 5],
        [[1, 2, 3, 4]],
        [[1], [2], [3], [4]],
        [[1, 2], [3]],
        [1, 2, 3, "four"],
        [1, 2, 3, {}],
        [1, 2, 3, [4]],
        [],
        {},
        {"0": 1},
        "1234",
        4,
        None,
    ],
)
def test_values_that_do_not_match_the_shape_are_refused(data: Any) -> None:
    with pytest.raises(InvalidParameter, match=r"x must be 4 numbers, .* shape \[2, 2\]"):
        tensors.floats_of_json("x", data, [2, 2])


def test_a_number_too_large_for_float32_is_infinite() -> None:
    assert tensors.floats_of_json("x", [1e300, -1e39], [2]).tolist() == [math.inf, -math.inf]


def test_a_long_text_among_many_numbers_takes_no_memory() -> None:
    with pytest.raises(InvalidParameter):
        tensors.floats_of_json("x", ["x" * 1_000_000, *range(1_000_000)], [1_000_001])


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (b"", 1),
        (b"\x01", 1),
        (b"\x01\x00\x00\x00", 1),
        (b"\x01\x00\x00\x00ab", 1),
        (b"\x01\x00\x00\x00a", 2),
        (b"\x01\x00\x00\x00a", 0),
        (b"\xff\xff\xff\xffa", 1),
        (b"\x01\x00\x00\x00a\x00\x00", 2),
    ],
)
def test_another_number_of_elements_is_refused(data: bytes, count: int) -> None:
    with pytest.raises(InvalidParameter, match=f"x must be {count} elements"):
        tensors.elements_of_bytes("x", memoryview(data), count)


@pytest.mark.parametrize(
    "data", [None, "aGk=", [], ["aGk="] * 3, [1, 2], [None, "aGk="], [["aGk=", "aGk="], 1]]
)
def test_another_number_of_texts_is_refused(data: Any) -> None:
    with pytest.raises(InvalidParameter, match="x must be 2 texts, the images in base64"):
        tensors.images_of_json("x", data, 2)


def test_a_text_that_is_not_base64_is_refused() -> None:
    with pytest.raises(ImageUndecodable, match="base64"):
        tensors.images_of_json("x", ["no base64!"], 1)


def test_a_data_url_of_something_else_is_refused() -> None:
    with pytest.raises(UnsupportedMediaType):
        tensors.images_of_json("x", ["data:text/plain;base64,aGk="], 1)


@given(json_values, st.lists(st.integers(0, 3), max_size=3))
def test_any_json_is_taken_or_refused(data: Any, shape: list[int]) -> None:
    for read in (
        lambda: tensors.floats_of_json("x", data, shape),
        lambda: tensors.images_of_json("x", data, 2),
    ):
        with contextlib.suppress(RequestError):
            read()


@given(st.binary(), st.integers(0, 4))
def test_any_bytes_are_elements_or_refused(data: bytes, count: int) -> None:
    try:
        elements = tensors.elements_of_bytes("x", memoryview(data), count)
    except InvalidParameter:
        return
    assert tensors.bytes_of([]) + b"".join(len(e).to_bytes(4, "little") + e for e in elements) == data
