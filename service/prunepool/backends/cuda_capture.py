"""CUDA graphs of a network: one for each plan and number of images, captured before the server is ready.

A forward pass is hundreds of short kernels, and launching them one by one takes the CPU longer than a GPU needs
to compute them. A plan fixes every shape, so each (plan, images) can be captured once and replayed with a single
launch. Nothing is captured while requests wait.
"""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from prunepool.models.vit import Group, ReducingViT
from prunepool.reduction.plan import ReductionPlan
from prunepool.reduction.step import StageRecord

log = logging.getLogger(__name__)


class PassOutputs(NamedTuple):
    """What a forward pass leaves on the device.

    Attributes:
        logits: float32 [B, classes].
        decisions: bool [B, depth], whether an image was pruned at a block; false where it was pooled there,
            and at blocks that do not reduce.
        stages: every reduction.
    """

    logits: Tensor
    decisions: Tensor
    stages: list[StageRecord]


class DeviceEvent(Protocol):
    """A point in the device's work."""

    def done(self) -> bool:
        """Whether the device has passed it."""

    def wait(self) -> None:
        """Return when it has."""


class Accelerator(Protocol):
    """What the backend needs of a device that computes beside the thread that feeds it."""

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""

    def active(self) -> AbstractContextManager[None]:
        """Within it, this thread's work goes to the stream that computes, in order."""

    def staging(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Pinned host memory; not reused before the device has read or written it."""

    def upload(self, host: Tensor) -> Tensor:
        """Copy staged memory to the device beside what it computes; what is launched next waits for the copy."""

    def capture(self, function: Callable[[], PassOutputs]) -> tuple[PassOutputs, Callable[[], None]]:
        """Capture what a function launches.

        Returns:
            The tensors that each replay fills, and what replays it.

        Raises:
            torch.OutOfMemoryError: the device has no memory for it; smaller ones may be captured afterwards.
        """

    def event(self) -> DeviceEvent:
        """A point after everything that was launched so far."""

    def used(self) -> int:
        """Bytes of the device's memory in use, without what torch only caches."""

    def close(self) -> None:
        """Free cached memory."""


@dataclass(frozen=True, slots=True)
class CapturedGraph:
    """A captured forward pass.

    Attributes:
        plan: of its images.
        images: how many it computes, however many of them are wanted.
        input: what it reads, normalised [images, 3, H, W].
        outputs: what it writes; the next replay of any graph may overwrite it.
        replay: launches it.
        bytes: device memory that capturing it took.
        seconds: that capturing it took.
    """

    plan: ReductionPlan
    images: int
    input: Tensor
    outputs: PassOutputs
    replay: Callable[[], None]
    bytes: int
    seconds: float


def compute(network: ReducingViT, images: Tensor, groups: Sequence[Group]) -> PassOutputs:
    """One forward pass whose every result stays on the device; it never waits for it."""
    forward = network(images, groups)
    shape = (images.shape[0], network.geometry.depth)
    decisions = torch.zeros(shape, dtype=torch.bool, device=images.device)
    for stage in forward.stages:
        decisions[stage.first : stage.first + stage.pruned.shape[0], stage.block] = stage.pruned
    return PassOutputs(forward.logits, decisions, forward.stages)


def buckets(most: int) -> tuple[int, ...]:
    """Numbers of images worth capturing, ascending to `most`; from 2 on, no step is more than by half."""
    sizes = {most} | {factor << power for factor in (2, 3) for power in range(most.bit_length())} | {1}
    return tuple(sorted(size for size in sizes if size <= most))


class CapturedGraphs:
    """The graphs of one network; for the thread that made it.

    Args:
        network: on the device.
        accelerator: captures and replays.
        size: input resolution, in pixels a side.
        max_batch_size: images in the largest graph.
        most: how many graphs are captured at most.
        compiled: capture kernels made by torch.compile instead of torch's own.
    """

    def __init__(
        self,
        network: ReducingViT,
        accelerator: Accelerator,
        *,
        size: int,
        max_batch_size: int,
        most: int,
        compiled: bool = False,
    ) -> None:
        self._network = network
        self._accelerator = accelerator
        self._most = most
        self._compiled = compiled
        self._sizes = buckets(max_batch_size)
        self._graphs: dict[tuple[ReductionPlan, int], CapturedGraph] = {}
        self._thread = threading.get_ident()
        # One for all, for they run one after the other. In channels-last memory, as the pixels come.
        self._input = torch.empty(
            (max_batch_size if most else 0, 3, size, size), dtype=network.dtype, device=accelerator.device
        ).to(memory_format=torch.channels_last)
        self._input.zero_()

    @property
    def all(self) -> tuple[CapturedGraph, ...]:
        """Every captured graph, in the order of capture."""
        return tuple(self._graphs.values())

    def capture(self, plans: Iterable[ReductionPlan], clock: Callable[[], float] = time.perf_counter) -> None:
        """Capture graphs of these plans, the most important first, as far as the bound and the memory allow.

        The largest come first, so that the smaller ones find room in the memory that those leave. One that does
        not fit is left out; its images run eagerly, or in halves.
        """
        assert threading.get_ident() == self._thread
        wanted = [(plan, size) for plan in dict.fromkeys(plans) for size in self._sizes]
        chosen = [key for key in wanted if key not in self._graphs][: self._most - len(self._graphs)]
        began, too_large = clock(), []
        for plan, size in sorted(chosen, key=lambda key: -key[1]):
            before, start = self._accelerator.used(), clock()
            try:
                outputs, replay = self._accelerator.capture(self._function(plan, self._input[:size]))
            except torch.OutOfMemoryError as error:
                log.debug("no memory for a CUDA graph of %d images: %s", size, error)
                too_large.append(size)
                continue
            grown = self._accelerator.used() - before
            self._graphs[plan, size] = CapturedGraph(
                plan, size, self._input[:size], outputs, replay, grown, clock() - start
            )
        if too_large:
            log.warning(
                "no memory for %d CUDA graphs of %d to %d images; lower max_batch_size or cuda_graphs",
                *(len(too_large), min(too_large), max(too_large)),
            )
        log.info(
            "captured %d CUDA graphs in %.1f s, %.0f MB; %d more plans and sizes run eagerly",
            *(len(self._graphs), clock() - began, sum(graph.bytes for graph in self.all) / 1e6),
            len(wanted) - len(self._graphs),
        )

    def find(self, plan: ReductionPlan, images: int) -> CapturedGraph | None:
        """The smallest graph of a plan that has room for so many images."""
        assert threading.get_ident() == self._thread
        for size in self._sizes[bisect_left(self._sizes, images) :]:
            if (graph := self._graphs.get((plan, size))) is not None:
                return graph
        return None

    def close(self) -> None:
        """Drop all graphs."""
        self._graphs.clear()

    def _function(self, plan: ReductionPlan, images: Tensor) -> Callable[[], PassOutputs]:
        groups = [(plan, images.shape[0])]
        if not self._compiled:
            return lambda: compute(self._network, images, groups)
        compiled = torch.compile(compute, fullgraph=True, dynamic=False)

        def run() -> PassOutputs:
            # Every plan and number of images is a compilation of its own, of one and the same function.
            with torch._dynamo.config.patch(recompile_limit=1 << 16, accumulated_recompile_limit=1 << 16):
                return compiled(self._network, images, groups)

        return run
