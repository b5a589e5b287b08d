"""What callers may choose for an image: the options, validated and resolved once, here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from prunepool.core.model_info import ModelInfo
from prunepool.core.types import RatioSpec
from prunepool.errors import InvalidParameter

#: How many predictions a caller gets who does not say.
DEFAULT_TOP_K = 5


@dataclass(frozen=True, slots=True)
class InferenceOptions:
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
    options: InferenceOptions,
    info: ModelInfo,
    *,
    default_ratio: float | Literal["auto"] = "auto",
    max_ratio: float | None = None,
) -> ResolvedOptions:
    """Validate what a caller chose for a model, and fill in what was left open.

    Args:
        options: the caller's choice.
        info: the model that answers.
        default_ratio: the server's ratio for a caller who names none.
        max_ratio: the server's bound on `auto`; a caller can only lower it. Without it the model's holds, for
            callers who set none themselves.

    Raises:
        InvalidParameter: names the parameter, its value and what is allowed.
    """
    limit = info.max_reduction_ratio
    bound = options.max_reduction_ratio
    if bound is None and options.max_accuracy_drop is None:
        ceiling = info.auto_limit(max_ratio)
    else:
        ceiling = limit if max_ratio is None else min(max_ratio, limit)
        if bound is not None:
            ceiling = min(ceiling, _ratio("max_reduction_ratio", bound, limit))
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
        if bound is not None and requested > bound:
            at_most = f"auto or at most max_reduction_ratio ({bound:g}), which the request gives too"
            raise InvalidParameter("reduction_ratio", requested, at_most)
    classes = len(info.labels)
    top_k = min(DEFAULT_TOP_K, classes) if options.top_k is None else options.top_k
    # A model without classes has no predictions to count; whether it can be asked for any is not decided here.
    if classes and (isinstance(top_k, bool) or not isinstance(top_k, int) or not 1 <= top_k <= classes):
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
    return min(float(value), limit) + 0.0  # 0 of -0, which the answer would repeat


def check_default_ratio(
    info: ModelInfo, *, default_ratio: float | Literal["auto"], max_ratio: float | None
) -> None:
    """Refuse a setting that would fail every request to a model.

    Raises:
        InvalidParameter: `default_reduction_ratio` is more than the model can do.
    """
    try:
        resolve(InferenceOptions(), info, default_ratio=default_ratio, max_ratio=max_ratio)
    except InvalidParameter as error:
        limit = f"{error.extra['limit']}, for {info.name}"
        raise InvalidParameter("default_reduction_ratio", error.extra["value"], limit) from None
