"""The backend that runs a compiled model with OpenVINO on a CPU. It needs no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prunepool.backends.black_batch import black_batch, warm_up_ratios
from prunepool.backends.compiled_pass import AT_ONCE, Answers, CompiledPass, Group, StageArrays
from prunepool.backends.outputs import outputs_of
from prunepool.core.types import Batch, Output
from prunepool.models.dial import ModelDial
from prunepool.reduction.plan import ReductionPlan
from prunepool.store import Manifest


class CompiledPasses:
    """The passes of a compiled model, which together run every plan of its dial.

    Args:
        passes: the first that runs a plan is used for it.
    """

    def __init__(self, passes: Sequence[CompiledPass]) -> None:
        self._passes = tuple(passes)

    def runs(self, plan: ReductionPlan) -> bool:
        """Whether any pass runs a plan."""
        return any(one.runs(plan) for one in self._passes)

    def __call__(self, images: NDArray[np.float32], groups: Sequence[Group]) -> Answers:
        """Logits of a batch; see :meth:`CompiledPass.__call__`. Plans of one pass run side by side."""
        owners = [next(one for one in self._passes if one.runs(plan)) for plan, _ in groups]
        if len(set(map(id, owners))) == 1:
            return owners[0](images, groups)
        logits: list[NDArray[np.float32]] = []
        stages: list[StageArrays] = []
        for owner, first, own in _neighbours(owners, groups):
            count = sum(images for _, images in own)
            answers = owner(images[first : first + count], own)
            logits.append(answers.logits)
            stages += [stage._replace(first=first + stage.first) for stage in answers.stages]
        return Answers(np.concatenate(logits), sorted(stages, key=lambda stage: (stage.block, stage.first)))


def _neighbours(
    owners: Sequence[CompiledPass], groups: Sequence[Group]
) -> Iterator[tuple[CompiledPass, int, list[Group]]]:
    """Neighbouring groups of one pass, and the index of their first image."""
    first = 0
    for _, pairs in groupby(zip(owners, groups, strict=True), key=lambda pair: id(pair[0])):
        own = list(pairs)
        yield own[0][0], first, [group for _, group in own]
        first += sum(images for _, (_, images) in own)


class PreparedImages(NamedTuple):
    """A batch on its way to the passes.

    Attributes:
        images: normalised, float32 [B, 3, H, W].
        plans: one for each image.
    """

    images: NDArray[np.float32]
    plans: list[ReductionPlan]


class CompiledBackend:
    """The :class:`~prunepool.core.backend.Backend` over the passes of a compiled model.

    Args:
        manifest: of the model; has a geometry.
        passes: of the model, ready to run.
        max_batch_size: images in the largest batch, to warm up for.
    """

    def __init__(self, manifest: Manifest, passes: CompiledPasses, *, max_batch_size: int) -> None:
        assert manifest.geometry is not None
        self.dial = ModelDial(manifest, manifest.geometry)
        self._size = manifest.input_size
        self._max_batch_size = max_batch_size
        self._passes = passes
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
        assert isinstance(prepared, PreparedImages)
        groups = [(plan, len(list(run))) for plan, run in groupby(prepared.plans)]
        answers = self._passes(prepared.images, groups)
        decisions = [stage.pruned for stage in answers.stages]
        return outputs_of(batch.items, prepared.plans, answers.logits, answers.stages, decisions, self.dial)

    def close(self) -> None:
        """Drop the passes, and their memory with them."""
        self._passes = CompiledPasses(())
