"""Runs batches on a device that computes beside the thread that feeds it: recorded runs, no wait but one.

Pixels go over the bus as uint8, from pinned memory and beside what is being computed, and are normalised on
the device. Images of one plan are one recorded run, padded up to its number of images; what was not recorded
goes packed, all plans in one pass, kernel by kernel, and each outcome says which of the two it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunepool.backends.cuda_capture import Computed, Device, Graph, Graphs, Mark, compute
from prunepool.backends.torch_cpu import Part, Prepared, memory_errors_as_ours
from prunepool.core.types import Batch, BatchItem, Output, RatioSpec, Request
from prunepool.models.explain import token_map
from prunepool.models.model import Model
from prunepool.models.vit import Group
from prunepool.reduction.plan import ReductionPlan
from prunepool.reduction.step import StageRecord
from prunepool.reduction.tokens import TokenReduction


class Span(NamedTuple):
    """Images of one plan, next to each other in a batch."""

    plan: ReductionPlan
    first: int
    images: int


class Piece(NamedTuple):
    """What of a batch runs at once.

    Attributes:
        spans: one where it was recorded; all that were not are one piece.
        graph: the recorded run, or None.
    """

    spans: tuple[Span, ...]
    graph: Graph | None


class Result(NamedTuple):
    """What a piece will have given when its batch's mark is passed; logits and decisions in host memory."""

    piece: Piece
    logits: Tensor
    decisions: Tensor
    stages: list[StageRecord]


@dataclass(frozen=True, slots=True)
class Launched:
    """A batch under way.

    Attributes:
        results: of its pieces.
        mark: after all of them.
    """

    results: list[Result]
    mark: Mark


