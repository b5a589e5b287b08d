"""Parses inference requests: JSON, and the bytes of tensors behind it. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prunepool.api.base64_images import image_of_bytes
from prunepool.api.oip import tensors
from prunepool.api.oip.header import Header, InputTensor, OutputTensor, header_of_json
from prunepool.api.oip.views import INPUT, OUTPUTS, View
from prunepool.errors import InvalidParameter
from prunepool.serving.types import Image

_DATA = f"inputs.{INPUT}.data"
_SHAPE = f"inputs.{INPUT}.shape"
_SIZE = "binary_data_size"
#: Longer numbers are refused before they are parsed.
_MAX_DIGITS = 18


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """An output as the client requests it.

    Attributes:
        name: `logits` or `probabilities`.
        binary: whether it is sent as bytes behind the JSON.
        classes: number of most probable classes to send with their labels; 0 sends all values.
    """

    name: str
    binary: bool
    classes: int = 0


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A parsed inference request.

    Attributes:
        id: the client's id, which the response repeats.
        images: one or more images, of the kind that the view takes.
        parameters: the parameters, not read yet.
        outputs: the requested outputs in order.
    """

    id: str | None
    images: list[Image]
    parameters: Mapping[str, object]
    outputs: tuple[OutputSpec, ...]


def parse(body: bytes, header_length: str | None, view: View) -> InferRequest:
    """Parse the body of an inference request.

    Args:
        body: the complete body, not compressed.
        header_length: the header `Inference-Header-Content-Length`: length in bytes of the JSON before the tensors.
            None: the body is JSON alone. 0: the body is one raw tensor without JSON.
        view: the model as the request names it.

    Raises:
        InvalidParameter: the request is wrong; names the parameter, its value and the limit.
        ImageUndecodable: an image in JSON is not valid base64, or an image is a URL.
        UnsupportedMediaType: a data URL names a type that is not an image.
    """
    length = None if header_length is None else _length(header_length, len(body))
    if length == 0:
        return _raw(body, view)
    header = header_of_json(body if length is None else body[:length])
    return request_of(header, memoryview(body)[len(body) if length is None else length :], view)


def request_of(header: Header, attached: memoryview, view: View) -> InferRequest:
    """Make the request from its JSON and the bytes behind it.

    Args:
        header: the JSON.
        attached: the bytes of tensors that have `binary_data_size`.
        view: the model as the request names it.

    Raises:
        RequestError: as :func:`parse`.
    """
    parameters = header.parameters or {}
    return InferRequest(
        id=header.id,
        images=_images(header.inputs, attached, view),
        parameters=parameters,
        outputs=_outputs(header.outputs, parameters),
    )


def _length(text: str, most: int) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS and int(text) <= most:
        return int(text)
    raise InvalidParameter("Inference-Header-Content-Length", text, f"a number from 0 to the body's {most}")


def _raw(body: bytes, view: View) -> InferRequest:
    """Make the request of a body that is a single image without JSON."""
    data = memoryview(body)
    image: Image = image_of_bytes(body) if view.encoded else tensors.floats_of_bytes("body", data, view.dims)
    return InferRequest(None, [image], {}, tuple(OutputSpec(name, binary=True) for name in OUTPUTS))


def _images(inputs: list[InputTensor], attached: memoryview, view: View) -> list[Image]:
    if [tensor.name for tensor in inputs] != [INPUT]:
        names = ", ".join(tensor.name for tensor in inputs) or None
        raise InvalidParameter("inputs", names, f"one, named {INPUT}")
    (tensor,) = inputs
    if tensor.datatype != view.datatype:
        raise InvalidParameter(f"inputs.{INPUT}.datatype", tensor.datatype, view.datatype)
    count = _count(tensor.shape, view)
    parameters = tensor.parameters or {}
    _refuse_shared_memory(f"inputs.{INPUT}", parameters)
    size = parameters.get(_SIZE)
    if size is None:
        _check_length(attached, 0)
        return _images_of_json(tensor.data, count, view)
    if tensor.data is not None:
        raise InvalidParameter(_DATA, "both", f"left out if {_SIZE} is given")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(attached):
        limit = f"a number from 0 to the {len(attached)} bytes behind the JSON"
        raise InvalidParameter(f"inputs.{INPUT}.parameters.{_SIZE}", size, limit)
    _check_length(attached, size)
    if view.encoded:
        return [image_of_bytes(data) for data in tensors.elements_of_bytes(_DATA, attached, count)]
    return list(tensors.floats_of_bytes(_DATA, attached, tensor.shape))


def _images_of_json(data: object, count: int, view: View) -> list[Image]:
    if data is None:
        raise InvalidParameter(_DATA, None, f"given, here or with {_SIZE} behind the JSON")
    if view.encoded:
        return list(tensors.images_of_json(_DATA, data, count))
    return list(tensors.floats_of_json(_DATA, data, [count, *view.dims]))


def _count(shape: list[int], view: View) -> int:
    """Return the number of images in a tensor of this shape."""
    fits = shape[1:] == view.dims or (view.encoded and len(shape) == 1)
    if not shape or not fits or not 1 <= shape[0] <= view.max_batch_size:
        wanted = ", ".join(["n", *map(str, view.dims)])
        limit = f"[{wanted}] with n from 1 to {view.max_batch_size}"
        raise InvalidParameter(_SHAPE, str(shape), limit)
    return shape[0]


def _check_length(attached: memoryview, size: int) -> None:
    if len(attached) != size:
        limit = f"as long as its JSON and the {size} bytes that this announces"
        raise InvalidParameter("body", f"{len(attached) - size} bytes longer", limit)


def _outputs(outputs: list[OutputTensor], parameters: dict[str, Any]) -> tuple[OutputSpec, ...]:
    binary = _flag("parameters.binary_data_output", parameters.get("binary_data_output"), default=False)
    if not outputs:
        return tuple(OutputSpec(name, binary) for name in OUTPUTS)
    names = [output.name for output in outputs]
    for name in names:
        if name not in OUTPUTS or names.count(name) > 1:
            raise InvalidParameter("outputs", name, f"any of {', '.join(OUTPUTS)}, each once")
    return tuple(_output(output, binary) for output in outputs)


def _output(output: OutputTensor, binary: bool) -> OutputSpec:
    parameters = output.parameters or {}
    where = f"outputs.{output.name}"
    _refuse_shared_memory(where, parameters)
    classes = parameters.get("classification")
    if classes is None:
        classes = 0
    if not isinstance(classes, int) or isinstance(classes, bool) or classes < 0:
        raise InvalidParameter(f"{where}.parameters.classification", classes, "an integer of at least 0")
    where = f"{where}.parameters.binary_data"
    return OutputSpec(output.name, _flag(where, parameters.get("binary_data"), default=binary), classes)


def _flag(name: str, value: object, *, default: bool) -> bool:
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InvalidParameter(name, value, "true or false")
    return value


def _refuse_shared_memory(where: str, parameters: dict[str, Any]) -> None:
    region = "shared_memory_region"
    if parameters.get(region) is not None:
        limit = "left out: shared memory is not supported; send tensors in the body"
        raise InvalidParameter(f"{where}.parameters.{region}", parameters[region], limit)
