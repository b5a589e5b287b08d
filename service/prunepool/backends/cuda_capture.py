"""Runs of a network that a GPU has recorded: one for each plan and number of images, launched in one call.

A forward pass is hundreds of short kernels, and launching them one by one takes the processor longer than a
GPU needs to compute them. A plan fixes every shape, so each (plan, images) can be recorded once, before the
server is ready, and replayed. Nothing is ever recorded while requests wait.
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


class Computed(NamedTuple):
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


class Mark(Protocol):
    """A point in the device's work."""

    def done(self) -> bool:
        """Whether the device has passed it."""

    def wait(self) -> None:
        """Return when it has."""


class Device(Protocol):
    """What the backend needs of a device that computes beside the thread that feeds it."""

    @property
    def place(self) -> torch.device:
        """Where its tensors are."""

    def active(self) -> AbstractContextManager[None]:
        """Within it, this thread's work goes where the device computes, in order."""

    def staging(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Host memory that the device reads and writes by itself; kept from reuse until it has."""

    def upload(self, host: Tensor) -> Tensor:
        """Copy staged memory to the device beside what it computes; what is asked of it next waits for it."""

    def capture(self, function: Callable[[], Computed]) -> tuple[Computed, Callable[[], None]]:
        """Record what a function launches.

        Returns:
            The tensors that each replay fills, and what replays it.
        """

    def mark(self) -> Mark:
        """A point after all that was asked of the device so far."""

    def used(self) -> int:
        """Bytes of the device's memory that are taken and not merely cached."""

    def close(self) -> None:
        """Give cached memory back."""


@dataclass(frozen=True, slots=True)
class Graph:
    """A recorded run.

    Attributes:
        plan: of its images.
        images: how many it computes, however many of them are wanted.
        input: what it reads, normalised [images, 3, H, W].
        computed: what it writes; the next replay of any graph may overwrite it.
        replay: launches it.
        bytes: device memory that recording it took.
        seconds: that recording it took.
    """

    plan: ReductionPlan
    images: int
    input: Tensor
    computed: Computed
    replay: Callable[[], None]
    bytes: int
    seconds: float


def compute(network: ReducingViT, images: Tensor, groups: Sequence[Group]) -> Computed:
    """One forward pass whose every result stays on the device; it never waits for it."""
    forward = network(images, groups)
    shape = (images.shape[0], network.geometry.depth)
    decisions = torch.zeros(shape, dtype=torch.bool, device=images.device)
    for stage in forward.stages:
        decisions[stage.first : stage.first + stage.pruned.shape[0], stage.block] = stage.pruned
    return Computed(forward.logits, decisions, forward.stages)


def buckets(most: int) -> tuple[int, ...]:
    """Numbers of images worth recording, ascending to `most`; from 2 on, no step is more than by half."""
    sizes = {most} | {factor << power for factor in (2, 3) for power in range(most.bit_length())} | {1}
    return tuple(sorted(size for size in sizes if size <= most))


class Graphs:
    """The recorded runs of one network; used by the one thread that made it.

    Args:
        network: on the device.
        device: records and replays.
        size: pixels a side.
        max_batch_size: the most images of a run.
        most: the most runs to record.
        compiled: record kernels that torch.compile has made instead of torch's own.
    """

    def __init__(
        self,
        network: ReducingViT,
        device: Device,
        *,
        size: int,
        max_batch_size: int,
        most: int,
        compiled: bool = False,
    ) -> None:
        self._network = network
        self._device = device
        self._most = most
        self._compiled = compiled
        self._sizes = buckets(max_batch_size)
        self._graphs: dict[tuple[ReductionPlan, int], Graph] = {}
        self._thread = threading.get_ident()
        # One for all, for they run one after the other. In channels-last memory, as the pixels come.
        self._input = torch.empty(
            (max_batch_size if most else 0, 3, size, size), dtype=network.dtype, device=device.place
        ).to(memory_format=torch.channels_last)
        self._input.zero_()

    @property
    def all(self) -> tuple[Graph, ...]:
        """What was recorded, in that order."""
        return tuple(self._graphs.values())

    def capture(self, plans: Iterable[ReductionPlan], clock: Callable[[], float] = time.perf_counter) -> None:
        """Record runs of these plans, the most important first, as far as the bound and the memory allow.

        The largest come first, so that the smaller find room in the memory that those leave.
        """
        assert threading.get_ident() == self._thread
        wanted = [(plan, size) for plan in dict.fromkeys(plans) for size in self._sizes]
        chosen = [key for key in wanted if key not in self._graphs][: self._most - len(self._graphs)]
        began = clock()
        for plan, size in sorted(chosen, key=lambda key: -key[1]):
            before, start = self._device.used(), clock()
            function = self._function(plan, self._input[:size])
            try:
                computed, replay = self._device.capture(function)
            except torch.OutOfMemoryError as error:
                log.warning("no memory for more than %d recorded runs: %s", len(self._graphs), error)
                break
            grown = self._device.used() - before
            self._graphs[plan, size] = Graph(
                plan, size, self._input[:size], computed, replay, grown, clock() - start
            )
        missing = len(wanted) - len(self._graphs)
        log.info(
            "recorded %d runs in %.1f s, %.0f MB; %d more have to be launched kernel by kernel",
            len(self._graphs),
            clock() - began,
            sum(graph.bytes for graph in self.all) / 1e6,
            missing,
        )

    def find(self, plan: ReductionPlan, images: int) -> Graph | None:
        """The smallest recorded run of a plan that has room for so many images."""
        assert threading.get_ident() == self._thread
        for size in self._sizes[bisect_left(self._sizes, images) :]:
            if (graph := self._graphs.get((plan, size))) is not None:
                return graph
        return None

    def close(self) -> None:
        """Forget all of them."""
        self._graphs.clear()

    def _function(self, plan: ReductionPlan, images: Tensor) -> Callable[[], Computed]:
        groups = [(plan, images.shape[0])]
        if not self._compiled:
            return lambda: compute(self._network, images, groups)
        compiled = torch.compile(compute, fullgraph=True, dynamic=False)

        def run() -> Computed:
            # Every plan and number of images is a compilation of its own, of one and the same function.
            with torch._dynamo.config.patch(recompile_limit=1 << 16, accumulated_recompile_limit=1 << 16):
                return compiled(self._network, images, groups)

        return run
