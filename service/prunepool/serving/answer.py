"""From a core's result to what the caller is told."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from prunepool.core.logits import softmax
from prunepool.core.model_info import ModelInfo
from prunepool.core.types import Result
from prunepool.errors import PrunepoolError
from prunepool.serving.options import ResolvedOptions
from prunepool.serving.types import Classification, Inference, Prediction, Reduction, Timing


def inference(info: ModelInfo, wanted: ResolvedOptions, result: Result, timing: Timing) -> Inference:
    """The model's answer for one image and how it came about.

    Raises:
        PrunepoolError: a logit is not finite.
    """
    output = result.output
    _check_finite(output.logits)
    return Inference(
        model=info.name,
        logits=output.logits,
        reduction=Reduction(
            requested=wanted.requested,
            applied=result.applied,
            reason=wanted.reason if result.reason == "requested" else result.reason,
            tokens=output.tokens,
            gmacs=output.gmacs,
            macs_saved=max(0.0, 1 - output.gmacs / info.gmacs),
        ),
        timing_ms=timing,
        batch=result.batch_id,
        batch_size=result.batch_size,
        token_map=output.token_map,
        labels=info.labels,
        generation=result.generation,
    )


def classification(answer: Inference, count: int) -> Classification:
    """The answer for one image with the `count` likeliest of its classes."""
    return Classification(
        model=answer.model,
        predictions=best(answer.logits, answer.labels, count),
        reduction=answer.reduction,
        timing_ms=answer.timing_ms,
        batch=answer.batch,
        batch_size=answer.batch_size,
        token_map=answer.token_map,
    )


def best(logits: NDArray[np.float32], labels: Sequence[str], count: int) -> tuple[Prediction, ...]:
    """The classes of highest probability.

    Args:
        logits: float32 [classes].
        labels: one a class.
        count: how many, 1 … classes.

    Returns:
        `count` predictions, the likeliest first, equal ones by index; scores are the softmax over all
        classes in float32.

    Raises:
        PrunepoolError: a logit that is no finite number, of which no probability can be made.
    """
    _check_finite(logits)
    scores = softmax(logits)
    least = np.partition(logits, -count)[-count]
    candidates = np.flatnonzero(logits >= least)  # more than `count` if some are equal
    order = candidates[np.argsort(-logits[candidates], kind="stable")][:count]
    return tuple(Prediction(int(i), labels[i], float(scores[i])) for i in order)


def _check_finite(logits: NDArray[np.float32]) -> None:
    if not np.isfinite(logits).all():
        raise PrunepoolError("the model's answer holds numbers that are not finite")
