"""The backend for a GPU: captured CUDA graphs, one batch launched while the device computes another.

Pixels go over the bus as uint8, from pinned memory and beside what is being computed, and are normalised on the
device. Images of one plan are one graph replay, padded up to its number of images. What was not captured runs
eagerly, all plans in one packed pass; each output says which of the two it was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunepool.backends.black_batch import black_batch
from prunepool.backends.cuda_batch import (
    BatchPart,
    LaunchedParts,
    PartResult,
    PlanGroup,
    copies,
    split_batch,
)
from prunepool.backends.cuda_capture import Accelerator, CapturedGraphs, PassOutputs, compute
from prunepool.backends.cuda_device import CudaDevice
from prunepool.backends.registry import BackendOptions, Decisions, LoadedBackend
from prunepool.backends.torch_batch import (
    PixelPart,
    PreparedBatch,
    memory_errors_translated,
    prepared_batch,
)
from prunepool.backends.torch_cpu import dtype_name, load_decided
from prunepool.core.backend import OutOfMemory
from prunepool.core.types import Batch, BatchItem, Output
from prunepool.models.explain import token_map
from prunepool.models.loaded_model import LoadedModel
from prunepool.models.vit import Group
from prunepool.reduction.plan import ReductionPlan
from prunepool.reduction.step import StageRecord
from prunepool.reduction.tokens import TokenReduction
from prunepool.store import StoredModel

log = logging.getLogger(__name__)


class CudaGraphBackend:
    """The :class:`~prunepool.core.backend.AsynchronousBackend` over a loaded model.

    Args:
        model: on the device.
        accelerator: where it computes.
        ratios: reduction ratios worth capturing, the most important first.
        max_batch_size: images in the largest batch.
        most_graphs: how many CUDA graphs are captured at most; 0: everything runs eagerly.
        compiled: capture kernels made by torch.compile; warming up then takes minutes.
    """

    poll_s = 0.0002
    orders_models = True

    def __init__(
        self,
        model: LoadedModel,
        accelerator: Accelerator,
        *,
        ratios: Sequence[float],
        max_batch_size: int,
        most_graphs: int,
        compiled: bool = False,
    ) -> None:
        self.model = model
        self._accelerator = accelerator
        self._ratios = tuple(ratios)
        self._max_batch_size = max_batch_size
        self._removed = lru_cache(maxsize=4096)(self._count_removed)
        with torch.inference_mode():
            self.graphs = CapturedGraphs(
                model.vit,
                accelerator,
                size=model.manifest.input_size,
                max_batch_size=max_batch_size,
                most=most_graphs,
                compiled=compiled,
            )

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Capture graphs, then run each size once, and a mix eagerly.

        A size that does not fit is left out: the core halves such a batch when it comes.

        Raises:
            OutOfMemory: the device has no memory for a single image.
        """
        with self._accelerator.active():
            self.graphs.capture(self.model.plan(ratio) for ratio in self._ratios)
        most = self.model.max_ratio
        counts = sorted({1, self._max_batch_size, *(graph.images for graph in self.graphs.all)})
        # Both ends of the ratios and between them, and a ratio that nobody would think of capturing.
        for ratios in (*((0.0,) * count for count in counts), (0.0, 0.4321 * most, most / 2, most)):
            batch = black_batch(self.model.manifest.input_size, ratios)
            try:
                self.run(batch, self.prepare(batch))
            except OutOfMemory as error:
                if len(ratios) == 1:
                    raise
                log.warning("no memory for a batch of %d when warming up: %s", len(ratios), error)

    @memory_errors_translated()
    def prepare(self, batch: Batch) -> PreparedBatch:
        """Stack the pixels in pinned memory, and start their copy to the device.

        Raises:
            OutOfMemory: the device has no memory for them.
        """
        return prepared_batch(batch, self.model, self._stack)

    def run(self, batch: Batch, prepared: object) -> Sequence[Output]:
        """Compute a batch.

        Raises:
            OutOfMemory: the device has no memory for it.
        """
        return self.collect(batch, self.launch(batch, prepared))

    @memory_errors_translated()
    @torch.inference_mode()
    def launch(
        self, batch: Batch, prepared: object, wake: Callable[[], object] = lambda: None
    ) -> LaunchedParts:
        """Have the device compute a batch; returns at once. CUDA does not call back.

        Raises:
            OutOfMemory: the device has no memory for it.
        """
        assert isinstance(prepared, PreparedBatch)
        explain = any(item.request.explain for item in batch.items)
        with self._accelerator.active():
            parts = split_batch(prepared.plans, self.graphs.find)
            results = [self._launch(part, prepared.parts, explain) for part in parts]
            return LaunchedParts(results, self._accelerator.event())

    def done(self, launched: object) -> bool:
        """Whether :meth:`collect` would return without waiting."""
        assert isinstance(launched, LaunchedParts)
        return launched.event.done()

    def collect(self, batch: Batch, launched: object) -> Sequence[Output]:
        """Wait for a launched batch; outputs in its order."""
        assert isinstance(launched, LaunchedParts)
        launched.event.wait()
        outputs: dict[int, Output] = {}
        for result in launched.results:
            # Copies: the staged memory is wanted for the next batches.
            logits, decisions = result.logits.numpy().copy(), result.decisions.numpy()
            row = 0
            for group in result.part.groups:
                removed = self._removed(group.plan)
                for i in range(group.first, group.first + group.images):
                    pruned = int(removed[decisions[row]].sum())
                    explained = batch.items[i].request.explain
                    outputs[i] = Output(
                        logits=logits[row],
                        tokens=self.model.dial.tokens(group.plan),
                        gmacs=self.model.geometry.gmacs(group.plan),
                        pruned=pruned,
                        pooled=int(removed.sum()) - pruned,
                        token_map=token_map(result.stages, row, self.model.geometry) if explained else None,
                        graph_replayed=result.part.graph is not None,
                    )
                    row += 1
        return [outputs[i] for i in range(len(batch.items))]

    def close(self) -> None:
        """Drop the graphs and free the device's cached memory."""
        self.graphs.close()
        self._accelerator.close()

    def _stack(self, items: Sequence[BatchItem]) -> Tensor:
        pixels = [item.request.pixels for item in items]
        dtype = torch.uint8 if pixels[0].dtype == np.uint8 else torch.float32
        host = self._accelerator.staging((len(items), *pixels[0].shape), dtype)
        np.stack(pixels, out=host.numpy())
        return self._accelerator.upload(host)

    def _launch(self, part: BatchPart, pixels: Sequence[PixelPart], explain: bool) -> PartResult:
        groups, graph = part
        count = sum(group.images for group in groups)
        if graph is not None:
            self._fill(graph.input, groups, pixels)
            graph.replay()
            outputs = graph.outputs
        else:
            size, device = self.model.manifest.input_size, self._accelerator.device
            images = torch.empty((count, 3, size, size), dtype=self.model.dtype, device=device)
            self._fill(images, groups, pixels)
            plans: list[Group] = [(group.plan, group.images) for group in groups]
            outputs = compute(self.model.vit, images, plans)
        stages = [_cloned(stage) for stage in outputs.stages] if explain else []
        return PartResult(part, *self._download(outputs, count), stages)

    def _fill(self, images: Tensor, groups: Sequence[PlanGroup], pixels: Sequence[PixelPart]) -> None:
        """Write the normalised images of the groups, one group after the other, from the front of `images`."""
        at = 0
        for group in groups:
            for part, first, row, count in copies(group, pixels):
                target, source = images[at + row : at + row + count], part.pixels[first : first + count]
                if source.is_floating_point():
                    target.copy_(source)
                else:
                    self.model.normalise_into(target, source)
            at += group.images

    def _download(self, outputs: PassOutputs, count: int) -> tuple[Tensor, Tensor]:
        """Start the copy of the first `count` images' logits and decisions to host memory."""
        hosts = []
        for tensor in (outputs.logits, outputs.decisions):
            host = self._accelerator.staging((count, *tensor.shape[1:]), tensor.dtype)
            hosts.append(host.copy_(tensor[:count], non_blocking=True))
        return hosts[0], hosts[1]

    def _count_removed(self, plan: ReductionPlan) -> NDArray[np.int64]:
        """Tokens removed at each block, int64 [depth]."""
        return np.array([before - after for before, after in self.model.geometry.tokens_per_block(plan)])


def make(stored: StoredModel, options: BackendOptions, decisions: Decisions) -> LoadedBackend:
    """Load a model onto a GPU."""
    model = load_decided(stored, options, decisions)
    backend = CudaGraphBackend(
        model,
        CudaDevice(model.device),
        ratios=options.ratios,
        max_batch_size=options.max_batch_size,
        most_graphs=options.cuda_graphs,
        compiled=options.cuda_compile,
    )
    return LoadedBackend(backend, str(model.device), dtype_name(model), runtime="pytorch, CUDA graphs")


def _cloned(stage: StageRecord) -> StageRecord:
    """A stage that the next replay does not overwrite."""
    indices = TokenReduction(*(part.clone() for part in stage.indices))
    return stage._replace(indices=indices, pruned=stage.pruned.clone(), variance=stage.variance.clone())
