"""The backend that lets OpenVINO run batches of one plan on a CPU where it is faster, and PyTorch the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from torch import Tensor

from prunepool.backends.openvino_cache import PassCache
from prunepool.backends.openvino_trial import OpenVinoPasses, passes_for
from prunepool.backends.registry import BackendOptions, Decisions, LoadedBackend
from prunepool.backends.torch_batch import PreparedBatch
from prunepool.backends.torch_cpu import TorchBackend, dtype_name, load_decided
from prunepool.core.types import Batch, Output
from prunepool.models.loaded_model import LoadedModel
from prunepool.models.vit import Forward, Group
from prunepool.store import StoredModel

log = logging.getLogger(__name__)


class OpenVinoBackend:
    """The :class:`~prunepool.core.backend.Backend` over a loaded model, with OpenVINO for what it runs faster.

    Args:
        model: on a CPU.
        max_batch_size: images in the largest batch, to warm up for.
        make_passes: gives the passes of OpenVINO when warming up.
        on_failure: called if OpenVINO fails on a batch, after which PyTorch runs everything.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        max_batch_size: int,
        make_passes: Callable[[LoadedModel], OpenVinoPasses],
        on_failure: Callable[[], object] = lambda: None,
    ) -> None:
        self.model = model
        self._make_passes = make_passes
        self._on_failure = on_failure
        self._passes = OpenVinoPasses()
        self._torch = TorchBackend(model, max_batch_size=max_batch_size, forward=self._forward)

    def warm_up(self) -> None:
        """Convert or load the passes, try them, and run some batches.

        Raises:
            ConversionInvalid: there is no OpenVINO, or its answers are wrong.
            InvalidParameter: the folder for conversions cannot be written to.
        """
        self._passes = self._make_passes(self.model)
        self._torch.warm_up()

    def prepare(self, batch: Batch) -> PreparedBatch:
        """Stack the pixels.

        Raises:
            OutOfMemory: there is no memory for them.
        """
        return self._torch.prepare(batch)

    def run(self, batch: Batch, prepared: object) -> Sequence[Output]:
        """Compute a batch.

        Raises:
            OutOfMemory: there is no memory for it.
        """
        return self._torch.run(batch, prepared)

    def close(self) -> None:
        """Drop the passes, and their memory with them."""
        self._passes = OpenVinoPasses()
        self._torch.close()

    def _forward(self, images: Tensor, groups: Sequence[Group]) -> Forward:
        if len(groups) == 1 and (run := self._passes.get(groups[0][0], len(images))) is not None:
            try:
                return run(images)
            except RuntimeError:
                # Shapes were dynamic when it was converted, and not all of them can have been tried.
                log.exception("a batch of %d failed in OpenVINO; PyTorch runs it and all others", len(images))
                self._passes = OpenVinoPasses()
                self._on_failure()
        out: Forward = self.model.vit(images, groups)
        return out


def make(stored: StoredModel, options: BackendOptions, decisions: Decisions) -> LoadedBackend:
    """Load a model onto a CPU; for which batches OpenVINO is faster is decided by timing once."""
    model = load_decided(stored, options, decisions)
    cache = PassCache(options.cpu_openvino_folder)
    backend = OpenVinoBackend(
        model,
        max_batch_size=options.max_batch_size,
        make_passes=lambda model: passes_for(model, cache, options.max_batch_size, decisions),
        on_failure=lambda: decisions.update(openvino={}),
    )
    return LoadedBackend(backend, str(model.device), dtype_name(model))
