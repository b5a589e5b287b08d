"""From what a forward pass gave for a batch to the output of each image. It needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunepool.core.types import BatchItem, Output
from prunepool.models.dial import ModelDial
from prunepool.models.explain import Stage, token_map
from prunepool.reduction.plan import ReductionPlan


def outputs_of(
    items: Sequence[BatchItem],
    plans: Sequence[ReductionPlan],
    logits: NDArray[np.float32],
    stages: Sequence[Stage],
    decisions: Sequence[NDArray[np.bool_]],
    dial: ModelDial,
) -> list[Output]:
    """The output of each image of a batch.

    Args:
        items: of the batch.
        plans: one for each of them.
        logits: float32 [B, classes].
        stages: every reduction that was carried out.
        decisions: which images each of them pruned, bool, in host memory.
        dial: of the model.
    """
    pruned, pooled = _tokens_removed(len(items), stages, decisions)
    return [
        Output(
            logits=logits[i],
            tokens=dial.tokens(plan),
            gmacs=dial.geometry.gmacs(plan),
            pruned=int(pruned[i]),
            pooled=int(pooled[i]),
            token_map=token_map(stages, i, dial.geometry) if item.request.explain else None,
        )
        for i, (item, plan) in enumerate(zip(items, plans, strict=True))
    ]


def _tokens_removed(
    images: int, stages: Sequence[Stage], decisions: Sequence[NDArray[np.bool_]]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Tokens pruned and tokens pooled of each image, int64 [B] each."""
    pruned, pooled = np.zeros(images, np.int64), np.zeros(images, np.int64)
    for stage, decision in zip(stages, decisions, strict=True):
        rows = slice(stage.first, stage.first + len(decision))
        removed = stage.indices[1].shape[1]
        pruned[rows] += np.where(decision, removed, stage.dropped)
        pooled[rows] += np.where(decision, 0, removed - stage.dropped)
    return pruned, pooled
