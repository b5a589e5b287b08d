"""A trial of OpenVINO's passes before they are used: they must give PyTorch's answers, and be faster.

A conversion is right or wrong, so it is compared in float32, where every photo must agree. In a narrower dtype
rounding alone turns some choices between tokens; there a pass must be no further from float32 than PyTorch is.
"""

from __future__ import annotations

import copy
import logging
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from prunepool.backends.dynamic_pass import PlanFamily
from prunepool.backends.openvino_cache import PassCache
from prunepool.backends.openvino_pass import OpenVinoPass
from prunepool.backends.photos import sample_photos
from prunepool.backends.registry import Decisions
from prunepool.errors import ConversionInvalid, ConversionNotKept, PrunepoolError
from prunepool.models.loaded_model import LoadedModel
from prunepool.models.vit import Forward, ReducingViT
from prunepool.reduction.methods import METHODS
from prunepool.reduction.plan import DENSE, ReductionPlan

log = logging.getLogger(__name__)

#: How far a logit may be from PyTorch's, in shares of the largest; rounding in another order gives some 1e-6.
_TOLERANCE = 1e-3

#: In a narrower dtype: how many times as far from float32 as PyTorch's own answers a pass may be.
_TIMES_AS_FAR = 2.0

#: Images of the larger batch that is timed; what is larger still goes in parts of so many.
_SEVERAL = 8


class OpenVinoPasses:
    """Which batches OpenVINO runs.

    Args:
        tried: passes, each with the number of images up to which it is faster than PyTorch.
    """

    def __init__(self, tried: Sequence[tuple[OpenVinoPass, int]] = ()) -> None:
        self._tried = tuple(tried)

    def get(self, plan: ReductionPlan, images: int) -> Callable[[Tensor], Forward] | None:
        """What runs so many images of one plan; None where PyTorch does."""
        for openvino, most in self._tried:
            if images <= most and openvino.runs(plan):
                return partial(openvino, plan=plan)
        return None


def passes_for(
    model: LoadedModel, cache: PassCache, max_batch_size: int, decisions: Decisions
) -> OpenVinoPasses:
    """OpenVINO's passes for all plans of a model, for batches in which they are faster.

    Where a pass finds no room on the disk, PyTorch runs all batches. So it does if a process cannot have a pass
    that one before it had: the successor of an engine serves, whatever became of the folder.

    Args:
        model: on a CPU.
        cache: where passes are kept.
        max_batch_size: images in the largest batch.
        decisions: `openvino` maps each method to the number of images up to which its pass is used. What is
            there is not tried again; what is not is added.

    Raises:
        ConversionInvalid: there is no OpenVINO, or its answers are wrong.
        InvalidParameter: the cache's folder cannot be written to.
    """
    size, patches = model.manifest.input_size, model.geometry.patches
    plans = [model.plan(min(removed / patches, model.max_ratio)) for removed in range(patches + 1)]
    decided: dict[str, int] = dict(decisions.get("openvino", {}))
    known = "openvino" in decisions
    tried = []
    for family in PlanFamily.all_of(plans):
        if known and not decided.get(family.method):
            continue
        try:
            openvino = cache.get(model.vit, family, size)
            if not known:
                decided[family.method] = _trial(model, openvino, cache, family, plans, max_batch_size)
        except PrunepoolError as error:
            if not known and not isinstance(error, ConversionNotKept):
                raise
            log.warning("OpenVINO is not used, PyTorch runs all batches: %s", error.detail)
            decisions["openvino"] = {}
            return OpenVinoPasses()
        if decided[family.method]:
            tried.append((openvino, decided[family.method]))
    decisions["openvino"] = decided
    return OpenVinoPasses(tried)


