"""From a model in the store to one that the engine serves.

A model is described from its manifest. torch is imported when its weights are loaded, in the thread that runs it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from prunepool.backends import registry
from prunepool.backends.registry import BackendOptions, Decisions
from prunepool.core.backend import Backend
from prunepool.core.model_info import ModelInfo, PlanInfo
from prunepool.core.policies import levels_of
from prunepool.core.served_model import ServedModel
from prunepool.models.dial import ModelDial, check_served
from prunepool.models.geometry import geometry_of
from prunepool.models.preprocess import preprocess_of
from prunepool.store import StoredModel, generation_of
from prunepool.store.profile import auto_limit

#: The points of the dial that a caller is shown, besides those of the model's profile.
GRID = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.755, 0.8)

#: From the generation of a model to what its backends decide by measuring; see :data:`Decisions`.
DecisionsOf = Callable[[str], Decisions]


class HostedModel:
    """A stored model, described before its weights are loaded and loaded in the thread that will own it.

    Args:
        stored: where it is.
        options: how it is run.
        decisions: where its backends keep what they decide by measuring.

    Raises:
        ArchitectureUnsupported: its tokens cannot be reduced.
        ManifestInvalid: its plans are of a method that is too slow to serve; names it.
    """

    def __init__(self, stored: StoredModel, options: BackendOptions, decisions: Decisions) -> None:
        check_served(stored.manifest)
        self._stored = stored
        self._decisions = decisions
        self._when_better: Callable[[], None] = lambda: None
        manifest = stored.manifest
        self.dial = ModelDial(manifest, geometry_of(manifest))
        most = self.dial.max_ratio
        measured = [point.ratio for point in self.dial.profile or ()]
        auto_most = auto_limit(self.dial.profile or ())
        # What a ratio costs a model that was not measured, nobody knows: it is taken only when it is asked for.
        default = 0.0 if auto_most == 0 else min(manifest.reduction.default_ratio, most)
        self._info = ModelInfo(
            name=manifest.name,
            architecture=manifest.architecture,
            input_size=manifest.input_size,
            labels=manifest.labels,
            max_reduction_ratio=most,
            default_reduction_ratio=default,
            gmacs=self.dial.gmacs(0.0),
            parameters=manifest.weights.parameters,
            device=options.device,
            dtype=options.dtype,
            ready=False,
            licence=manifest.licence,
            mean=manifest.mean,
            std=manifest.std,
            crop_pct=manifest.crop_pct,
            crop_mode=manifest.crop_mode,
            interpolation=manifest.interpolation,
            plans=tuple(self._point(ratio) for ratio in sorted({*GRID, *measured}) if ratio <= most),
            profile=None
            if self.dial.profile is None
            else [point.model_dump(exclude_none=True) for point in self.dial.profile],
            auto_max_reduction_ratio=auto_most,
        )
        plans = (point.reduction_ratio for point in self._info.plans)
        # What callers get who ask for nothing, then what `auto` goes through, then what others may ask for.
        ratios = (0.0, default, *levels_of(self._info), *plans)
        self._options = replace(options, ratios=ratios)

    def served(self) -> ServedModel:
        """What the engine takes."""
        manifest = self._stored.manifest
        return ServedModel(
            name=manifest.name,
            info=lambda: self._info,
            preprocess=preprocess_of(manifest),
            costs=self.dial,
            applied=self.dial.applied,
            make_backend=self._backend,
            generation=generation_of(manifest),
            watch=self._watch,
        )

    def _watch(self, callback: Callable[[], None]) -> None:
        self._when_better = callback

    def _backend(self) -> Backend:
        """Load the model; called in the thread that will run it."""
        loaded = registry.find(self._options)(self._stored, self._options, self._decisions)
        # What `auto` came to is told to callers from here on.
        self._info = replace(
            self._info,
            device=loaded.device,
            dtype=loaded.dtype,
            format_trials=loaded.trials,
            backend=loaded.runtime or registry.device_type(loaded.device),
        )
        if loaded.better is not None:
            loaded.better(lambda: self._when_better())
        return loaded.backend

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
        open_model: opens a model of the store by its name, or by its folder.
        options: how they are run.
        decisions: where backends keep what they decide by measuring; in this object, if not given.
    """

    def __init__(
        self,
        open_model: Callable[[str], StoredModel],
        options: BackendOptions,
        decisions: DecisionsOf | None = None,
    ) -> None:
        self._open = open_model
        self._options = options
        kept: defaultdict[str, dict[str, Any]] = defaultdict(dict)
        self._decisions = decisions or kept.__getitem__

    def model(self, reference: str) -> ServedModel:
        """A model, its weights not loaded yet.

        Args:
            reference: its name in the store, or its folder.

        Raises:
            ModelNotFound: no such model.
            ManifestInvalid: its model.json does not say what it must.
            ArchitectureUnsupported: its tokens cannot be reduced.
        """
        stored = self._open(reference)
        return HostedModel(stored, self._options, self._decisions(generation_of(stored.manifest))).served()
