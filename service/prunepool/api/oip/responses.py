"""Encodes inference responses: JSON, and the bytes of tensors behind it. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from prunepool.api.oip import tensors
from prunepool.api.oip.requests import InferRequest, OutputSpec
from prunepool.api.oip.views import VERSION, View
from prunepool.core.logits import softmax
from prunepool.serving.types import Inference


class Tensor(NamedTuple):
    """An output tensor.

    Attributes:
        datatype: `FP32`, or `BYTES` for texts.
        shape: [images, classes].
        content: float32 [images, classes], or the texts in row-major order.
    """

    datatype: str
    shape: list[int]
    content: NDArray[np.float32] | list[str]


@dataclass(frozen=True, slots=True)
class EncodedBody:
    """The body of a response.

    Attributes:
        body: the JSON, and the bytes of tensors behind it.
        header_length: length of the JSON in bytes if tensors follow it, else None.
    """

    body: bytes
    header_length: int | None


class ReductionSummary(NamedTuple):
    """The token reduction of all images of a request.

    Attributes:
        reduction_ratio: largest ratio applied to any of them.
        gmacs: billions of multiply-accumulates of all of them.
        reason: the reasons for the ratios, comma-separated, each once.
    """

    reduction_ratio: float
    gmacs: float
    reason: str


def encode(request: InferRequest, view: View, results: Sequence[Inference]) -> EncodedBody:
    """Encode the results of all images of a request as one body.

    Args:
        request: the request.
        view: the model as the request names it.
        results: one for each image, in order.
    """
    described: list[dict[str, object]] = []
    attached: list[bytes] = []
    for wanted, tensor in zip(request.outputs, tensors_of(request, results), strict=True):
        output: dict[str, object] = {
            "name": wanted.name,
            "datatype": tensor.datatype,
            "shape": tensor.shape,
        }
        if wanted.binary:
            data = tensors.bytes_of(tensor.content)
            output["parameters"] = {"binary_data_size": len(data)}
            attached.append(data)
        else:
            output["data"] = tensors.json_of(tensor.content)
        described.append(output)
    document: dict[str, object] = {"model_name": view.name, "model_version": VERSION}
    if request.id is not None:
        document["id"] = request.id
    document |= {"parameters": summary_of(results)._asdict(), "outputs": described}
    text = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return EncodedBody(b"".join([text, *attached]), len(text) if attached else None)


def tensors_of(request: InferRequest, results: Sequence[Inference]) -> list[Tensor]:
    """Make the requested outputs, in order.

    Args:
        request: the request.
        results: one for each image, in order, all of one generation of the model; labels are its own.
    """
    logits = np.stack([result.logits for result in results])
    made = []
    for wanted in request.outputs:
        values = logits if wanted.name == "logits" else np.stack([softmax(row) for row in logits])
        made.append(_tensor(values, wanted, results[0].labels))
    return made


def summary_of(results: Sequence[Inference]) -> ReductionSummary:
    """Sum up the token reduction of all images of a request."""
    reductions = [result.reduction for result in results]
    return ReductionSummary(
        reduction_ratio=max(reduction.applied for reduction in reductions),
        gmacs=sum(reduction.gmacs for reduction in reductions),
        reason=",".join(dict.fromkeys(reduction.reason for reduction in reductions)),
    )


def _tensor(values: NDArray[np.float32], wanted: OutputSpec, labels: Sequence[str]) -> Tensor:
    """Make an output from its values, float32 [images, classes]."""
    if not wanted.classes:
        return Tensor("FP32", list(values.shape), values)
    count = min(wanted.classes, values.shape[1])
    texts = [text for row in values for text in classification(row, labels, count)]
    return Tensor("BYTES", [len(values), count], texts)


def classification(row: NDArray[np.float32], labels: Sequence[str], count: int) -> list[str]:
    """Format the classes with the highest values as `value:index:label`, highest first, ties by index.

    Args:
        row: values, float32 [classes].
        labels: one for each class.
        count: number of classes.
    """
    top = np.argsort(-row, kind="stable")[:count]
    return [f"{_shortest(row[i])}:{i}:{labels[i]}" for i in top]


def _shortest(value: np.float32) -> str:
    """Format with as few digits as identify the float32 value, without an exponent."""
    return np.format_float_positional(value, trim="0")
