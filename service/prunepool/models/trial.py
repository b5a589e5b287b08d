"""A trial of compiled kernels before they are used: they must give the plain pass's answer, and sooner."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from prunepool.errors import KernelsInvalid
from prunepool.models.kernels import KernelFolder, Kernels
from prunepool.models.model import Model
from prunepool.models.vit import Forward, ReducingViT
from prunepool.ppt.plan import ReductionPlan

log = logging.getLogger(__name__)

#: How far a logit of float32 kernels may be from the plain pass, in shares of the largest; rounding in another
#: order gives some 1e-6.
_TOLERANCE = 1e-3

#: Images to compare. Where two tokens matter the same but for rounding, a choice between them may fall the other
#: way; on one image in twenty, perhaps, but hardly on all of these. What is wrong is wrong on all.
_IMAGES = 3


def kernels_for(model: Model, ratios: Iterable[float], folder: KernelFolder) -> dict[ReductionPlan, Kernels]:
    """The kernels of those settings of the dial for which they pay.

    Args:
        model: on a processor.
        ratios: settings of the dial.
        folder: where kernels are kept.

    Raises:
        InvalidParameter: a ratio that the model cannot do, or a folder that cannot be written to.
        KernelsInvalid: there is no compiler, or what was compiled gives other answers.
    """
    size = model.manifest.input_size
    found = {}
    for ratio in ratios:
        chosen = model.plan(ratio)
        kernels = folder.kernels(model.vit, chosen, size)
        if worthwhile(model.vit, kernels, chosen, size):
            found[chosen] = kernels
    return found


@torch.inference_mode()
def worthwhile(
    network: ReducingViT,
    kernels: Kernels,
    plan: ReductionPlan,
    size: int,
    *,
    rounds: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> bool:
    """Whether kernels give the plain pass's answer, and sooner; both are run in turns.

    Raises:
        KernelsInvalid: float32 logits differ by more than rounding explains. In half precision rounding
            alone can turn a choice between tokens, so that only the speed is looked at.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(_IMAGES, 3, size, size, generator=generator).to(network.dtype) * 2 - 1
    images = images.to(memory_format=torch.channels_last)  # as decoded pixels come
    off = min(_difference(network, kernels, plan, image) for image in torch.split(images, 1))
    if network.dtype == torch.float32 and not off <= _TOLERANCE:
        raise KernelsInvalid(f"compiled kernels give logits that are off by {off:.3g}; at most {_TOLERANCE}")
    image = images[:1]
    runs: tuple[Callable[[], Forward], ...] = (lambda: kernels(image), lambda: network(image, [(plan, 1)]))
    seconds: tuple[list[float], ...] = ([], [])
    for _ in range(rounds):
        for run, own in zip(runs, seconds, strict=True):
            start = clock()
            run()
            own.append(clock() - start)
    compiled, plain = map(statistics.median, seconds)
    verdict = "used" if compiled < plain else "not used, for they are no faster"
    log.info(
        "a single image with %s removed: %.1f ms compiled, %.1f ms plain; kernels are %s",
        plan.removed or "no token",
        compiled * 1000,
        plain * 1000,
        verdict,
    )
    return compiled < plain


def _difference(network: ReducingViT, kernels: Kernels, plan: ReductionPlan, image: Tensor) -> float:
    """The largest difference of a logit, in shares of the largest logit, or of 1 where all are smaller."""
    found, wanted = kernels(image).logits, network(image, [(plan, 1)]).logits
    return float((found - wanted).abs().max() / wanted.abs().max().clamp_min(1.0))
