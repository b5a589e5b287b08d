"""What front ends and engines send each other, as msgpack. The whole contract, as plain data.

Times are seconds of the system's monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from prunepool import errors
from prunepool.core.types import Pixels, RatioSpec, Request, Result
from prunepool.errors import PrunepoolError
from prunepool.transport.client import ModelLoad, ModelOffer


class Handshake(msgspec.Struct, tag=True, frozen=True):
    """A front end has connected: the engine forgets whatever it had from it before."""

    frontend: int


class StatusRequest(msgspec.Struct, tag=True, frozen=True):
    """Ask for a `Status`, now."""

    id: int


class Submit(msgspec.Struct, tag=True, frozen=True):
    """Answer one image.

    Attributes:
        id: sequence number, counted up by the front end.
        model: its name.
        generation: the one that options and crop were made for.
        ratio_spec: what the caller asks for, resolved.
        arrival: when the image came.
        deadline: when an answer becomes worthless, or None.
        explain: whether to return a token map.
        attempts: how many devices it was on before.
        shape: of the pixels.
        dtype: of the pixels, uint8 or float32.
        slot: where they are in the front end's shared memory; None: they are the message's second part.
    """

    id: int
    model: str
    generation: str
    ratio_spec: RatioSpec
    arrival: float
    deadline: float | None
    explain: bool
    attempts: int
    shape: tuple[int, ...]
    dtype: str
    slot: int | None

    @property
    def nbytes(self) -> int:
        """Bytes of the pixels."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class Cancel(msgspec.Struct, tag=True, frozen=True):
    """The caller of a request is gone, or another engine can answer it.

    Attributes:
        id: of the request.
        give_back: whether to answer with :class:`Failed`, so that it can be sent to another engine.
    """

    id: int
    give_back: bool = False


class Completed(msgspec.Struct, tag=True, frozen=True):
    """The result of a request, and the load of its model now.

    Attributes:
        id: of the request.
        model: its name.
        result: the answer.
        drain_s: predicted seconds to answer everything accepted.
        last_sequence: the front end's last request that `drain_s` counts; 0: none.
    """

    id: int
    model: str
    result: Result
    drain_s: float
    last_sequence: int = 0


class Failed(msgspec.Struct, tag=True, frozen=True):
    """A request that gets no result.

    Attributes:
        id: of the request.
        error: why.
        attempts: how many devices it was on, counting those before this engine.
        given_back: whether the front end asked for it back.
    """

    id: int
    error: Failure
    attempts: int = 0
    given_back: bool = False


class Failure(msgspec.Struct, frozen=True):
    """An error of the tree."""

    code: str
    detail: str
    extra: dict[str, Any]


class Status(msgspec.Struct, tag=True, frozen=True):
    """The state of an engine, sent by its event loop a few times a second: its heartbeat.

    Attributes:
        default: the model that answers when a request names none.
        loads: by model.
        offers: everything that it serves; None if that has not changed.
        request: the `StatusRequest` that this answers, if any.
        last_sequence: the front end's last request that the loads count; 0: none.
        failures: why models that are to be served are not, by name.
    """

    default: str
    loads: dict[str, ModelLoad]
    offers: tuple[ModelOffer, ...] | None = None
    request: int | None = None
    last_sequence: int = 0
    failures: dict[str, str] = {}


class Unreadable(msgspec.Struct, tag=True, frozen=True):
    """The engine could not read a message of the front end: whatever that asked for is lost."""


ToEngine: TypeAlias = Handshake | StatusRequest | Submit | Cancel
ToFrontend: TypeAlias = Completed | Failed | Status | Unreadable


def _encoded(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.astype("<f4", copy=False).tobytes()
    raise NotImplementedError(f"{type(value)} cannot be sent")


def _decoded(kind: type, value: object) -> object:
    """Logits, the one array in a message, in memory that can be kept; what may be anything stays as it is."""
    if kind is object:
        return value
    if not isinstance(value, bytes):
        raise msgspec.ValidationError(f"logits are bytes, not {type(value).__name__}")
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


def submit_of(number: int, model: str, generation: str, request: Request, slot: int | None) -> Submit:
    """A request, to be sent; its pixels lie in `slot` or go beside it."""
    pixels = request.pixels
    return Submit(
        number,
        model,
        generation,
        request.ratio_spec,
        request.arrival,
        request.deadline,
        request.explain,
        request.attempts,
        pixels.shape,
        pixels.dtype.name,
        slot,
    )


def request_of(submit: Submit, data: bytearray | bytes) -> Request:
    """A request that was sent.

    Args:
        submit: the message.
        data: the bytes of its pixels; a bytearray becomes the pixels' memory.

    Raises:
        ValueError: they are not as many as it says.
    """
    pixels = _pixels(submit, data)
    return Request(
        pixels, submit.ratio_spec, submit.arrival, submit.deadline, submit.explain, submit.attempts
    )


def _pixels(submit: Submit, data: bytearray | bytes) -> Pixels:
    """The pixels of an image, in memory that can be written to."""
    pixels: NDArray[Any] = np.frombuffer(data, submit.dtype).reshape(submit.shape)
    return pixels if pixels.flags.writeable else pixels.copy()
