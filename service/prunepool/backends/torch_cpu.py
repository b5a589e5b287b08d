"""The backend that runs batches with PyTorch on a CPU: all plans of a batch in one packed pass."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from prunepool.backends.black_batch import black_batch, warm_up_ratios
from prunepool.backends.fidelity import compare, normalised_photos
from prunepool.backends.outputs import outputs_of
from prunepool.backends.registry import BackendOptions, Decisions, LoadedBackend
from prunepool.backends.torch_batch import (
    PixelPart,
    PreparedBatch,
    memory_errors_translated,
    prepared_batch,
)
from prunepool.core.formats import MOST_KL, MOST_KL_REDUCED
from prunepool.core.types import Batch, BatchItem, Output
from prunepool.models.loaded_model import LoadedModel
from prunepool.models.loader import load_model, set_compute_threads
from prunepool.models.vit import Forward, Group
from prunepool.store import StoredModel

log = logging.getLogger(__name__)

log = logging.getLogger(__name__)

#: A forward pass of normalised images, [B, 3, H, W], those of one plan next to each other.
ForwardPass = Callable[[Tensor, Sequence[Group]], Forward]


class TorchBackend:
    """The :class:`~prunepool.core.backend.Backend` over a loaded model, on a CPU.

    Args:
        model: on a CPU.
        max_batch_size: images in the largest batch, to warm up for.
        forward: computes the forward pass; the model's own network, if not given.
    """

    def __init__(
        self, model: LoadedModel, *, max_batch_size: int, forward: ForwardPass | None = None
    ) -> None:
        self.model = model
        self._max_batch_size = max_batch_size
        self._forward: ForwardPass = forward or model.vit

    def warm_up(self) -> None:
        """Run small and large batches at both ends of the ratios, and a mix."""
        for ratios in warm_up_ratios(self.model.max_ratio, self._max_batch_size):
            batch = black_batch(self.model.manifest.input_size, ratios)
            self.run(batch, self.prepare(batch))

    @memory_errors_translated()
    def prepare(self, batch: Batch) -> PreparedBatch:
        """Stack the pixels.

        Raises:
            OutOfMemory: there is no memory for them.
        """
        return prepared_batch(batch, self.model, self._stack)

    @memory_errors_translated()
    @torch.inference_mode()
    def run(self, batch: Batch, prepared: object) -> Sequence[Output]:
        """Compute a batch.

        Raises:
            OutOfMemory: there is no memory for it.
        """
        assert isinstance(prepared, PreparedBatch)
        groups: list[Group] = [(plan, len(list(run))) for plan, run in groupby(prepared.plans)]
        logits, stages = self._forward(self._images(prepared.parts), groups)
        answers = logits.cpu().numpy()
        decisions = [stage.pruned.cpu().numpy() for stage in stages]
        return outputs_of(batch.items, prepared.plans, answers, stages, decisions, self.model.dial)

    def close(self) -> None:
        """There is nothing that the interpreter does not free by itself."""

    def _stack(self, items: Sequence[BatchItem]) -> Tensor:
        return torch.from_numpy(np.stack([item.request.pixels for item in items])).to(self.model.device)

    def _images(self, parts: Sequence[PixelPart]) -> Tensor:
        """The network's input, [B, 3, H, W] in batch order."""
        normalised = [
            part.pixels.to(self.model.dtype)
            if part.pixels.is_floating_point()
            else self.model.normalise(part.pixels)
            for part in parts
        ]
        if len(parts) == 1:
            return normalised[0]
        order = np.argsort([row for part in parts for row in part.rows])
        return torch.cat(normalised)[torch.from_numpy(order).to(self.model.device)]


def load_decided(stored: StoredModel, options: BackendOptions, decisions: Decisions) -> LoadedModel:
    """Load a model; `dtype` `auto` is decided by timing once, and then holds for all successors."""
    if options.threads is not None:
        set_compute_threads(options.threads)
    dtype = decisions.get("dtype", options.dtype)
    model = load_model(stored, device=options.device, dtype=dtype)
    if dtype == "auto" and model.dtype != torch.float32 and model.device.type == "cpu":
        exact = load_model(stored, device=options.device, dtype="float32")
        if not faithful(model, exact):
            log.warning("%s computes in float32: in %s it answers otherwise", model.name, dtype_name(model))
            model = exact
    decisions["dtype"] = dtype_name(model)
    return model


@torch.inference_mode()
def faithful(model: LoadedModel, exact: LoadedModel) -> bool:
    """Whether a model answers as in float32 on the sample photos, dense and at its default ratio.

    Args:
        model: in a narrower dtype.
        exact: the same in float32.
    """
    manifest = exact.manifest
    photos = torch.from_numpy(normalised_photos(manifest.input_size, manifest.mean, manifest.std))
    for ratio in (0.0, min(manifest.reduction.default_ratio, exact.max_ratio)):
        plan = exact.plan(ratio)
        own, expected = (one(photos, plan).logits.numpy() for one in (model, exact))
        if compare(own, expected).kl > (MOST_KL_REDUCED if ratio else MOST_KL):
            return False
    return True


def dtype_name(model: LoadedModel) -> str:
    """The dtype that a model computes in, as settings and callers call it."""
    return str(model.dtype).removeprefix("torch.")


def make(stored: StoredModel, options: BackendOptions, decisions: Decisions) -> LoadedBackend:
    """Load a model onto a CPU."""
    model = load_decided(stored, options, decisions)
    backend = TorchBackend(model, max_batch_size=options.max_batch_size)
    return LoadedBackend(backend, str(model.device), dtype_name(model), runtime="pytorch")
