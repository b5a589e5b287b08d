"""Parsing of inference requests, valid and invalid."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunepool.api.oip.requests import InferRequest, OutputSpec, parse
from prunepool.api.oip.views import View
from prunepool.errors import ImageUndecodable, InvalidParameter, RequestError
from prunepool.testing import fake_model

INFO = fake_model("m", input_size=2)
TENSORS = View("m", INFO, encoded=False, max_batch_size=3)
IMAGES = View("m_jpeg", INFO, encoded=True, max_batch_size=3)
ONE = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)


def message(view: View = TENSORS, **changes: Any) -> dict[str, Any]:
    """A valid request in JSON; `changes` are made to its input."""
    data: Any = ONE.ravel().tolist()
    given: dict[str, Any] = {"name": "images", "shape": [1, 3, 2, 2], "datatype": "FP32", "data": data}
    if view.encoded:
        given |= {"shape": [1, 1], "datatype": "BYTES", "data": ["cGhvdG8="]}
    given |= changes
    return {"inputs": [{key: value for key, value in given.items() if value is not ...}]}


def parsed(document: Any, attached: bytes | None = None, view: View = TENSORS) -> InferRequest:
    text = orjson.dumps(document)
    if attached is None:
        return parse(text, None, view)
    return parse(text + attached, str(len(text)), view)


def refused(document: Any, attached: bytes | None = None, view: View = TENSORS) -> str:
    with pytest.raises(InvalidParameter) as refusal:
        parsed(document, attached, view)
    return refusal.value.detail


def same(images: Any, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(np.stack(images), expected)


def test_a_tensor_in_json() -> None:
    same(parsed(message()).images, ONE)


def test_a_tensor_behind_the_json() -> None:
    document = message(data=..., parameters={"binary_data_size": ONE.nbytes})
    same(parsed(document, ONE.tobytes()).images, ONE)


def test_a_tensor_in_json_with_the_length_header() -> None:
    same(parsed(message(), b"").images, ONE)


def test_a_tensor_alone() -> None:
    request = parse(ONE.tobytes(), "0", TENSORS)
    same(request.images, ONE)
    assert request.outputs == (OutputSpec("logits", binary=True), OutputSpec("probabilities", binary=True))


def test_a_photo_alone() -> None:
    assert parse(b"photo", "0", IMAGES).images == [b"photo"]


@pytest.mark.parametrize("shape", [[1], [1, 1]])
def test_a_photo_in_json(shape: list[int]) -> None:
    assert parsed(message(IMAGES, shape=shape), view=IMAGES).images == [b"photo"]


def test_photos_behind_the_json() -> None:
    attached = b"\x03\x00\x00\x00one\x03\x00\x00\x00two"
    document = message(IMAGES, shape=[2, 1], data=..., parameters={"binary_data_size": len(attached)})
    assert parsed(document, attached, IMAGES).images == [b"one", b"two"]


def test_a_batch_is_its_images() -> None:
    batch = np.concatenate([ONE, -ONE, 2 * ONE])
    same(parsed(message(shape=[3, 3, 2, 2], data=batch.tolist())).images, batch)


def test_the_id_and_the_parameters_are_kept() -> None:
    request = parsed({**message(), "id": "7", "parameters": {"reduction_ratio": 0.5, "unknown": [1]}})
    assert (request.id, request.parameters) == ("7", {"reduction_ratio": 0.5, "unknown": [1]})


def test_unknown_parameters_are_ignored() -> None:
    document = {**message(parameters={"whatever": 1}), "model_name": "m", "model_version": "1"}
    assert parsed(document).id is None


@pytest.mark.parametrize(
    "more",
    [
        {"outputs": None},
        {"outputs": []},
        {"outputs": None, "parameters": None, "id": None},
        {"model_name": None, "model_version": None},
        {"parameters": {"binary_data_output": None}},
    ],
)
def test_null_is_as_left_out(more: dict[str, Any]) -> None:
    nulls = {"parameters": {"binary_data_size": None, "shared_memory_region": None}, "contents": None}
    request = parsed({**message(**nulls), **more})
    same(request.images, ONE)
    assert request.outputs == (OutputSpec("logits", False), OutputSpec("probabilities", False))


@pytest.mark.parametrize("names", [None, ["classification", "binary_data", "shared_memory_region"]])
def test_null_is_as_left_out_of_an_output(names: list[str] | None) -> None:
    parameters = None if names is None else dict.fromkeys(names)
    output = {"name": "logits", "datatype": None, "shape": None, "parameters": parameters}
    assert parsed({**message(), "outputs": [output]}).outputs == (OutputSpec("logits", False),)


def test_a_key_with_two_values_is_refused_by_name() -> None:
    text = orjson.dumps({**message(), "id": "7"})
    with pytest.raises(InvalidParameter, match="id must be given once"):
        parse(text[:-1] + b', "id": "8"}', None, TENSORS)
    assert parse(b"\xef\xbb\xbf" + text[:-1] + b', "id": "7"}', None, TENSORS).id == "7"


def test_a_photo_behind_the_json_that_is_a_url_is_not_fetched() -> None:
    url = b"https://example.org/a.jpg"
    attached = len(url).to_bytes(4, "little") + url
    document = message(IMAGES, data=..., parameters={"binary_data_size": len(attached)})
    for text, length in ((orjson.dumps(document) + attached, str(len(orjson.dumps(document)))), (url, "0")):
        with pytest.raises(ImageUndecodable, match="URLs and paths are not fetched"):
            parse(text, length, IMAGES)


def test_all_outputs_come_in_json_by_default() -> None:
    assert parsed(message()).outputs == (OutputSpec("logits", False), OutputSpec("probabilities", False))


def test_all_outputs_come_in_bytes_on_request() -> None:
    outputs = parsed({**message(), "parameters": {"binary_data_output": True}}).outputs
    assert outputs == (OutputSpec("logits", True), OutputSpec("probabilities", True))


def test_an_output_overrides_the_default_form() -> None:
    outputs = [
        {"name": "probabilities", "parameters": {"binary_data": False, "classification": 3}},
        {"name": "logits"},
    ]
    document = {**message(), "parameters": {"binary_data_output": True}, "outputs": outputs}
    assert parsed(document).outputs == (OutputSpec("probabilities", False, 3), OutputSpec("logits", True, 0))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "image"}, "inputs must be one, named images; got 'image'"),
        ({"name": 5}, "inputs.0.name must be valid"),
        ({"datatype": "FP16"}, "inputs.images.datatype must be FP32; got 'FP16'"),
        ({"datatype": "BYTES"}, "inputs.images.datatype must be FP32; got 'BYTES'"),
        (
            {"shape": [3, 2, 2]},
            "inputs.images.shape must be [n, 3, 2, 2] with n from 1 to 3; got '[3, 2, 2]'",
        ),
        ({"shape": [1, 2, 2, 3]}, "inputs.images.shape must be"),
        ({"shape": [0, 3, 2, 2]}, "inputs.images.shape must be"),
        ({"shape": [4, 3, 2, 2]}, "inputs.images.shape must be"),
        ({"shape": [12]}, "inputs.images.shape must be"),
        ({"shape": []}, "inputs.images.shape must be"),
        ({"shape": [-1, 3, 2, 2]}, "inputs.0.shape.0 must be valid"),
        ({"shape": [True, 3, 2, 2]}, "inputs.0.shape.0 must be valid"),
        ({"shape": "1322"}, "inputs.0.shape must be valid"),
        ({"shape": ...}, "inputs.0.shape must be valid"),
        ({"data": ...}, "inputs.images.data must be given"),
        ({"data": None}, "inputs.images.data must be given"),
        ({"data": [1, 2]}, "inputs.images.data must be 12 numbers"),
        ({"parameters": 1}, "inputs.0.parameters must be valid"),
        ({"parameters": {"shared_memory_region": "r"}}, "shared_memory_region must be left out"),
        ({"parameters": {"binary_data_size": 48}}, "inputs.images.data must be left out"),
    ],
)
def test_an_invalid_input_is_named(change: dict[str, Any], said: str) -> None:
    assert said in refused(message(**change))


@pytest.mark.parametrize("shape", [[1, 2], [0, 1], [4, 1], [], [1, 1, 1]])
def test_another_shape_is_refused(shape: list[int]) -> None:
    said = refused(message(IMAGES, shape=shape), view=IMAGES)
    assert "inputs.images.shape must be [n, 1] with n from 1 to 3" in said


@pytest.mark.parametrize("size", [0, 47, 49, -1, 48.0, "48", True, 2**70])
def test_a_wrong_binary_size_is_refused(size: Any) -> None:
    text = orjson.dumps(message(data=..., parameters={"binary_data_size": "SIZE"}))
    text = text.replace(b'"SIZE"', orjson.dumps(size) if size != 2**70 else str(size).encode())
    with pytest.raises(InvalidParameter):
        parse(text + ONE.tobytes(), str(len(text)), TENSORS)


def test_unannounced_bytes_are_refused() -> None:
    assert "body must be as long as" in refused(message(), b"more")


@pytest.mark.parametrize("length", ["-1", "+1", "1.0", "", " 1", "one", "9" * 18, "9" * 5000, "１"])
def test_an_invalid_length_of_the_json_is_refused(length: str) -> None:
    with pytest.raises(InvalidParameter, match="Inference-Header-Content-Length must be a number from 0 to"):
        parse(orjson.dumps(message()), length, TENSORS)


def test_a_tensor_alone_of_another_length_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="body must be 48 bytes"):
        parse(ONE.tobytes() + bytes(4), "0", TENSORS)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"null", b"{}", b"{", b"\xff", b'{"inputs": [NaN]}', b'{"inputs": 1}']
)
def test_an_invalid_request_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidParameter):
        parse(text, None, TENSORS)


def test_two_inputs_are_refused() -> None:
    document = message()
    assert "inputs must be one" in refused({"inputs": document["inputs"] * 2})


def test_no_input_is_refused() -> None:
    assert "inputs must be one, named images; got None" in refused({"inputs": []})


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ([{"name": "scores"}], "outputs must be any of logits, probabilities, each once; got 'scores'"),
        ([{"name": "logits"}] * 2, "outputs must be any of"),
        ([{}], "outputs.0.name must be valid"),
        ([{"name": "logits", "parameters": {"classification": -1}}], "classification must be an integer"),
        ([{"name": "logits", "parameters": {"classification": 1.5}}], "classification must be an integer"),
        ([{"name": "logits", "parameters": {"classification": True}}], "classification must be an integer"),
        ([{"name": "logits", "parameters": {"binary_data": "yes"}}], "binary_data must be true or false"),
        ([{"name": "logits", "parameters": {"shared_memory_region": "r"}}], "must be left out"),
        ("logits", "outputs must be valid"),
    ],
)
def test_an_unknown_output_is_named(outputs: Any, said: str) -> None:
    assert said in refused({**message(), "outputs": outputs})


@pytest.mark.parametrize("identifier", [7, True, ["7"]])
def test_an_id_is_a_text(identifier: Any) -> None:
    assert "id must be valid" in refused({**message(), "id": identifier})


def test_a_million_errors_are_reported_as_one() -> None:
    said = refused({"inputs": [{"name": "images", "datatype": "FP32", "shape": ["x"] * 1_000_000}]})
    assert len(said) < 200


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
changes = st.dictionaries(
    st.sampled_from(["name", "datatype", "shape", "data", "parameters"]), json_values, max_size=2
)
lengths = st.none() | st.integers(-2, 400).map(str) | st.text(max_size=5)


@given(
    changes,
    st.dictionaries(st.sampled_from(["id", "parameters", "outputs", "inputs"]), json_values),
    lengths,
    st.binary(max_size=60),
    st.sampled_from([TENSORS, IMAGES]),
)
def test_any_request_is_accepted_or_refused(
    to_input: dict[str, Any], to_request: dict[str, Any], length: str | None, attached: bytes, view: View
) -> None:
    body = orjson.dumps({**message(view, **to_input), **to_request}) + attached
    try:
        request = parse(body, length, view)
    except RequestError:
        return
    assert 1 <= len(request.images) <= view.max_batch_size
    assert all(isinstance(image, bytes) is view.encoded for image in request.images)


@given(st.data(), st.sampled_from([TENSORS, IMAGES]))
def test_any_damaged_binary_request_is_accepted_or_refused(data: st.DataObject, view: View) -> None:
    attached = b"\x05\x00\x00\x00photo" if view.encoded else ONE.tobytes()
    document = message(view, data=..., parameters={"binary_data_size": len(attached)})
    text = orjson.dumps(document)
    body = bytearray(text + attached)
    for _ in range(data.draw(st.integers(0, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    length = data.draw(st.just(len(text)) | st.integers(0, len(body)))
    with contextlib.suppress(RequestError):
        parse(bytes(body[:cut]), str(length), view)


def test_json_of_a_million_lists_is_refused_before_parsing() -> None:
    text = b'{"inputs": [' + b"[]," * 1_000_000 + b"1]}"
    with pytest.raises(InvalidParameter, match=r"at most 1000000 opening brackets; got \d+$"):
        parse(text, None, TENSORS)
