"""A trial of OpenVINO's passes before they are used: they must give PyTorch's answers, and sooner."""

from __future__ import annotations

import copy
import logging
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from prunepool.backends.dynamic_pass import PlanFamily
from prunepool.backends.openvino_pass import OpenVinoPass, PassCache
from prunepool.errors import ConversionInvalid
from prunepool.models.model import Model
from prunepool.models.vit import Forward, ReducingViT
from prunepool.reduction.plan import DENSE, ReductionPlan

log = logging.getLogger(__name__)

#: How far a logit may be from PyTorch's, in shares of the largest; rounding in another order gives some 1e-6.
_TOLERANCE = 1e-3

#: Below float32 rounding alone can turn a choice between tokens. What is no further from float32 than so many
#: times PyTorch's own answers in that number format is taken to be rounding.
_TIMES_AS_FAR = 2.0

#: Images to compare. Where two tokens matter the same but for rounding, a choice between them may fall the other
#: way; on one image in twenty, perhaps, but hardly on all of these. What is wrong is wrong on all.
_IMAGES = 3

#: Images of the larger batch that is timed; what is larger still goes in parts of so many.
_SEVERAL = 8


class OpenVinoPasses:
    """Which batches OpenVINO runs.

    Args:
        tried: passes, and for how many images at most each of them pays.
    """

    def __init__(self, tried: Sequence[tuple[OpenVinoPass, int]] = ()) -> None:
        self._tried = tuple(tried)

    def get(self, plan: ReductionPlan, images: int) -> Callable[[Tensor], Forward] | None:
        """What runs so many images of one plan; None: PyTorch shall."""
        for one, most in self._tried:
            if images <= most and one.runs(plan):
                return partial(one, plan=plan)
        return None


def passes_for(model: Model, folder: PassCache, max_batch_size: int) -> OpenVinoPasses:
    """OpenVINO's passes for all plans of a model, for batches in which they pay.

    Args:
        model: on a processor.
        folder: where passes are kept.
        max_batch_size: images of the largest batch that there may be.

    Raises:
        ConversionInvalid: there is no OpenVINO, or it gives other answers.
        InvalidParameter: the folder cannot be written to.
    """
    size = model.manifest.input_size
    patches = model.geometry.patches
    plans = [model.plan(min(gone / patches, model.max_ratio)) for gone in range(patches + 1)]
    tried = []
    for family in PlanFamily.all_of(plans):
        one = folder.get(model.vit, family, size)
        own = [plan for plan in dict.fromkeys(plans) if not plan.dense and one.runs(plan)]
        ends = (own[0], own[-1]) if own else ()
        middle = own[len(own) // 2] if own else DENSE
        if all(agrees(model.vit, one, plan, size) for plan in dict.fromkeys((DENSE, middle, *ends))):
            tried.append((one, _most(model.vit, one, middle, size, max_batch_size)))
    return OpenVinoPasses(tried)


@torch.inference_mode()
def agrees(network: ReducingViT, one: OpenVinoPass, plan: ReductionPlan, size: int) -> bool:
    """Whether a pass is as right as PyTorch's; it is told to the log where it is not.

    Raises:
        ConversionInvalid: in float32, logits differ by more than rounding explains.
    """
    images = _noise(_SEVERAL, size, network.dtype)
    few, groups = images[:_IMAGES], [(plan, _IMAGES)]
    # Each way of running answers for itself; the first of several run side by side, where any do.
    ways = (one.alone(few, plan).logits, one(images, plan).logits[:_IMAGES])
    plain = network(few, groups).logits
    if network.dtype == torch.float32:
        least = torch.stack([_off(found, plain).min() for found in ways]).max().item()
        if not least <= _TOLERANCE:
            name = plan.removed or "no token"
            raise ConversionInvalid(
                f"OpenVINO's logits with {name} removed are off by {least:.3g}; at most {_TOLERANCE}"
            )
        return True
    exact = copy.deepcopy(network).float()(few.float(), groups).logits
    theirs = torch.stack([_off(found, exact).median() for found in ways]).max().item()
    ours = _off(plain, exact).median().item()
    if theirs <= _TOLERANCE + _TIMES_AS_FAR * ours:
        return True
    log.warning(
        "OpenVINO is not used: its logits are off from float32 by %.3g, PyTorch's in %s by %.3g",
        *(theirs, network.dtype, ours),
    )
    return False


def _off(logits: Tensor, wanted: Tensor) -> Tensor:
    """The largest difference of each image, [B], in shares of its largest logit, or of 1 where all are smaller."""
    return (logits - wanted).abs().amax(dim=1) / wanted.abs().amax(dim=1).clamp_min(1.0)


def _most(
    network: ReducingViT, one: OpenVinoPass, plan: ReductionPlan, size: int, max_batch_size: int
) -> int:
    """Images of the largest batch that a pass runs sooner than PyTorch; 0: none."""
    if not faster(network, one, plan, size, images=1):
        return 0
    several = min(_SEVERAL, max_batch_size)
    return max_batch_size if faster(network, one, plan, size, images=several, rounds=3) else 1


@torch.inference_mode()
def faster(
    network: ReducingViT,
    one: OpenVinoPass,
    plan: ReductionPlan,
    size: int,
    *,
    images: int,
    rounds: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> bool:
    """Whether a pass runs a batch sooner than PyTorch; both are run in turns, once more than counts."""
    batch = _noise(images, size, network.dtype)
    runs: tuple[Callable[[], Forward], ...] = (
        lambda: one(batch, plan),
        lambda: network(batch, [(plan, images)]),
    )
    seconds: tuple[list[float], ...] = ([], [])
    for _ in range(rounds + 1):
        for run, own in zip(runs, seconds, strict=True):
            start = clock()
            run()
            own.append(clock() - start)
    openvino, plain = (statistics.median(own[1:]) for own in seconds)
    log.info(
        "images in a batch: %d, tokens removed: %d; OpenVINO %.1f ms, PyTorch %.1f ms",
        *(images, sum(plan.removed), openvino * 1000, plain * 1000),
    )
    return openvino < plain


def _noise(images: int, size: int, dtype: torch.dtype) -> Tensor:
    """Images of no camera, of values as the network sees them, and laid out as decoded pixels are."""
    generator = torch.Generator().manual_seed(0)
    noise = (torch.rand(images, 3, size, size, generator=generator) * 2 - 1).to(dtype)
    return noise.to(memory_format=torch.channels_last)