def _trial(
    model: LoadedModel,
    openvino: OpenVinoPass,
    cache: PassCache,
    family: PlanFamily,
    plans: Sequence[ReductionPlan],
    max_batch_size: int,
) -> int:
    """The number of images up to which a pass is used; 0: it is not."""
    network, size = model.vit, model.manifest.input_size
    images = model.normalise(torch.from_numpy(sample_photos(size)))
    own = [plan for plan in dict.fromkeys(plans) if not plan.dense and openvino.runs(plan)]
    middle = own[len(own) // 2] if own else DENSE
    ends = (DENSE, *own[:1], *own[-1:])
    if network.dtype == torch.float32:
        verify(network, openvino, (*ends, split_plan(network, middle, images)), images)
    else:
        exact, photos = copy.deepcopy(network).float(), images.float()
        exact_pass = cache.get(network, family, size, dtype=torch.float32)
        verify(exact, exact_pass, (*ends, split_plan(exact, middle, photos)), photos)
        if not all(as_close(network, exact, openvino, plan, images) for plan in (middle, *ends)):
            return 0
    if not faster(network, openvino, middle, images[:1]):
        return 0
    several = min(_SEVERAL, max_batch_size)
    return max_batch_size if faster(network, openvino, middle, images[:several], rounds=3) else 1


@torch.inference_mode()
def split_plan(network: ReducingViT, plan: ReductionPlan, images: Tensor) -> ReductionPlan:
    """The plan with thresholds that have half of these images pruned and half pooled at every stage.

    A plan whose method reads no thresholds stays as it is.
    """
    if not METHODS[plan.method].uses_threshold:
        return plan
    thresholds = list(plan.thresholds)
    for i, block in enumerate(plan.blocks):
        stages = network(images, [(replace(plan, thresholds=tuple(thresholds)), len(images))]).stages
        variances = torch.cat([stage.variance for stage in stages if stage.block == block]).sort().values
        middle = len(variances) // 2
        if middle:
            thresholds[i] = float(variances[middle - 1 : middle + 1].mean())
    return replace(plan, thresholds=tuple(thresholds))


@torch.inference_mode()
def verify(
    network: ReducingViT, openvino: OpenVinoPass, plans: Iterable[ReductionPlan], images: Tensor
) -> None:
    """Compare a pass with PyTorch in float32, image by image.

    Args:
        network: float32.
        openvino: computes in float32.
        plans: to compare.
        images: normalised, float32 [B, 3, H, W].

    Raises:
        ConversionInvalid: on any image logits differ by more than rounding explains.
    """
    for plan in plans:
        expected = network(images, [(plan, len(images))]).logits
        # Images run side by side, where there are several streams, and one after the other.
        for found in (openvino(images, plan).logits, openvino.alone(images, plan).logits):
            worst = _difference(found, expected).max().item()
            if not worst <= _TOLERANCE:
                name = plan.removed or "no token"
                raise ConversionInvalid(
                    f"OpenVINO's logits with {name} removed are off by {worst:.3g}; at most {_TOLERANCE}"
                )


@torch.inference_mode()
def as_close(
    network: ReducingViT, exact: ReducingViT, openvino: OpenVinoPass, plan: ReductionPlan, images: Tensor
) -> bool:
    """Whether a pass in a narrower dtype is about as close to float32 as PyTorch; else a warning is logged.

    Args:
        network: in that dtype.
        exact: the same weights in float32.
        openvino: computes in that dtype.
        plan: of all images.
        images: normalised, [B, 3, H, W] in that dtype.
    """
    groups = [(plan, len(images))]
    expected = exact(images.float(), groups).logits
    ways = (openvino(images, plan).logits, openvino.alone(images, plan).logits)
    theirs = max(_difference(found, expected).median().item() for found in ways)
    ours = _difference(network(images, groups).logits, expected).median().item()
    if theirs <= _TOLERANCE + _TIMES_AS_FAR * ours:
        return True
    log.warning(
        "OpenVINO is not used: its logits are off from float32 by %.3g, PyTorch's in %s by %.3g",
        *(theirs, network.dtype, ours),
    )
    return False


def _difference(logits: Tensor, expected: Tensor) -> Tensor:
    """The largest difference of each image, [B], in shares of its largest logit, or of 1 where all are smaller."""
    return (logits - expected).abs().amax(dim=1) / expected.abs().amax(dim=1).clamp_min(1.0)


@torch.inference_mode()
def faster(
    network: ReducingViT,
    openvino: OpenVinoPass,
    plan: ReductionPlan,
    images: Tensor,
    *,
    rounds: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> bool:
    """Whether a pass runs a batch faster than PyTorch, by medians of runs that take turns.

    Args:
        network: on a CPU.
        openvino: the pass.
        plan: of all images.
        images: normalised, [B, 3, H, W] in the network's dtype.
        rounds: runs of each that count, after one that does not.
        clock: seconds.
    """
    runs: tuple[Callable[[], Forward], ...] = (
        lambda: openvino(images, plan),
        lambda: network(images, [(plan, len(images))]),
    )
    seconds: tuple[list[float], ...] = ([], [])
    for _ in range(rounds + 1):
        for run, own in zip(runs, seconds, strict=True):
            start = clock()
            run()
            own.append(clock() - start)
    theirs, ours = (statistics.median(own[1:]) for own in seconds)
    log.info(
        "images in a batch: %d, tokens removed: %d; OpenVINO %.1f ms, PyTorch %.1f ms",
        *(len(images), sum(plan.removed), theirs * 1000, ours * 1000),
    )
    return theirs < ours
