"""What goes into a client and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

from prunepool.errors import PrunepoolError

#: An encoded image, the file it is in, or what gets its bytes when its turn comes.
Image = bytes | Path | Callable[[], bytes]
Ratio = float | Literal["auto"]


class ClassifyOptions(TypedDict, total=False):
    """What a caller may choose; each is left to the service if not given, or None."""

    model: str | None
    reduction_ratio: Ratio | None
    max_reduction_ratio: float | None
    max_accuracy_drop: float | None
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
class SurvivingToken:
    """A patch token that the last block still saw: its patches, and whether they are more than one."""

    patches: tuple[int, ...]
    pooled: bool


@dataclass(frozen=True, slots=True)
class Stage:
    """What one reducing block did: `prune` or `pool`, by which score variance, to which patches."""

    block: int
    action: str
    variance: float
    pruned: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class TokenMap:
    """What became of every patch; patches are numbered row by row from 0."""

    grid: tuple[int, int]
    tokens: tuple[SurvivingToken, ...]
    stages: tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class Classification:
    """The answer for one image."""

    model: str
    predictions: tuple[Prediction, ...]
    reduction: Reduction
    timing_ms: Timing
    batch_size: int
    token_map: TokenMap | None = None


@dataclass(frozen=True, slots=True)
class Classified:
    """One image of many, as it was given, and what became of it.

    Attributes:
        image: the image.
        result: its answer, or why it has none.
    """

    image: Image
    result: Classification | PrunepoolError


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


@dataclass(frozen=True, slots=True)
class Plan:
    """One point of a model's dial."""

    reduction_ratio: float
    blocks: tuple[int, ...]
    removed: tuple[int, ...]
    thresholds: tuple[float, ...]
    tokens: tuple[int, ...]
    gmacs: float
    macs_saved: float


@dataclass(frozen=True, slots=True)
class ModelDetails(Model):
    """A served model in full; `profile` has what was measured along the dial, where anything was."""

    labels: tuple[str, ...]
    plans: tuple[Plan, ...]
    profile: tuple[dict[str, Any], ...] | None


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the service can be asked, and what is missing if not."""

    ready: bool
    missing: tuple[str, ...]


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


class ImageUnreadable(PrunepoolError):
    """The file of an image cannot be read here; nothing was sent."""

    code = "unreadable"
    status = 400
    title = "Image cannot be read"
