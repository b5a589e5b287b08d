"""Run a model over images at many plans; the blocks that the plans share are computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch

from prunepool.lab.images import Crops
from prunepool.lab.journal import Journal, key_of
from prunepool.lab.model_outputs import ModelOutputs
from prunepool.models.loaded_model import LoadedModel
from prunepool.reduction.plan import DENSE, ReductionPlan


def measure(
    model: LoadedModel,
    batches: Iterable[Crops],
    plans: Sequence[ReductionPlan],
    *,
    journal: Journal | None = None,
    advance: Callable[[int], object] = lambda count: None,
) -> dict[ReductionPlan, ModelOutputs]:
    """A model's outputs at each of several plans, in the order of the images.

    Args:
        model: the model to run.
        batches: the images.
        plans: plans to measure; equal ones are computed once.
        journal: earlier measurements; new ones are added to it.
        advance: called with the number of (image, plan) pairs that were completed.
    """
    journal = Journal(b"", None) if journal is None else journal
    wanted = list(dict.fromkeys(plans))
    parts: dict[ReductionPlan, list[ModelOutputs]] = {plan: [] for plan in wanted}
    for batch in batches:
        keys = {plan: key_of(model, plan, batch.digest) for plan in wanted}
        missing = [plan for plan in wanted if journal.get(keys[plan]) is None]
        count = len(batch.pixels)
        advance(count * (len(wanted) - len(missing)))
        if missing:
            for plan, answers in _computed(model, batch, missing):
                journal.put(keys[plan], answers)
                advance(count)
        for plan in wanted:
            answers_of = journal.get(keys[plan])
            assert answers_of is not None
            parts[plan].append(answers_of)
    return {plan: ModelOutputs.join(answers) for plan, answers in parts.items()}


@torch.inference_mode()
def _computed(
    model: LoadedModel, batch: Crops, plans: Sequence[ReductionPlan]
) -> Iterator[tuple[ReductionPlan, ModelOutputs]]:
    count = len(batch.pixels)
    tokens = model.vit.embed(model.normalise(torch.from_numpy(batch.pixels).to(model.device)))
    # The dense pass also yields the tokens that each plan starts from.
    hidden = {}
    block = 0
    for start in sorted({start_of(plan) for plan in plans if not plan.dense}):
        tokens = model.vit.advance(tokens, block, start)
        hidden[start], block = tokens, start
    dense = model.vit.run(tokens, [(DENSE, count)], block).logits
    for plan in plans:
        logits = dense
        if not plan.dense:
            start = start_of(plan)
            logits = model.vit.run(hidden[start], [(plan, count)], start).logits
        yield plan, ModelOutputs.from_logits(logits, dense, batch.labels)


def start_of(plan: ReductionPlan) -> int:
    """The first block at which a plan that is not dense reduces."""
    return next(block for block, count in zip(plan.blocks, plan.removed, strict=True) if count)
