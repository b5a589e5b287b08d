"""An inference request: its JSON, the bytes behind it, and what they ask for. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError

from prunepool.api.oip import tensors
from prunepool.api.oip.views import INPUT, OUTPUTS, View
from prunepool.errors import InvalidParameter
from prunepool.serving.types import Image

_DATA = f"inputs.{INPUT}.data"
_SHAPE = f"inputs.{INPUT}.shape"
_SIZE = "binary_data_size"
#: Lengths that no server has room for are refused before they become a number.
_MOST_DIGITS = 18
#: Rows of tensors are lists in JSON, so there may be many; each takes twenty times the memory of its brackets.
_MOST_BRACKETS = 1_000_000

Parameters = dict[str, Any] | None
# A list is given up at its first fault: to describe a million of them would cost more than the request.
Shape = Annotated[list[Annotated[int, Field(ge=0)]], FailFast()]


class _Message(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class Input(_Message):
    """A tensor that comes with a request."""

    name: str
    datatype: str
    shape: Shape
    parameters: Parameters = None
    data: Any = None


class Output(_Message):
    """A tensor that is wanted."""

    name: str
    parameters: Parameters = None


class Header(_Message):
    """What a request says of itself and of its tensors."""

    id: str | None = None
    parameters: Parameters = None
    inputs: Annotated[list[Input], FailFast()]
    outputs: Annotated[list[Output], FailFast()] = Field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Wanted:
    """An output as a client wants it.

    Attributes:
        name: `logits` or `probabilities`.
        binary: as bytes behind the JSON, rather than in it.
        classes: so many likeliest classes with their labels in place of all numbers; 0 for the numbers.
    """

    name: str
    binary: bool
    classes: int = 0


@dataclass(frozen=True, slots=True)
class InferRequest:
    """What a client wants to know.

    Attributes:
        id: to be echoed.
        images: one or more, of the kind that the view takes.
        parameters: of the request, as written.
        outputs: in the order of the answer.
    """

    id: str | None
    images: list[Image]
    parameters: Mapping[str, object]
    outputs: tuple[Wanted, ...]


def parse(body: bytes, header_length: str | None, view: View) -> InferRequest:
    """Unpack the body of an inference request.

    Args:
        body: all of it, not compressed.
        header_length: the header `Inference-Header-Content-Length`: where the JSON ends and bytes begin;
            None: nowhere; 0: the body is one raw tensor and no JSON.
        view: what is asked.

    Raises:
        InvalidParameter: names what is wrong, its value and what is allowed.
        ImageUndecodable: an image in JSON that is no base64.
        UnsupportedMediaType: a data URL of something else than an image.
    """
    length = None if header_length is None else _length(header_length, len(body))
    if length == 0:
        return _raw(body, view)
    header = _header_of_json(body if length is None else body[:length])
    return request_of(header, memoryview(body)[len(body) if length is None else length :], view)


def request_of(header: Header, attached: memoryview, view: View) -> InferRequest:
    """What a header and the bytes that come with it ask for.

    Args:
        header: says where the tensors are.
        attached: the bytes of those that say `binary_data_size`.
        view: what is asked.

    Raises:
        RequestError: as :func:`parse` does.
    """
    parameters = header.parameters or {}
    return InferRequest(
        id=header.id,
        images=_images(header.inputs, attached, view),
        parameters=parameters,
        outputs=_outputs(header.outputs, parameters),
    )


def _length(text: str, most: int) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS and int(text) <= most:
        return int(text)
    raise InvalidParameter("Inference-Header-Content-Length", text, f"a number from 0 to the body's {most}")


def _raw(body: bytes, view: View) -> InferRequest:
    """A single image without a word about it."""
    image: Image = body if view.encoded else tensors.floats_of_bytes("body", memoryview(body), view.dims)
    return InferRequest(None, [image], {}, tuple(Wanted(name, binary=True) for name in OUTPUTS))


def _header_of_json(text: bytes) -> Header:
    if text.count(b"[") + text.count(b"{") > _MOST_BRACKETS:
        raise InvalidParameter("body", "one with more", f"JSON with at most {_MOST_BRACKETS} brackets")
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidParameter("body", str(error), "valid JSON") from error
    return header_of(document)


def header_of(document: object) -> Header:
    """A header from plain values.

    Raises:
        InvalidParameter: something is missing or of another type.
    """
    try:
        return Header.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"])) or "body"
        raise InvalidParameter(name, first["input"], f"valid ({first['msg']})") from error


def _images(inputs: list[Input], attached: memoryview, view: View) -> list[Image]:
    if [one.name for one in inputs] != [INPUT]:
        names = ", ".join(one.name for one in inputs) or None
        raise InvalidParameter("inputs", names, f"one, named {INPUT}")
    (given,) = inputs
    if given.datatype != view.datatype:
        raise InvalidParameter(f"inputs.{INPUT}.datatype", given.datatype, view.datatype)
    count = _count(given.shape, view)
    parameters = given.parameters or {}
    _refuse_shared_memory(f"inputs.{INPUT}", parameters)
    size = parameters.get(_SIZE)
    if size is None:
        _end_of(attached, 0)
        return _images_of_json(given.data, count, view)
    if given.data is not None:
        raise InvalidParameter(_DATA, "both", f"left out where {_SIZE} is given")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(attached):
        limit = f"a number from 0 to the {len(attached)} bytes behind the JSON"
        raise InvalidParameter(f"inputs.{INPUT}.parameters.{_SIZE}", size, limit)
    _end_of(attached, size)
    if view.encoded:
        return list(tensors.elements_of_bytes(_DATA, attached, count))
    return list(tensors.floats_of_bytes(_DATA, attached, given.shape))


def _images_of_json(data: object, count: int, view: View) -> list[Image]:
    if data is None:
        raise InvalidParameter(_DATA, None, f"given, here or with {_SIZE} behind the JSON")
    if view.encoded:
        return list(tensors.images_of_json(_DATA, data, count))
    return list(tensors.floats_of_json(_DATA, data, [count, *view.dims]))


def _count(shape: list[int], view: View) -> int:
    """How many images a tensor of this shape holds."""
    fits = shape[1:] == view.dims or (view.encoded and len(shape) == 1)
    if not shape or not fits or not 1 <= shape[0] <= view.max_batch_size:
        wanted = ", ".join(["n", *map(str, view.dims)])
        limit = f"[{wanted}] with n from 1 to {view.max_batch_size}"
        raise InvalidParameter(_SHAPE, str(shape), limit)
    return shape[0]


def _end_of(attached: memoryview, size: int) -> None:
    if len(attached) != size:
        limit = f"as long as its JSON and the {size} bytes that this announces"
        raise InvalidParameter("body", f"{len(attached) - size} bytes longer", limit)


def _outputs(outputs: list[Output], parameters: dict[str, Any]) -> tuple[Wanted, ...]:
    binary = _flag("parameters.binary_data_output", parameters.get("binary_data_output"), default=False)
    if not outputs:
        return tuple(Wanted(name, binary) for name in OUTPUTS)
    names = [output.name for output in outputs]
    for name in names:
        if name not in OUTPUTS or names.count(name) > 1:
            raise InvalidParameter("outputs", name, f"any of {', '.join(OUTPUTS)}, each once")
    return tuple(_output(output, binary) for output in outputs)


def _output(output: Output, binary: bool) -> Wanted:
    parameters = output.parameters or {}
    where = f"outputs.{output.name}"
    _refuse_shared_memory(where, parameters)
    classes = parameters.get("classification")
    if classes is None:
        classes = 0
    if not isinstance(classes, int) or isinstance(classes, bool) or classes < 0:
        raise InvalidParameter(f"{where}.parameters.classification", classes, "an integer of at least 0")
    where = f"{where}.parameters.binary_data"
    return Wanted(output.name, _flag(where, parameters.get("binary_data"), default=binary), classes)


def _flag(name: str, value: object, *, default: bool) -> bool:
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InvalidParameter(name, value, "true or false")
    return value


def _refuse_shared_memory(where: str, parameters: dict[str, Any]) -> None:
    region = "shared_memory_region"
    if region in parameters:
        limit = "left out: tensors come and go in the body, not in shared memory"
        raise InvalidParameter(f"{where}.parameters.{region}", parameters[region], limit)
