"""The types that clients take and return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

from prunepool.errors import PrunepoolError

#: An encoded image, its file, or a function that returns its bytes.
Image = bytes | Path | Callable[[], bytes]
Ratio = float | Literal["auto"]


class ClassifyOptions(TypedDict, total=False):
    """The options of a request; the service chooses those that are missing or None."""

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
    """The reduction that was requested and the one that was applied."""

    requested: Ratio
    applied: float
    reason: str
    tokens: tuple[int, ...]
    gmacs: float
    macs_saved: float


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds in each stage on the server."""

    decode: float
    queue: float
    inference: float
    total: float


@dataclass(frozen=True, slots=True)
class SurvivingToken:
    """A patch token left after the last reducing block: its patches, and whether there are several."""

    patches: tuple[int, ...]
    pooled: bool


@dataclass(frozen=True, slots=True)
class Stage:
    """The effect of one reducing block: `prune` or `pool`, the score variance, and the patches."""

    block: int
    action: str
    variance: float
    pruned: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class TokenMap:
    """Which patches were pruned or pooled, and where; patches are numbered row by row from 0."""

    grid: tuple[int, int]
    tokens: tuple[SurvivingToken, ...]
    stages: tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class Classification:
    """The classification of one image."""

    model: str
    predictions: tuple[Prediction, ...]
    reduction: Reduction
    timing_ms: Timing
    batch_size: int
    token_map: TokenMap | None = None


@dataclass(frozen=True, slots=True)
class Classified:
    """An image of `classify_many` and its result.

    Attributes:
        image: the image as it was passed.
        result: its classification, or its error.
    """

    image: Image
    result: Classification | PrunepoolError


@dataclass(frozen=True, slots=True)
class Model:
    """A served model, as `GET /models` lists it.

    Attributes:
        default_reduction_ratio: the model's own ratio, which `classify_many` takes unless told otherwise.
        requested_by_default: what a request that names no ratio asks for.
    """

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
    requested_by_default: Ratio = field(default="auto", kw_only=True)


@dataclass(frozen=True, slots=True)
class Plan:
    """A reduction plan of a model."""

    reduction_ratio: float
    blocks: tuple[int, ...]
    removed: tuple[int, ...]
    thresholds: tuple[float, ...]
    tokens: tuple[int, ...]
    gmacs: float
    macs_saved: float


@dataclass(frozen=True, slots=True)
class ModelDetails(Model):
    """A served model in full; `profile` holds the figures measured at each ratio, if any."""

    labels: tuple[str, ...]
    plans: tuple[Plan, ...]
    profile: tuple[dict[str, Any], ...] | None


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the service is ready, and what is missing if not."""

    ready: bool
    missing: tuple[str, ...]


class ServerUnreachable(PrunepoolError):
    """There was no response: the connection failed, or the response took too long."""

    code = "server_unreachable"
    status = 503
    title = "Server unreachable"


class UnexpectedAnswer(PrunepoolError):
    """The response is not one of this service, or of a version that the client does not know."""

    code = "unexpected_answer"
    status = 502
    title = "Unexpected answer"


class ImageUnreadable(PrunepoolError):
    """The image's file cannot be read, so nothing was sent."""

    code = "unreadable"
    status = 400
    title = "Image cannot be read"
