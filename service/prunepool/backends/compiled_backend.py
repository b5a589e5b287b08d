"""The backend that runs a compiled model with OpenVINO on a CPU. It needs no torch.

OpenVINO computes in threads of its own. So that it never waits for Python, the runs of the next batch are queued
there before those of the first have ended. Runs of one pass compute in the order of their start; two passes would
share the cores, so a run of another pass is started when those before it are done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prunepool.backends.black_batch import black_batch, warm_up_ratios
from prunepool.backends.compiled_pass import AT_ONCE, CompiledPasses, PassRun, joined
from prunepool.backends.outputs import outputs_of
from prunepool.core.types import Batch, Output
from prunepool.models.dial import ModelDial
from prunepool.reduction.plan import ReductionPlan
from prunepool.store import Manifest


class PreparedImages(NamedTuple):
    """A batch on its way to the passes.

    Attributes:
        images: normalised, float32 [B, 3, H, W].
        plans: one for each image.
    """

    images: NDArray[np.float32]
    plans: list[ReductionPlan]


class LaunchedRuns(NamedTuple):
    """A batch that is computed or queued.

    Attributes:
        runs: of its images, in order.
        plans: one for each image.
    """

    runs: list[PassRun]
    plans: list[ReductionPlan]


class CompiledBackend:
    """The :class:`~prunepool.core.backend.AsynchronousBackend` over the passes of a compiled model.

    Args:
        manifest: of the model; has a geometry.
        passes: of the model, ready to run.
        max_batch_size: images in the largest batch, to warm up for.
    """

    #: OpenVINO calls back when a run is done, but not when it fails.
    poll_s = 0.1
    #: Two models at once would share the cores.
    orders_models = False

    def __init__(self, manifest: Manifest, passes: CompiledPasses, *, max_batch_size: int) -> None:
        assert manifest.geometry is not None
        self.dial = ModelDial(manifest, manifest.geometry)
        self._size = manifest.input_size
        self._max_batch_size = max_batch_size
        self._passes = passes
        #: Runs that are not started yet, and those that were started and are perhaps not done.
        self._waiting: deque[PassRun] = deque()
        self._started: deque[PassRun] = deque()
        self._wake: Callable[[], object] = lambda: None
        mean, std = (np.array(one, np.float32).reshape(3, 1, 1) for one in (manifest.mean, manifest.std))
        # (x/255 − mean) / std as one multiplication and one subtraction for each channel.
        self._scale, self._shift = 1 / (255 * std), mean / std

    def warm_up(self) -> None:
        """Run small and large batches at both ends of the ratios, and a mix."""
        # A larger batch runs in parts that are as large as this one.
        most = min(self._max_batch_size, AT_ONCE)
        for ratios in warm_up_ratios(self.dial.max_ratio, most):
            batch = black_batch(self._size, ratios)
            self.run(batch, self.prepare(batch))

    def prepare(self, batch: Batch) -> PreparedImages:
        """Stack and normalise the pixels."""
        images = np.empty((len(batch.items), 3, self._size, self._size), np.float32)
        for image, item in zip(images, batch.items, strict=True):
            pixels = item.request.pixels
            if pixels.dtype == np.uint8:
                np.multiply(pixels.transpose(2, 0, 1), self._scale, out=image)
                image -= self._shift
            else:
                image[:] = pixels
        return PreparedImages(images, [self.dial.plan(item.ratio) for item in batch.items])

    def run(self, batch: Batch, prepared: object) -> Sequence[Output]:
        """Compute a batch.

        Raises:
            RuntimeError: OpenVINO cannot compute it.
        """
        return self.collect(batch, self.launch(batch, prepared, lambda: None))

    def launch(self, batch: Batch, prepared: object, wake: Callable[[], object]) -> LaunchedRuns:
        """Queue a batch; returns at once.

        Raises:
            RuntimeError: OpenVINO cannot compute it.
        """
        assert isinstance(prepared, PreparedImages)
        groups = [(plan, len(list(run))) for plan, run in groupby(prepared.plans)]
        launched = LaunchedRuns(self._passes.cut(prepared.images, groups), prepared.plans)
        self._wake = wake
        self._waiting += launched.runs
        self._advance()
        return launched

    def done(self, launched: object) -> bool:
        """Whether :meth:`collect` would return without waiting; starts runs whose turn has come."""
        assert isinstance(launched, LaunchedRuns)
        self._advance()
        return all(run.done() for run in launched.runs)

    def collect(self, batch: Batch, launched: object) -> Sequence[Output]:
        """Wait for a launched batch.

        Raises:
            RuntimeError: OpenVINO cannot compute it.
        """
        assert isinstance(launched, LaunchedRuns)
        found = []
        for run in launched.runs:
            # All runs before it are done: batches are collected in the order of their launch.
            if not run.started:
                self._advance()
            found.append(run.answers())
        self._advance()
        answers = joined(found)
        decisions = [stage.pruned for stage in answers.stages]
        return outputs_of(batch.items, launched.plans, answers.logits, answers.stages, decisions, self.dial)

    def close(self) -> None:
        """Drop the passes, and their memory with them."""
        self._waiting.clear()
        for run in self._started:
            if not run.done():
                with suppress(RuntimeError):  # which the batch that failed has reported
                    run.answers()
        self._started.clear()
        self._passes = CompiledPasses(())

    def _advance(self) -> None:
        """Start the runs whose turn has come."""
        while self._started and self._started[0].done():
            self._started.popleft()
        while self._waiting and (not self._started or self._started[0].owner is self._waiting[0].owner):
            run = self._waiting.popleft()
            run.start(self._wake)
            self._started.append(run)
