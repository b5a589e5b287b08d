"""The façade between the HTTP layer and everything below: images in, logits or a classification out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from prunepool.core.types import RatioSpec, TokenMap
from prunepool.errors import InvalidParameter

#: How many predictions a caller gets who does not say.
DEFAULT_TOP_K = 5

#: Encoded bytes; or pixels as the model takes them: float32 [3, size, size], cropped and normalised.
Image: TypeAlias = bytes | NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Options:
    """What a caller may choose for one image.

    Attributes:
        model: name of a served model, or None for the default.
        reduction_ratio: a ratio, `auto`, or None for the server's setting.
        max_reduction_ratio: with `auto`, never beyond; None for the server's setting.
        top_k: how many predictions; None for 5 (or all classes, if the model has fewer).
        deadline_ms: milliseconds from arrival after which an answer is worthless.
        explain: whether to return the token map.
        max_accuracy_drop: points of accuracy that may be lost by the model's profile: the fastest measured
            plan that keeps it, or with `auto` never beyond that plan. None for no such bound.
    """

    model: str | None = None
    reduction_ratio: float | Literal["auto"] | None = None
    max_reduction_ratio: float | None = None
    top_k: int | None = None
    deadline_ms: float | None = None
    explain: bool = False
    max_accuracy_drop: float | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """One class and its probability."""

    index: int
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Reduction:
    """What was asked of the ratio_spec and what was done.

    Attributes:
        requested: the ratio asked for, or `auto`.
        applied: the ratio done: never more than asked, and never more than the share that really left.
        reason: `requested`, `accuracy` (the caller's `max_accuracy_drop` decided), `escalated` (an unsure
            answer was replaced by the unreduced model's), or `auto:…`.
        tokens: token counts, prefix included, before the first and after each reducing block.
        gmacs: billions of multiply-accumulates spent, on both looks where there were two.
        macs_saved: share saved against the dense model.
    """

    requested: float | Literal["auto"]
    applied: float
    reason: str
    tokens: tuple[int, ...]
    gmacs: float
    macs_saved: float


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds per stage."""

    decode: float
    queue: float
    inference: float
    total: float


@dataclass(frozen=True, slots=True)
class Classification:
    """The answer for one image; `batch` is the number of the batch that it was computed in."""

    model: str
    predictions: tuple[Prediction, ...]
    reduction: Reduction
    timing_ms: Timing
    batch: int
    batch_size: int
    token_map: TokenMap | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Inference:
    """What the model said of one image, before anything is read into it.

    Attributes:
        model: the model's name.
        logits: float32 [classes], all finite.
        reduction: what was asked of the ratio_spec and what was done.
        timing_ms: milliseconds per stage; of a tensor, `decode` is the time that its check took.
        batch: number of the batch it was computed in; images of one batch of a model share it.
        batch_size: images in that batch.
        token_map: if asked for.
    """

    model: str
    logits: NDArray[np.float32]
    reduction: Reduction
    timing_ms: Timing
    batch: int
    batch_size: int
    token_map: TokenMap | None = None


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether requests can be served, and what is missing if not."""

    ready: bool
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlanInfo:
    """One point of a model's ratio_spec."""

    reduction_ratio: float
    blocks: tuple[int, ...]
    removed: tuple[int, ...]
    thresholds: tuple[float, ...]
    tokens: tuple[int, ...]
    gmacs: float
    macs_saved: float
    method: str = "ppt"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a caller may know of a served model.

    Attributes:
        name: its name.
        architecture: timm's name of the architecture.
        input_size: pixels a side.
        labels: one a class.
        max_reduction_ratio: the largest ratio it can do.
        default_reduction_ratio: what `auto` takes where nothing else decides.
        gmacs: of the dense model.
        parameters: how many.
        device: where it runs.
        dtype: what it computes in.
        ready: whether it can serve.
        licence: of the weights.
        mean: of the red, green and blue of training photos, 0 to 1; subtracted by whoever normalises.
        std: what is divided by after that.
        crop_pct: the centre crop's share of the resized image's short side.
        plans: the ratio_spec on a grid of ratios.
        profile: measured figures per ratio, from the manifest; None where none were measured. A point has
            `ratio` and `gmacs`, and what else was measured; `drop`, in points, is what `max_accuracy_drop`
            goes by.
        auto_max_reduction_ratio: `auto` goes no further where neither the server nor the caller sets a bound;
            None: as far as the model can.
    """

    name: str
    architecture: str
    input_size: int
    labels: tuple[str, ...]
    max_reduction_ratio: float
    default_reduction_ratio: float
    gmacs: float
    parameters: int
    device: str
    dtype: str
    ready: bool
    licence: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop_pct: float
    plans: tuple[PlanInfo, ...] = ()
    profile: Sequence[Mapping[str, object]] | None = None
    auto_max_reduction_ratio: float | None = None


class Engine(Protocol):
    """What the HTTP layer needs. `testing.FakeEngine` is one, `LocalEngine` the real one."""

    @property
    def default_model(self) -> str:
        """Name of the model that answers when a request names none."""

    def models(self) -> tuple[ModelInfo, ...]:
        """All served models."""

    def model(self, name: str) -> ModelInfo:
        """One served model.

        Raises:
            ModelNotFound: none of that name is served.
        """

    def readiness(self) -> Readiness:
        """Whether requests can be served now."""

    async def classify(self, image: bytes, options: Options) -> Classification:
        """Classify one encoded image.

        Raises:
            PrunepoolError: anything of the tree but `ModelError`.
            asyncio.CancelledError: the caller went away; its place in the queue is given up.
        """

    async def infer(self, image: Image, options: Options) -> Inference:
        """The logits of one image, encoded or normalised; `top_k` is checked and otherwise left alone.

        Raises:
            InvalidParameter: also for a tensor that is not float32, not of the model's shape, or not finite.
            PrunepoolError: anything of the tree but `ModelError`.
            asyncio.CancelledError: the caller went away; its place in the queue is given up.
        """

    async def start(self) -> None:
        """Load and warm up every model; returns when ready."""

    def begin_drain(self) -> None:
        """Refuse what comes from now on with `Draining`; what was accepted is still answered."""

    async def close(self, timeout_s: float) -> bool:
        """Answer what was accepted within `timeout_s`, then stop; whether all of it was answered.

        Idempotent.
        """


class ModelControl(Protocol):
    """Changes what an engine serves while it serves."""

    def loadable(self) -> tuple[str, ...]:
        """Names of the models that could be served."""

    async def load(self, name: str) -> None:
        """Serve a model, or serve it anew if it has changed; returns when it answers.

        Raises:
            ModelNotFound: none of that name can be loaded.
            PrunepoolError: it cannot be served; what was served is served on.
        """

    async def unload(self, name: str) -> None:
        """Serve a model no longer; returns when all that it had accepted is answered.

        Raises:
            ModelNotFound: none of that name is served.
            RequestError: it is the default model.
        """


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities, float32 [classes], of finite logits of the same shape, computed stably."""
    weights = np.exp(logits - logits.max())  # the largest is 1: nothing overflows
    probabilities: NDArray[np.float32] = weights / weights.sum()
    return probabilities


@dataclass(frozen=True, slots=True)
class ResolvedOptions:
    """Options after validation, with every default filled in.

    Attributes:
        requested: the ratio asked for, by the caller or else by the server's setting.
        ratio_spec: the same as the scheduler takes it.
        top_k: how many predictions.
        deadline_s: seconds from arrival, or None.
        reason: why a ratio that is not `auto` is that one.
    """

    requested: float | Literal["auto"]
    ratio_spec: RatioSpec
    top_k: int
    deadline_s: float | None
    reason: Literal["requested", "accuracy"] = "requested"


def resolve(
    options: Options,
    info: ModelInfo,
    *,
    default_ratio: float | Literal["auto"] = "auto",
    max_ratio: float | None = None,
) -> ResolvedOptions:
    """Validate what a caller chose for a model, and fill in what was left open.

    Args:
        options: the caller's choice.
        info: the model that shall answer.
        default_ratio: the server's ratio for a caller who names none.
        max_ratio: the server's bound on `auto`; a caller can only lower it. Without it the model's holds, for
            callers who set none themselves.

    Raises:
        InvalidParameter: names the parameter, its value and what is allowed.
    """
    limit = info.max_reduction_ratio
    ceiling = limit if max_ratio is None else min(max_ratio, limit)
    bound = options.max_reduction_ratio
    if bound is not None:
        ceiling = min(ceiling, _ratio("max_reduction_ratio", bound, limit))
    if max_ratio is None and bound is None and options.max_accuracy_drop is None:
        usual = info.auto_max_reduction_ratio
        ceiling = limit if usual is None else min(usual, limit)
    requested = options.reduction_ratio
    by_accuracy = options.max_accuracy_drop is not None and requested is None
    if options.max_accuracy_drop is not None:
        ceiling = _ratio_within_drop(options.max_accuracy_drop, requested, info, ceiling)
    if by_accuracy:
        requested = ceiling
    elif requested is None:
        # A caller who names a bound but no ratio means it for whatever the server takes instead.
        requested = (
            min(default_ratio, bound) if default_ratio != "auto" and bound is not None else default_ratio
        )
    if requested != "auto":
        requested = _ratio("reduction_ratio", requested, limit, or_auto=True)
    classes = len(info.labels)
    top_k = min(DEFAULT_TOP_K, classes) if options.top_k is None else options.top_k
    if isinstance(top_k, bool) or not isinstance(top_k, int) or not 1 <= top_k <= classes:
        raise InvalidParameter("top_k", top_k, f"an integer between 1 and {classes}")
    deadline_ms = options.deadline_ms
    if deadline_ms is not None and not (_is_number(deadline_ms) and 0 < deadline_ms < math.inf):
        raise InvalidParameter("deadline_ms", deadline_ms, "a finite number above 0")
    return ResolvedOptions(
        requested=requested,
        ratio_spec=RatioSpec(None if requested == "auto" else requested, ceiling),
        top_k=top_k,
        deadline_s=None if deadline_ms is None else deadline_ms / 1000,
        reason="accuracy" if by_accuracy else "requested",
    )


def _ratio_within_drop(
    drop: float, asked: float | Literal["auto"] | None, info: ModelInfo, ceiling: float
) -> float:
    """The ratio of the fastest measured plan that loses no more than `drop` points; 0 loses none."""
    if not (_is_number(drop) and 0 <= drop < math.inf):
        raise InvalidParameter("max_accuracy_drop", drop, "a finite number of points, 0 or more")
    if asked is not None and asked != "auto":
        limit = f"left out, or go with reduction_ratio=auto, where reduction_ratio is a number ({asked!r})"
        raise InvalidParameter("max_accuracy_drop", drop, limit)
    if not any("drop" in point for point in info.profile or ()):
        limit = f"left out for {info.name}: its profile was not measured (prunepool calibrate does that)"
        raise InvalidParameter("max_accuracy_drop", drop, limit)
    kept = [
        (point, float(ratio), float(gmacs))
        for point in info.profile or ()
        for gmacs, ratio, lost in [(point.get("gmacs"), point.get("ratio"), point.get("drop"))]
        if isinstance(gmacs, float | int) and isinstance(ratio, float | int) and isinstance(lost, float | int)
        if ratio <= ceiling and lost <= drop
    ]
    # The unreduced model is always there, measured or not.
    options = [
        (0.0, info.gmacs, 1.0),
        *((ratio, gmacs, _speedup_on(info.device, p)) for p, ratio, gmacs in kept),
    ]
    # Speeds decide only where all of them are known: a plan without one is not a slow plan.
    if all(speedup is not None for ratio, _, speedup in options if ratio):
        return min((-(speedup or 1.0), ratio) for ratio, _, speedup in options)[1]
    return min((gmacs, ratio) for ratio, gmacs, _ in options)[1]


def _speedup_on(device: str, point: Mapping[str, object]) -> float | None:
    """How much faster than the unreduced model a point's plan was measured to run on such a device."""
    speed = point.get("speed")
    if not isinstance(speed, Mapping) or speed.get("device") != device.partition(":")[0]:
        return None
    speedup = speed.get("speedup")
    return float(speedup) if isinstance(speedup, float | int) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _ratio(parameter: str, value: float, limit: float, *, or_auto: bool = False) -> float:
    """The ratio, if a model that can do `limit` can do it; nan is in no range."""
    if not (_is_number(value) and 0 <= value <= limit + 1e-9):
        # Rounded down, so that the limit that the message names is itself allowed.
        shown = f"a number between 0 and {math.floor(limit * 1e4) / 1e4}"
        raise InvalidParameter(parameter, value, f"auto or {shown}" if or_auto else shown)
    return min(float(value), limit)
