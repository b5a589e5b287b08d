"""From what the model said to what the caller is told."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from prunepool.core.types import Result
from prunepool.errors import PrunepoolError
from prunepool.serving.served_model import ServedModel
from prunepool.serving.types import (
    Classification,
    Inference,
    Prediction,
    Reduction,
    ResolvedOptions,
    Timing,
    softmax,
)


def inference(model: ServedModel, wanted: ResolvedOptions, done: Result, timing: Timing) -> Inference:
    """The model's answer for one image and how it came about.

    Raises:
        PrunepoolError: a logit that is no finite number.
    """
    outcome = done.outcome
    _check_finite(outcome.logits)
    dense = model.costs.gmacs(0.0)
    return Inference(
        model=model.name,
        logits=outcome.logits,
        reduction=Reduction(
            requested=wanted.requested,
            applied=model.applied(done.ratio),
            reason=wanted.reason if done.reason == "requested" else done.reason,
            tokens=outcome.tokens,
            gmacs=outcome.gmacs,
            macs_saved=max(0.0, 1 - outcome.gmacs / dense),
        ),
        timing_ms=timing,
        batch=done.batch,
        batch_size=done.batch_size,
        token_map=outcome.token_map,
    )


def classification(answer: Inference, labels: Sequence[str], count: int) -> Classification:
    """The answer for one image with the `count` likeliest of its classes."""
    return Classification(
        model=answer.model,
        predictions=best(answer.logits, labels, count),
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
