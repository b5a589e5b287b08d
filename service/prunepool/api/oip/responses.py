"""The answer to an inference request: JSON, and bytes behind it where they were asked for. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from prunepool.api.oip import tensors
from prunepool.api.oip.requests import InferRequest, Wanted
from prunepool.api.oip.views import VERSION, View
from prunepool.serving.types import Inference, softmax


class Tensor(NamedTuple):
    """An output.

    Attributes:
        datatype: `FP32`, or `BYTES` for texts.
        shape: images first.
        content: all numbers or all texts, row by row.
    """

    datatype: str
    shape: list[int]
    content: NDArray[np.float32] | list[str]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A body.

    Attributes:
        body: the JSON, and the bytes of tensors behind it.
        header_length: bytes of the JSON where others follow it; None where it is alone.
    """

    body: bytes
    header_length: int | None


class Spent(NamedTuple):
    """What was done about tokens, for all images of a request together.

    Attributes:
        reduction_ratio: the largest applied to any of them.
        gmacs: billions of multiply-accumulates for all of them.
        reason: every reason there was for a ratio, with commas between them.
    """

    reduction_ratio: float
    gmacs: float
    reason: str


def encode(request: InferRequest, view: View, answers: Sequence[Inference]) -> Encoded:
    """The answers to all images of a request as one body.

    Args:
        request: what was asked.
        view: of what.
        answers: one for each image, in order.
    """
    described: list[dict[str, object]] = []
    attached: list[bytes] = []
    for wanted, tensor in zip(request.outputs, tensors_of(request, view, answers), strict=True):
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
    document |= {"parameters": spent(answers)._asdict(), "outputs": described}
    text = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return Encoded(b"".join([text, *attached]), len(text) if attached else None)


def tensors_of(request: InferRequest, view: View, answers: Sequence[Inference]) -> list[Tensor]:
    """The outputs that a request wants, in its order.

    Args:
        request: what was asked.
        view: of what.
        answers: one for each image, in order.
    """
    logits = np.stack([answer.logits for answer in answers])
    made = []
    for wanted in request.outputs:
        values = logits if wanted.name == "logits" else np.stack([softmax(row) for row in logits])
        made.append(_tensor(values, wanted, view.info.labels))
    return made


def spent(answers: Sequence[Inference]) -> Spent:
    """What was done about tokens, summed up."""
    done = [answer.reduction for answer in answers]
    return Spent(
        reduction_ratio=max(one.applied for one in done),
        gmacs=sum(one.gmacs for one in done),
        reason=",".join(dict.fromkeys(one.reason for one in done)),
    )


def _tensor(values: NDArray[np.float32], wanted: Wanted, labels: Sequence[str]) -> Tensor:
    """An output, from its numbers [images, classes]."""
    if not wanted.classes:
        return Tensor("FP32", list(values.shape), values)
    count = min(wanted.classes, values.shape[1])
    texts = [text for row in values for text in classification(row, labels, count)]
    return Tensor("BYTES", [len(values), count], texts)


def classification(row: NDArray[np.float32], labels: Sequence[str], count: int) -> list[str]:
    """The likeliest classes as `value:index:label`, the highest value first, equal ones by index.

    Args:
        row: float32 [classes].
        labels: one a class.
        count: how many.
    """
    likeliest = np.argsort(-row, kind="stable")[:count]
    return [f"{_shortest(row[i])}:{i}:{labels[i]}" for i in likeliest]


def _shortest(value: np.float32) -> str:
    """As few digits as tell it from other float32, never with an exponent."""
    return np.format_float_positional(value, trim="0")
