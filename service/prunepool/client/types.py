"""What goes into a client and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

from prunepool.errors import PrunepoolError

#: An encoded image, or the file it is in.
Image = bytes | Path
Ratio = float | Literal["auto"]


class ClassifyOptions(TypedDict, total=False):
    """What a caller may choose; each is left to the service if not given, or None."""

    model: str | None
    reduction_ratio: Ratio | None
    max_reduction_ratio: float | None
    top_k: int | None
    deadline_ms: float | None
    explain: bool


@dataclass(frozen=True, slots=True)
class Prediction:
    """One class and its probability."""

    index: int
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Reduction:
    """What was asked of the dial and what was done."""

    requested: Ratio
    applied: float
    reason: str
    tokens: tuple[int, ...]
    gmacs: float
    macs_saved: float


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds per stage, on the server."""

    decode: float
    queue: float
    inference: float
    total: float


@dataclass(frozen=True, slots=True)
class Classification:
    """The answer for one image."""

    model: str
    predictions: tuple[Prediction, ...]
    reduction: Reduction
    timing_ms: Timing
    batch_size: int
    token_map: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A served model, as `GET /models` lists it."""

    name: str
    architecture: str
    input_size: int
    classes: int
    max_reduction_ratio: float
    default_reduction_ratio: float
    gmacs: float
    parameters: int
    device: str
    dtype: str
    ready: bool
    licence: str


class ServerUnreachable(PrunepoolError):
    """No answer: no connection, or it broke, or took too long."""

    code = "server_unreachable"
    status = 503
    title = "Server unreachable"


class UnexpectedAnswer(PrunepoolError):
    """An answer that no version of this service that the client knows would give."""

    code = "unexpected_answer"
    status = 502
    title = "Unexpected answer"
