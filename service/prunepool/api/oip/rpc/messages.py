"""Converts requests and responses from and to protocol buffers. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from tritonclient.grpc import service_pb2

from prunepool.api.oip import tensors
from prunepool.api.oip.header import header_of
from prunepool.api.oip.requests import InferRequest, request_of
from prunepool.api.oip.responses import summary_of, tensors_of
from prunepool.api.oip.views import VERSION, View
from prunepool.errors import InvalidParameter
from prunepool.serving.types import Inference

#: The field of typed contents for each datatype that a view can have.
_CONTENTS = {"FP32": "fp32_contents", "BYTES": "bytes_contents"}


def request_of_message(message: Any, view: View) -> InferRequest:
    """Parse a `ModelInferRequest`.

    Args:
        message: the request; its tensors may be raw or typed.
        view: the model as the request names it.

    Raises:
        InvalidParameter: the request is wrong; names the parameter, its value and the limit.
    """
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        limit = f"one for each of {len(message.inputs)} inputs, or none"
        raise InvalidParameter("raw_input_contents", len(raw), limit)
    for tensor in message.inputs:
        _refuse_other_contents(tensor, raw=bool(raw))
    # Typed contents become raw ones, so that there is one way to read a tensor.
    attached = list(raw) or [_raw_contents(tensor) for tensor in message.inputs]
    header = header_of(
        {
            "id": message.id or None,
            "parameters": plain_values(message.parameters),
            "inputs": [
                {
                    "name": tensor.name,
                    "datatype": tensor.datatype,
                    "shape": list(tensor.shape),
                    # A size that the caller gives too must be the right one.
                    "parameters": {"binary_data_size": len(data), **_given(tensor.parameters)},
                }
                for tensor, data in zip(message.inputs, attached, strict=True)
            ],
            "outputs": [
                {"name": output.name, "parameters": plain_values(output.parameters)}
                for output in message.outputs
            ],
        }
    )
    return request_of(header, memoryview(b"".join(attached)), view)


def response_of(request: InferRequest, view: View, results: Sequence[Inference]) -> Any:
    """Encode the results of all images of a request as one `ModelInferResponse` with raw tensors."""
    message = service_pb2.ModelInferResponse(model_name=view.name, model_version=VERSION, id=request.id or "")
    for output, tensor in zip(request.outputs, tensors_of(request, results), strict=True):
        message.outputs.add(name=output.name, datatype=tensor.datatype, shape=tensor.shape)
        message.raw_output_contents.append(tensors.bytes_of(tensor.content))
    summary = summary_of(results)
    # As texts, because KServe's messages have no floating-point parameters.
    for name, value in summary._asdict().items():
        message.parameters[name].string_param = str(value)
    return message


def plain_values(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Convert `InferParameter`s or `ModelRepositoryParameter`s to plain values; an unset one is None."""
    return {
        name: None if (kind := one.WhichOneof("parameter_choice")) is None else getattr(one, kind)
        for name, one in parameters.items()
    }


def _given(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in plain_values(parameters).items() if value is not None}


def filled(message: Message, document: object) -> Message:
    """Fill a message from the JSON of the same response over HTTP."""
    made: Message = ParseDict(orjson.loads(orjson.dumps(document)), message)
    return made


def _refuse_other_contents(tensor: Any, *, raw: bool) -> None:
    """Refuse contents that would not be read: beside raw ones, or of another type than the tensor.

    Raises:
        InvalidParameter: names the field.
    """
    read = _CONTENTS.get(tensor.datatype)  # another datatype is refused by name later
    for field, _ in tensor.contents.ListFields():
        if raw or (read is not None and field.name != read):
            limit = (
                "left out if raw_input_contents is given"
                if raw
                else f"left out: {tensor.datatype} is in {read}"
            )
            raise InvalidParameter(f"inputs.{tensor.name[:100]}.contents.{field.name}", "some", limit)


def _raw_contents(tensor: Any) -> bytes:
    """Convert the typed contents of a tensor to bytes."""
    if tensor.datatype == "BYTES":
        return tensors.bytes_of_elements(tensor.contents.bytes_contents)
    with np.errstate(over="ignore"):
        return tensors.bytes_of(np.array(tensor.contents.fp32_contents, np.float32))
