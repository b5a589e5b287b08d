"""What front ends and engines say to each other, as msgpack. The whole contract, as plain data.

Times are seconds of the system's monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from prunepool import errors
from prunepool.errors import PrunepoolError
from prunepool.imaging import Preprocess
from prunepool.serving.types import Inference, ModelInfo, Options


class Handshake(msgspec.Struct, tag=True, frozen=True):
    """A front end has connected: whatever the engine had from it before is forgotten."""

    frontend: int


class StatusRequest(msgspec.Struct, tag=True, frozen=True):
    """A front end wants to know how things are, now."""

    id: int


class Ask(msgspec.Struct, tag=True, frozen=True):
    """Answer one image.

    Attributes:
        id: counted up by the front end.
        options: what the caller chose; the model is named.
        arrival: when the image came.
        decode_s: seconds that decoding took.
        shape: of the pixels.
        dtype: of the pixels, uint8 or float32.
        slot: where they are in the front end's shared memory; None: they are the message's second part.
    """

    id: int
    options: Options
    arrival: float
    decode_s: float
    shape: tuple[int, ...]
    dtype: str
    slot: int | None

    @property
    def nbytes(self) -> int:
        """How long the pixels are."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class Cancel(msgspec.Struct, tag=True, frozen=True):
    """Nobody waits for this answer any more."""

    id: int


class Answer(msgspec.Struct, tag=True, frozen=True):
    """An image's answer, and how long all that waits here will take now.

    Attributes:
        id: of the question.
        inference: the answer.
        drain_s: predicted seconds to answer everything accepted.
        heard: the front end's last question that `drain_s` counts; 0: none.
    """

    id: int
    inference: Inference
    drain_s: float
    heard: int = 0


class Failed(msgspec.Struct, tag=True, frozen=True):
    """An image gets no answer, and why."""

    id: int
    error: Failure


class Failure(msgspec.Struct, frozen=True):
    """An error of the tree."""

    code: str
    detail: str
    extra: dict[str, Any]


class Offer(msgspec.Struct, frozen=True):
    """A model that an engine serves, as far as it does not change by the second."""

    info: ModelInfo
    preprocess: Preprocess


class Load(msgspec.Struct, frozen=True):
    """How a model is doing.

    Attributes:
        missing: why it takes no request, in words; None if it does.
        drain_s: predicted seconds to answer everything accepted.
        image_s: predicted seconds for one image by itself.
    """

    missing: str | None
    drain_s: float
    image_s: float


class State(msgspec.Struct, tag=True, frozen=True):
    """How an engine is doing; sent a few times a second.

    Attributes:
        default: the model that answers when a request names none.
        loads: by model.
        offers: everything that it serves; None if that is as it was.
        look: which `StatusRequest` this answers, if any.
        heard: the front end's last question that the loads count; 0: none.
    """

    default: str
    loads: dict[str, Load]
    offers: tuple[Offer, ...] | None = None
    look: int | None = None
    heard: int = 0


ToEngine: TypeAlias = Handshake | StatusRequest | Ask | Cancel
ToFrontend: TypeAlias = Answer | Failed | State


def _encoded(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.astype("<f4", copy=False).tobytes()
    raise NotImplementedError(f"{type(value)} cannot be sent")


def _decoded(kind: type, value: object) -> object:
    """Logits, the one array in a message, in memory that can be kept; what may be anything stays as it is."""
    if kind is object:
        return value
    assert isinstance(value, bytes)
    return np.frombuffer(value, "<f4").astype(np.float32, copy=False)


encode = msgspec.msgpack.Encoder(enc_hook=_encoded).encode
decode_for_engine = msgspec.msgpack.Decoder(ToEngine).decode
decode_for_frontend = msgspec.msgpack.Decoder(ToFrontend, dec_hook=_decoded).decode

_BY_CODE: Mapping[str, type[PrunepoolError]] = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, PrunepoolError)
}


def failure_of(error: PrunepoolError) -> Failure:
    """An error, to be sent."""
    return Failure(error.code, error.detail, dict(error.extra))


def error_of(failure: Failure) -> PrunepoolError:
    """An error that was sent; of the class that its code belongs to, or the root for one that has none."""
    kind = _BY_CODE.get(failure.code, PrunepoolError)
    error = kind.__new__(kind, failure.detail)
    PrunepoolError.__init__(error, failure.detail, **failure.extra)
    for name, value in failure.extra.items():  # what its constructor would have kept
        setattr(error, name, value)
    return error


def pixels_of(ask: Ask, data: memoryview | bytes) -> NDArray[Any]:
    """The pixels of an image, in memory of their own.

    Args:
        ask: says what they are.
        data: their bytes.
    """
    return np.frombuffer(data, ask.dtype).reshape(ask.shape).copy()


def offers_differ(before: Sequence[Offer] | None, after: Sequence[Offer]) -> bool:
    """Whether a front end that knows some offers must be told others."""
    return before is None or tuple(before) != tuple(after)
