"""The whole contract between requests, batcher, scheduler, worker and backend, as plain data.

Data flow::

    Request ──submit──▶ Scheduler ──add──▶ Batcher ──next_batch──▶ Batch ──▶ Worker ──▶ Backend
       ▲                                                                                  │
       └────────────────── Result ◀── PendingRequests ◀── BatchReport ◀── list[Output] ◀──┘

Times are seconds of one monotonic clock that is passed in. No torch, no HTTP, no clock here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

#: One image of the model's size: uint8 RGB [height, width, 3], already resized and cropped; or float32
#: [3, height, width], which a caller has normalised as well. A batch may hold both kinds.
Pixels = NDArray[np.uint8] | NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class RatioSpec:
    """What a request says about tokens.

    Attributes:
        requested: the reduction ratio asked for, or None for `auto`.
        maximum: with `auto`, the largest ratio that may be applied.
    """

    requested: float | None
    maximum: float

    @property
    def largest(self) -> float:
        """The largest ratio that may be applied."""
        return self.maximum if self.requested is None else self.requested


class DeviceMark(Protocol):
    """Shows other processes that a device has a request; called from the thread that owns the device."""

    def set(self) -> None:
        """A device is about to run it."""

    def clear(self) -> None:
        """It has run it, and lives."""


@dataclass(eq=False, slots=True)
class Request:
    """One image waiting for its answer; compared by identity.

    Attributes:
        pixels: the decoded crop, or what a caller made of it.
        ratio_spec: what it asks for.
        arrival: when it was accepted.
        deadline: when an answer becomes worthless, or None.
        explain: whether the result must have a token map.
        attempts: how many workers or processes died while they ran it; after the first it runs in a batch alone.
        mark: set while a device runs it, and left set if the device fails; None if nobody looks.
    """

    pixels: Pixels
    ratio_spec: RatioSpec
    arrival: float
    deadline: float | None = None
    explain: bool = False
    attempts: int = 0
    mark: DeviceMark | None = None


@dataclass(frozen=True, slots=True)
class BatchItem:
    """A request with the ratio it will be run at.

    Attributes:
        request: the request.
        ratio: the reduction ratio applied.
        reason: why that one: `requested`, `auto:default`, `auto:idle`, `auto:load`, `auto:deadline`; or
            `warm-up`, for an image that nobody sent.
    """

    request: Request
    ratio: float
    reason: str


@dataclass(frozen=True, slots=True)
class Batch:
    """What one run of the model computes.

    Attributes:
        items: the requests, those of one ratio next to each other.
        gmacs: predicted cost.
    """

    items: tuple[BatchItem, ...]
    gmacs: float

    @property
    def ratios(self) -> tuple[float, ...]:
        """The applied ratio of every request, in batch order."""
        return tuple(item.ratio for item in self.items)


@dataclass(frozen=True, slots=True)
class TokenMap:
    """What became of every patch of one image.

    Attributes:
        grid: rows and columns of patches.
        tokens: for each surviving patch token, the patches (row-major indices) that it stands for.
        stages: for each reducing block: its index, whether this image was pruned or pooled there, the score
            variance, the patches that left by pruning, and the groups of patches after it.
    """

    grid: tuple[int, int]
    tokens: tuple[tuple[int, ...], ...]
    stages: tuple[StageMap, ...]


@dataclass(frozen=True, slots=True)
class StageMap:
    """What one reducing block did to one image."""

    block: int
    action: str
    variance: float
    pruned: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Output:
    """What the model said of one image.

    Attributes:
        logits: float32 [classes].
        tokens: token counts before the first and after each reducing block, prefix included.
        gmacs: what it cost.
        pruned: patch tokens pruned.
        pooled: patch tokens merged into others.
        token_map: if asked for.
        graph_replayed: whether the device replayed a captured CUDA graph for it; else it ran eagerly.
    """

    logits: NDArray[np.float32]
    tokens: tuple[int, ...]
    gmacs: float
    pruned: int = 0
    pooled: int = 0
    token_map: TokenMap | None = None
    graph_replayed: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """The answer to one request: the model's output and how it came about.

    Attributes:
        output: what the model gave.
        generation: of the model that computed it. Labels and preprocessing of another one do not fit it.
        ratio: the reduction ratio it ran at.
        applied: the share of patch tokens that this ratio really removes, never more.
        reason: why that ratio.
        batch_id: of its batch, unique among all processes of a server; images of one batch share it.
        batch_size: images in its batch.
        queue_s: seconds from arrival to the start of its batch.
        inference_s: seconds its batch ran.
    """

    output: Output
    generation: str
    ratio: float
    applied: float
    reason: str
    batch_id: int
    batch_size: int
    queue_s: float
    inference_s: float


class Costs(Protocol):
    """What a ratio costs, known before anything runs."""

    @property
    def max_ratio(self) -> float:
        """The largest ratio the model can do."""

    def gmacs(self, ratio: float) -> float:
        """Billions of multiply-accumulates for one image at this ratio."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one model's queue and batches.

    Attributes:
        max_batch_size: images a batch.
        max_batch_s: predicted seconds a batch; a single image may exceed it.
        max_wait_s: the batching window: how long an idle device waits for more images, from the oldest arrival.
        max_queue_requests: requests accepted and not yet answered.
        max_queue_s: predicted seconds to answer all that is accepted, at the largest ratios allowed.
        target_s: the time within which `auto` tries to answer every request; inf: it does not try.
        only_what_pays: whether batches grow no further than images get cheaper, as timed at warm-up.
    """

    max_batch_size: int = 32
    max_batch_s: float = math.inf
    max_wait_s: float = 0.0
    max_queue_requests: int = 512
    max_queue_s: float = math.inf
    target_s: float = math.inf
    only_what_pays: bool = False
