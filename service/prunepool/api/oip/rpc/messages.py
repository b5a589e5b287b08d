"""Requests and answers as protocol buffers. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from tritonclient.grpc import service_pb2

from prunepool.api.oip import tensors
from prunepool.api.oip.requests import InferRequest, header_of, request_of
from prunepool.api.oip.responses import spent, tensors_of
from prunepool.api.oip.views import VERSION, View
from prunepool.errors import InvalidParameter
from prunepool.serving.types import Inference


def request_of_message(message: Any, view: View) -> InferRequest:
    """What a `ModelInferRequest` asks for.

    Args:
        message: the request; its tensors may be raw or typed.
        view: what is asked.

    Raises:
        InvalidParameter: names what is wrong, its value and what is allowed.
    """
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        limit = f"one for each of {len(message.inputs)} inputs, or none"
        raise InvalidParameter("raw_input_contents", len(raw), limit)
    # Typed contents are packed as raw ones are, so that there is one way to read a tensor.
    attached = list(raw) or [_packed(given) for given in message.inputs]
    header = header_of(
        {
            "id": message.id or None,
            "parameters": values_of(message.parameters),
            "inputs": [
                {
                    "name": given.name,
                    "datatype": given.datatype,
                    "shape": list(given.shape),
                    "parameters": {**values_of(given.parameters), "binary_data_size": len(data)},
                }
                for given, data in zip(message.inputs, attached, strict=True)
            ],
            "outputs": [
                {"name": wanted.name, "parameters": values_of(wanted.parameters)}
                for wanted in message.outputs
            ],
        }
    )
    return request_of(header, memoryview(b"".join(attached)), view)


def response_of(request: InferRequest, view: View, answers: Sequence[Inference]) -> Any:
    """The answers to all images of a request as one `ModelInferResponse`, its tensors raw."""
    message = service_pb2.ModelInferResponse(model_name=view.name, model_version=VERSION, id=request.id or "")
    for wanted, tensor in zip(request.outputs, tensors_of(request, view, answers), strict=True):
        message.outputs.add(name=wanted.name, datatype=tensor.datatype, shape=tensor.shape)
        message.raw_output_contents.append(tensors.bytes_of(tensor.content))
    done = spent(answers)
    # As texts: KServe's messages know no floating-point parameters.
    for name, value in done._asdict().items():
        message.parameters[name].string_param = str(value)
    return message


def values_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A map of `InferParameter` or `ModelRepositoryParameter` as plain values; one without any is None."""
    return {
        name: None if (kind := one.WhichOneof("parameter_choice")) is None else getattr(one, kind)
        for name, one in parameters.items()
    }


def filled(message: Message, document: object) -> Message:
    """A message from what the same answer over HTTP says."""
    made: Message = ParseDict(orjson.loads(orjson.dumps(document)), message)
    return made


def _packed(given: Any) -> bytes:
    """The typed contents of a tensor as bytes; what is of another type than the tensor stays behind."""
    if given.datatype == "BYTES":
        return tensors.bytes_of_elements(given.contents.bytes_contents)
    with np.errstate(over="ignore"):
        return tensors.bytes_of(np.array(given.contents.fp32_contents, np.float32))