class CudaGraphBackend:
    """The :class:`~prunepool.core.backend.AsynchronousBackend` over a loaded model.

    Args:
        model: on the device.
        device: where it computes.
        ratios: settings of the dial worth recording, the most important first.
        max_batch_size: the largest batch.
        most_graphs: the most runs to record; 0: everything goes kernel by kernel.
        compiled: record kernels that torch.compile has made; warming up then takes minutes.
    """

    def __init__(
        self,
        model: Model,
        device: Device,
        *,
        ratios: Sequence[float],
        max_batch_size: int,
        most_graphs: int,
        compiled: bool = False,
    ) -> None:
        self.model = model
        self._device = device
        self._ratios = tuple(ratios)
        self._max_batch_size = max_batch_size
        self._left = lru_cache(maxsize=4096)(self._make_left)
        with torch.inference_mode():
            self.graphs = Graphs(
                model.vit,
                device,
                size=model.manifest.input_size,
                max_batch_size=max_batch_size,
                most=most_graphs,
                compiled=compiled,
            )

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Record what shall be recorded, then run each once, and a mix kernel by kernel."""
        with self._device.active():
            self.graphs.capture(self.model.plan(ratio) for ratio in self._ratios)
        size = self.model.manifest.input_size
        request = Request(np.zeros((size, size, 3), np.uint8), RatioSpec(0.0, 0.0), 0.0)
        most = self.model.max_ratio
        counts = sorted({1, self._max_batch_size, *(graph.images for graph in self.graphs.all)})
        # Ends of the dial and between them, and a ratio that nobody would think of recording.
        for ratios in (*((0.0,) * count for count in counts), (0.0, 0.4321 * most, most / 2, most)):
            batch = Batch(tuple(BatchItem(request, ratio, "warm-up") for ratio in ratios), 0.0)
            self.run(batch, self.prepare(batch))

    @memory_errors_as_ours()
    def prepare(self, batch: Batch) -> Prepared:
        """Stack the pixels in memory that the device reads by itself, and have them sent.

        Raises:
            OutOfMemory: the device has no room for them.
        """
        rows: dict[np.dtype[Any], list[int]] = {}
        for row, item in enumerate(batch.items):
            rows.setdefault(item.request.pixels.dtype, []).append(row)
        parts = []
        for dtype, those in rows.items():
            shape = batch.items[those[0]].request.pixels.shape
            kind = torch.uint8 if dtype == np.uint8 else torch.float32
            host = self._device.staging((len(those), *shape), kind)
            np.stack([batch.items[row].request.pixels for row in those], out=host.numpy())
            parts.append(Part(those, self._device.upload(host)))
        return Prepared(parts, [self.model.plan(item.ratio) for item in batch.items])

    def run(self, batch: Batch, prepared: object) -> Sequence[Output]:
        """Compute a batch.

        Raises:
            OutOfMemory: the device has no room for it.
        """
        return self.collect(batch, self.launch(batch, prepared))

    @memory_errors_as_ours()
    @torch.inference_mode()
    def launch(self, batch: Batch, prepared: object) -> Launched:
        """Have the device compute a batch; returns at once.

        Raises:
            OutOfMemory: the device has no room for it.
        """
        assert isinstance(prepared, Prepared)
        explain = any(item.request.explain for item in batch.items)
        with self._device.active():
            pieces = pieces_of(prepared.plans, self.graphs.find)
            results = [self._launch(piece, prepared.parts, explain) for piece in pieces]
            return Launched(results, self._device.mark())

    def done(self, launched: object) -> bool:
        """Whether :meth:`collect` would return at once."""
        assert isinstance(launched, Launched)
        return launched.mark.done()

    def collect(self, batch: Batch, launched: object) -> Sequence[Output]:
        """Wait for a launched batch; outputs in its order."""
        assert isinstance(launched, Launched)
        launched.mark.wait()
        outputs: dict[int, Output] = {}
        for result in launched.results:
            # Copies: the staged memory is wanted for the next batches.
            logits, decisions = result.logits.numpy().copy(), result.decisions.numpy()
            row = 0
            for span in result.piece.spans:
                left = self._left(span.plan)
                for i in range(span.images):
                    pruned = int(left[decisions[row]].sum())
                    explained = batch.items[span.first + i].request.explain
                    outputs[span.first + i] = Output(
                        logits=logits[row],
                        tokens=self.model.dial.tokens(span.plan),
                        gmacs=self.model.geometry.gmacs(span.plan),
                        pruned=pruned,
                        pooled=int(left.sum()) - pruned,
                        token_map=token_map(result.stages, row, self.model.geometry) if explained else None,
                        graph_replayed=result.piece.graph is not None,
                    )
                    row += 1
        return [outputs[i] for i in range(len(batch.items))]

    def close(self) -> None:
        """Forget what was recorded and give the device's cached memory back."""
        self.graphs.close()
        self._device.close()

    def _launch(self, piece: Piece, parts: Sequence[Part], explain: bool) -> Result:
        spans, graph = piece
        count = sum(span.images for span in spans)
        if graph is not None:
            self._fill(graph.input, spans, parts)
            graph.replay()
            computed = graph.computed
        else:
            size = self.model.manifest.input_size
            images = torch.empty((count, 3, size, size), dtype=self.model.dtype, device=self._device.place)
            self._fill(images, spans, parts)
            groups: list[Group] = [(span.plan, span.images) for span in spans]
            computed = compute(self.model.vit, images, groups)
        stages = [_copied(stage) for stage in computed.stages] if explain else []
        return Result(piece, *self._download(computed, count), stages)

    def _fill(self, images: Tensor, spans: Sequence[Span], parts: Sequence[Part]) -> None:
        """Normalised images of spans of the batch, one span after the other, from the front of `images`."""
        at = 0
        for span in spans:
            for part, first, row, count in _runs(span, parts):
                target, pixels = images[at + row : at + row + count], part.pixels[first : first + count]
                if pixels.is_floating_point():
                    target.copy_(pixels)
                else:
                    self.model.normalise_into(target, pixels)
            at += span.images

    def _download(self, computed: Computed, count: int) -> tuple[Tensor, Tensor]:
        """Logits and decisions of the first `count` images, on their way to host memory."""
        copies = []
        for tensor in (computed.logits, computed.decisions):
            host = self._device.staging((count, *tensor.shape[1:]), tensor.dtype)
            copies.append(host.copy_(tensor[:count], non_blocking=True))
        return copies[0], copies[1]

    def _make_left(self, plan: ReductionPlan) -> NDArray[np.int64]:
        """Tokens that leave at each block, int64 [depth]."""
        return np.array([before - after for before, after in self.model.geometry.tokens_per_block(plan)])


def pieces_of(
    plans: Sequence[ReductionPlan], find: Callable[[ReductionPlan, int], Graph | None]
) -> list[Piece]:
    """Cut a batch into what runs at once.

    Args:
        plans: of each image.
        find: the recorded run of a plan with room for so many images, or None.

    Returns:
        Recorded runs in batch order, then one piece of everything else, if there is any.
    """
    pieces: list[Piece] = []
    others: list[Span] = []
    first = 0
    for plan, group in groupby(plans):
        span = Span(plan, first, len(list(group)))
        first += span.images
        graph = find(plan, span.images)
        if graph is None:
            others.append(span)
        else:
            pieces.append(Piece((span,), graph))
    return [*pieces, Piece(tuple(others), None)] if others else pieces


def _runs(span: Span, parts: Sequence[Part]) -> Iterator[tuple[Part, int, int, int]]:
    """A span's images that lie next to each other in a part, so that few kernels fetch them.

    Yields:
        The part, where in it they begin, where in the span, and how many.
    """
    for part in parts:
        inside = [(i, row) for i, row in enumerate(part.rows) if span.first <= row < span.first + span.images]
        for _, run in groupby(inside, key=lambda pair: pair[1] - pair[0]):
            pairs = list(run)
            yield part, pairs[0][0], pairs[0][1] - span.first, len(pairs)


def _copied(stage: StageRecord) -> StageRecord:
    """A stage that the next replay does not overwrite."""
    indices = TokenReduction(*(part.clone() for part in stage.indices))
    return stage._replace(indices=indices, pruned=stage.pruned.clone(), variance=stage.variance.clone())
