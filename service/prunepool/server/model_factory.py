"""From a model in the store to one that the engine serves.

A model is described from its manifest. torch is imported when its weights are loaded, in the thread that runs it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from prunepool.core.backend import Backend
from prunepool.core.model_info import ModelInfo, PlanInfo
from prunepool.core.policies import levels_of
from prunepool.core.served_model import ServedModel
from prunepool.imaging import Preprocess
from prunepool.models.dial import ModelDial
from prunepool.models.geometry import geometry_of
from prunepool.store import Manifest, ModelStore, ProfilePoint, StoredModel

if TYPE_CHECKING:
    from prunepool.backends.openvino_trial import OpenVinoPasses
    from prunepool.models.model import Model

#: The points of the dial that a caller is shown, besides those of the model's profile.
GRID = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.755, 0.8)

#: Points of accuracy that `auto` may cost where nobody said how far it may go; see docs/elastic.md.
MAX_AUTO_DROP = 2.0


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How models shall be run.

    Attributes:
        device: where.
        dtype: what they shall compute in.
        max_batch_size: the largest batch to warm up for.
        cuda_graphs: the most runs of a model to record on a GPU.
        cuda_compile: whether kernels made by torch.compile are recorded.
        cpu_openvino: whether OpenVINO runs batches of one ratio on a CPU, where it is faster.
        cpu_openvino_folder: where passes that were converted for it are kept.
    """

    device: str
    dtype: str
    max_batch_size: int
    cuda_graphs: int
    cuda_compile: bool
    cpu_openvino: bool
    cpu_openvino_folder: Path


class HostedModel:
    """A stored model, described before its weights are loaded and loaded in the thread that will own it.

    Args:
        stored: where it is.
        running: how it shall be run.

    Raises:
        ArchitectureUnsupported: its tokens cannot be reduced.
    """

    def __init__(self, stored: StoredModel, running: RunOptions) -> None:
        self._stored = stored
        self._running = running
        manifest = stored.manifest
        self.dial = ModelDial(manifest, geometry_of(manifest))
        most = self.dial.max_ratio
        measured = [point.ratio for point in self.dial.profile or ()]
        default = min(manifest.reduction.default_ratio, most)
        self._info = ModelInfo(
            name=manifest.name,
            architecture=manifest.architecture,
            input_size=manifest.input_size,
            labels=manifest.labels,
            max_reduction_ratio=most,
            default_reduction_ratio=default,
            gmacs=self.dial.gmacs(0.0),
            parameters=manifest.weights.parameters,
            device=running.device,
            dtype=running.dtype,
            ready=False,
            licence=manifest.licence,
            mean=manifest.mean,
            std=manifest.std,
            crop_pct=manifest.crop_pct,
            plans=tuple(self._point(ratio) for ratio in sorted({*GRID, *measured}) if ratio <= most),
            profile=None
            if self.dial.profile is None
            else [point.model_dump(exclude_none=True) for point in self.dial.profile],
            auto_max_reduction_ratio=ratio_within(MAX_AUTO_DROP, self.dial.profile or ()),
        )

    def served(self) -> ServedModel:
        """What the engine takes."""
        manifest = self._stored.manifest
        return ServedModel(
            name=manifest.name,
            info=lambda: self._info,
            preprocess=Preprocess(manifest.input_size, manifest.crop_pct, manifest.interpolation),
            costs=self.dial,
            applied=self.dial.applied,
            make_backend=self._backend,
            generation=generation_of(manifest),
        )

    def _backend(self) -> Backend:
        """Load the model; called in the thread that will run it."""
        from prunepool.backends.cuda_device import CudaDevice
        from prunepool.backends.cuda_graphs import CudaGraphBackend
        from prunepool.backends.torch_cpu import TorchBackend

        model = self._load()
        if model.device.type != "cuda":
            return TorchBackend(
                lambda: model, max_batch_size=self._running.max_batch_size, passes=self._passes
            )
        info = self._info
        return CudaGraphBackend(
            model,
            CudaDevice(model.device),
            # What callers get who ask for nothing, then what `auto` goes through, then what others may ask for.
            ratios=(
                0.0,
                info.default_reduction_ratio,
                *levels_of(info),
                *(p.reduction_ratio for p in info.plans),
            ),
            max_batch_size=self._running.max_batch_size,
            most_graphs=self._running.cuda_graphs,
            compiled=self._running.cuda_compile,
        )

    def _passes(self, model: Model) -> OpenVinoPasses:
        from prunepool.backends.openvino_pass import PassCache
        from prunepool.backends.openvino_trial import OpenVinoPasses, passes_for

        if not self._running.cpu_openvino:
            return OpenVinoPasses()
        folder = PassCache(self._running.cpu_openvino_folder)
        return passes_for(model, folder, self._running.max_batch_size)

    def _load(self) -> Model:
        """The model; what `auto` came to is told to callers from here on."""
        from prunepool.models.loader import load_model

        model = load_model(self._stored.folder, device=self._running.device, dtype=self._running.dtype)
        dtype = str(model.dtype).removeprefix("torch.")
        self._info = replace(self._info, device=str(model.device), dtype=dtype)
        return model

    def _point(self, ratio: float) -> PlanInfo:
        plan = self.dial.plan(ratio)
        gmacs = self.dial.gmacs(ratio)
        return PlanInfo(
            reduction_ratio=ratio,
            blocks=plan.blocks,
            removed=plan.removed,
            thresholds=plan.thresholds,
            tokens=self.dial.tokens(plan),
            gmacs=gmacs,
            macs_saved=max(0.0, 1 - gmacs / self.dial.gmacs(0.0)),
            method=plan.method,
        )


class ModelFactory:
    """Makes what the engine serves of what is in the store.

    Args:
        store: the folder of models.
        running: how they shall be run.
    """

    def __init__(self, store: ModelStore, running: RunOptions) -> None:
        self._store = store
        self._running = running

    def model(self, reference: str) -> ServedModel:
        """A model, its weights not loaded yet.

        Args:
            reference: its name in the store, or its folder.

        Raises:
            ModelNotFound: no such model.
            ManifestInvalid: its model.json does not say what it must.
            ArchitectureUnsupported: its tokens cannot be reduced.
        """
        return HostedModel(self._store.open(reference), self._running).served()


def generation_of(manifest: Manifest) -> str:
    """What tells two models of one name apart, the same in every process: a digest of all that the manifest says.

    The manifest has the sha256 of the weights.
    """
    return hashlib.sha256(manifest.model_dump_json().encode()).hexdigest()[:16]


def ratio_within(drop: float, profile: Iterable[ProfilePoint]) -> float | None:
    """How far the dial can be turned before a measured point has lost more than `drop` points.

    Args:
        drop: points of accuracy, as in the profile.
        profile: points of one dial, by ascending ratio.

    Returns:
        The last ratio before that; None where no measured point has lost as much.
    """
    last = 0.0
    for point in profile:
        if point.drop is not None and point.drop > drop:
            return last
        last = point.ratio
    return None
