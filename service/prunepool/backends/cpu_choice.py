"""What runs a model on a CPU, and in which number format. It needs no torch by itself.

A compiled model is run by OpenVINO. Any other one is run by PyTorch, and converted meanwhile, beside it; whatever
serves the model is then told that a backend made now would be faster.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module

import msgspec
import numpy as np
from numpy.typing import NDArray

from prunepool.backends import openvino_runtime
from prunepool.backends.compiled_backend import CompiledBackend
from prunepool.backends.compiled_pass import CompiledPass, CompiledPasses
from prunepool.backends.converted import CompiledModel, ConvertedModels
from prunepool.backends.convertible import why_not
from prunepool.backends.fidelity import Reference, normalised_photos, photos_digest
from prunepool.backends.format_trial import MIXED, Run, described, try_formats
from prunepool.backends.kernel_cache import KernelCache
from prunepool.backends.plan_family import PlanFamily, dial_plans
from prunepool.backends.registry import BackendOptions, Decisions, LoadedBackend
from prunepool.core.formats import FormatTrial
from prunepool.errors import ConversionInvalid, InvalidParameter, WeightsInvalid
from prunepool.extras import has_torch, needs_torch
from prunepool.models.dial import ModelDial
from prunepool.store import Manifest, StoredModel

#: The formats of weights that a number format can be computed from, the best first.
_WEIGHTS = {
    "float32": ("float32", "float16"),
    "bfloat16": ("float32", "float16"),
    "float16": ("float32", "float16"),
    "int8": ("int8",),
    MIXED: ("int8",),
}

#: What `auto` tries. float16 is left out: it is no faster than bfloat16, and overflows.
_TRIED = ("float32", "bfloat16", "int8", MIXED)

log = logging.getLogger(__name__)


def make(stored: StoredModel, options: BackendOptions, decisions: Decisions) -> LoadedBackend:
    """Load a model onto a CPU.

    Raises:
        InvalidParameter: the dtype is int8, which PyTorch cannot compute in, and the model is not compiled in it.
        WeightsInvalid: a file of the model is missing or changed.
    """
    manifest = stored.manifest
    wanted = (options.cpu_openvino or options.dtype == "int8") and openvino_runtime.installed()
    converted = ConvertedModels(options.cpu_openvino_folder)
    if wanted and manifest.compiled is not None:
        own = CompiledModel(manifest.compiled, stored.read_compiled)
        if (loaded := compiled_backend(manifest, own, options, decisions)) is not None:
            return loaded
    if wanted and (found := converted.find(stored)) is not None:
        try:
            loaded = compiled_backend(manifest, found, options, decisions)
        except WeightsInvalid as error:
            log.warning("%s: the conversion is made again: %s", manifest.name, error.detail)
            wanted = converted.discard(stored)
        except ConversionInvalid as error:  # another one would be the same
            log.warning("%s: stays with PyTorch: %s", manifest.name, error.detail)
            wanted = False
        else:
            if loaded is not None:
                return loaded
            wanted = False
    if wanted and not _has_instructions(options.dtype):  # nothing would use what is converted
        log.info("%s: stays with PyTorch: this processor has no instructions for bfloat16", manifest.name)
        wanted = False
    why = None
    if manifest.geometry is not None:
        dial = ModelDial(manifest, manifest.geometry)
        why = why_not(manifest.geometry, sorted({plan.method for plan in dial_plans(dial) if not plan.dense}))
    if wanted and why is not None:
        log.info("%s: stays with PyTorch: %s", manifest.name, why)
        wanted = False
    if options.dtype == "int8":
        if why is not None:
            raise InvalidParameter("dtype", "int8", f"auto, float32 or bfloat16 for {manifest.name}: {why}")
        if not wanted or not has_torch():
            limit = f"one that {manifest.name} is compiled in: `prunepool models compile {manifest.name}`"
            raise InvalidParameter("dtype", options.dtype, limit)
        options = replace(options, dtype="float32")  # which PyTorch serves until it is converted
    needs_torch(_without_torch(manifest, options))
    plain: LoadedBackend = import_module("prunepool.backends.torch_cpu").make(stored, options, decisions)
    return plain._replace(better=partial(converted.convert, stored)) if wanted else plain


def _without_torch(manifest: Manifest, options: BackendOptions) -> str:
    """What a model would need PyTorch for, as the beginning of a sentence."""
    if manifest.compiled is None:
        return f"{manifest.name}, which is not compiled,"
    if not options.cpu_openvino:
        return f"{manifest.name} with cpu_openvino off"
    formats = " and ".join(dict.fromkeys(one.weights for one in manifest.compiled.passes))
    return f"{manifest.name} in {options.dtype}, which is compiled in {formats},"


def compiled_backend(
    manifest: Manifest, model: CompiledModel, options: BackendOptions, decisions: Decisions
) -> LoadedBackend | None:
    """The backend of a compiled model; None if it has not the wanted format, or none that is faithful.

    Args:
        manifest: of the model.
        model: compiled.
        options: how it is run.
        decisions: `format` is the number format that `auto` came to, and `trials` what was measured.

    Raises:
        ConversionInvalid: OpenVINO cannot run it.
        WeightsInvalid: a file is missing or changed.
    """
    assert manifest.geometry is not None
    dial = ModelDial(manifest, manifest.geometry)
    families = [PlanFamily(one.method, one.blocks) for one in model.compiled.passes]
    if not all(any(f.counts(p, dial.geometry) is not None for f in families) for p in dial_plans(dial)):
        log.warning("%s was compiled for other plans: `prunepool models compile %s`", *[manifest.name] * 2)
        return None
    wanted = decisions.get("format", options.dtype)
    names = _TRIED if wanted == "auto" else (wanted,)
    kernels = {dtype: KernelCache(options.cpu_openvino_folder) for dtype in names}
    opened = {
        dtype: passes
        for dtype in names
        if (passes := _opened(model, manifest, dtype, options.threads or 1, kernels[dtype])) is not None
    }
    trials: tuple[FormatTrial, ...] = ()
    if wanted == "auto" and opened:
        trials = _tried(manifest, model, opened, dial)
        decisions["trials"] = msgspec.to_builtins(trials)
        wanted = next((one.dtype for one in trials if one.chosen), "none")
    elif "trials" in decisions:
        trials = msgspec.convert(decisions["trials"], tuple[FormatTrial, ...])
    dtype = wanted
    if dtype not in opened:
        return None
    decisions["format"] = dtype
    kernels[dtype].keep()
    backend = CompiledBackend(manifest, opened[dtype], max_batch_size=options.max_batch_size)
    return LoadedBackend(backend, "cpu", dtype, trials, runtime="openvino")


def _opened(
    model: CompiledModel, manifest: Manifest, dtype: str, threads: int, kernels: KernelCache
) -> CompiledPasses | None:
    """The passes in a number format, ready to run; None if the model is not compiled in one that it needs."""
    geometry = manifest.geometry
    assert geometry is not None
    if not _has_instructions(dtype):
        return None
    for weights in _WEIGHTS[dtype]:
        passes = [
            CompiledPass(
                openvino_runtime.open_pass(
                    model.read(one.graph), model.read(one.constants), dtype, threads, kernels
                ),
                PlanFamily(one.method, one.blocks),
                geometry,
            )
            for one in model.compiled.passes
            if one.weights == weights
        ]
        if passes:
            return CompiledPasses(passes)
    return None


def _has_instructions(dtype: str) -> bool:
    """Whether this processor computes in a format, rather than emulate it; `auto` finds one that it does."""
    return dtype not in ("bfloat16", MIXED) or openvino_runtime.has_bfloat16()


def _reference(model: CompiledModel, manifest: Manifest) -> Reference:
    """The answers in float32 that a model was compiled with.

    Raises:
        WeightsInvalid: there are none, or they are for other photos than this release has.
    """
    file = model.compiled.reference
    if file is None or file.photos != photos_digest(manifest.input_size):
        name = manifest.name
        raise WeightsInvalid(f"{name}: no float32 answers to compare with: `prunepool models compile {name}`")
    return Reference.from_bytes(model.read(file), file.photos)


def _tried(
    manifest: Manifest, model: CompiledModel, opened: Mapping[str, CompiledPasses], dial: ModelDial
) -> tuple[FormatTrial, ...]:
    """What the sample photos show of each format, one of them chosen."""
    photos = normalised_photos(manifest.input_size, manifest.mean, manifest.std)
    reference = _reference(model, manifest)

    def run_of(passes: CompiledPasses) -> Run:
        def run(images: NDArray[np.float32], ratio: float) -> NDArray[np.float32]:
            return passes(images, [(dial.plan(ratio), len(images))]).logits

        return run

    trials = try_formats({dtype: run_of(passes) for dtype, passes in opened.items()}, reference, photos)
    if not any(one.chosen for one in trials):
        found = "; ".join(f"{one.dtype}: {described(one)}" for one in trials)
        log.warning(
            "%s: not run by OpenVINO, none of whose number formats answers as float32 does on %d sample photos: %s",
            manifest.name,
            len(photos),
            found,
        )
    return tuple(trials)
