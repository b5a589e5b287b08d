"""Time the plans of a dial against the dense model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from prunepool.lab.timing import take_turns
from prunepool.models.dial import plan_of
from prunepool.models.loaded_model import LoadedModel
from prunepool.reduction.plan import DENSE, ReductionPlan
from prunepool.store import ProfilePoint, Speed


@torch.inference_mode()
def time_plans(
    model: LoadedModel, plans: Sequence[ReductionPlan], *, rounds: int, batch: int = 32
) -> dict[ReductionPlan, Speed]:
    """The speedup of each plan over the dense model; all of them alternate.

    Args:
        model: the model to time.
        plans: the plans to time.
        rounds: timings of each; 0 for none.
        batch: batch size.
    """
    if not rounds:
        return {}
    size = model.manifest.input_size
    noise = torch.randn((batch, 3, size, size), generator=torch.Generator().manual_seed(0))
    images = noise.to(model.device, model.dtype)
    candidates: dict[str, Callable[[], object]] = {
        str(i): _run(model, images, plan) for i, plan in enumerate([DENSE, *plans])
    }
    wait = torch.cuda.synchronize if model.device.type == "cuda" else lambda: None
    samples = take_turns(candidates, rounds, wait=wait)
    dense = samples["0"].median
    dtype = str(model.dtype).removeprefix("torch.")
    return {
        plan: Speed(
            speedup=round(dense / samples[str(i)].median, 3),
            device=model.device.type,
            dtype=dtype,
            batch=batch,
        )
        for i, plan in enumerate(plans, start=1)
    }


def timed(model: LoadedModel, points: Sequence[ProfilePoint], *, rounds: int) -> tuple[ProfilePoint, ...]:
    """The points of a profile with the speed of their plans on this machine; points without a plan are
    unchanged.

    Args:
        model: the model to time.
        points: the points of its profile.
        rounds: timings of each, at least 1.
    """
    plans = [plan_of(point) if point.removed else None for point in points]
    speeds = time_plans(model, [plan for plan in plans if plan is not None], rounds=rounds)
    return tuple(
        point if plan is None else point.model_copy(update={"speed": speeds[plan]})
        for point, plan in zip(points, plans, strict=True)
    )


def _run(model: LoadedModel, images: torch.Tensor, plan: ReductionPlan) -> Callable[[], object]:
    return lambda: model.vit(images, [(plan, len(images))])
