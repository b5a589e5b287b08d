"""Converts a model for OpenVINO into files that are served without PyTorch."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from prunepool.backends.compiled_pass import CompiledPass, CompiledPasses
from prunepool.backends.convertible import why_not
from prunepool.backends.dynamic_pass import DynamicPass
from prunepool.backends.fidelity import Reference, normalised_photos, photos_digest
from prunepool.backends.openvino_conversion import to_openvino
from prunepool.backends.openvino_files import pack
from prunepool.backends.openvino_runtime import open_pass
from prunepool.backends.openvino_weights import quantise_weights
from prunepool.backends.plan_family import PlanFamily, dial_plans
from prunepool.errors import ConversionInvalid
from prunepool.models.loaded_model import LoadedModel
from prunepool.models.loader import load_model
from prunepool.models.vit import ReducingViT
from prunepool.reduction.plan import DENSE
from prunepool.store import Compiled, CompiledFile, ModelStore, PassFiles, StoredModel
from prunepool.store.compiled import ReferenceFile, WeightFormat

#: The file of answers that every number format is compared with.
REFERENCE = "reference.safetensors"

#: The ratio of the paper's setting, at which fidelity and speed are measured.
_REDUCED = 0.755

log = logging.getLogger(__name__)


def compile_model(model: LoadedModel, formats: Sequence[WeightFormat], folder: Path) -> Compiled:
    """Convert a model's passes for every plan of its dial, and write them into a folder.

    Args:
        model: in float32, on a CPU.
        formats: of the weights; each makes a file of its own.
        folder: exists, and is empty.

    Raises:
        ConversionInvalid: OpenVINO is not installed, or cannot convert the model.
        OSError: the files cannot be written.
    """
    _openvino()
    began = time.perf_counter()
    families = PlanFamily.all_of(dial_plans(model.dial))
    exact = {
        family: _converted(model.vit, family, model.manifest.input_size) for family in _with_dense(families)
    }
    passes: list[PassFiles] = []
    for weights in formats:
        own = {family: converted.clone() for family, converted in exact.items()}
        if weights == "int8":
            for converted in own.values():
                quantise_weights(converted)
        graphs, constants = pack(
            {_name(family): converted for family, converted in own.items()}, halved=weights == "float16"
        )
        shared = _written(folder / f"{weights}.bin", constants)
        passes += [
            PassFiles(
                weights=weights,
                method=family.method,
                blocks=family.blocks,
                graph=_written(folder / f"{_name(family)}-{weights}.xml.gz", graphs[_name(family)]),
                constants=shared,
            )
            for family in own
        ]
    log.info("%s is converted in %.0f s", model.name, time.perf_counter() - began)
    reference = reference_of(model)
    answers = _written(folder / REFERENCE, reference.to_bytes())
    return Compiled(
        openvino=version("openvino"),
        source_sha256=model.manifest.weights.sha256,
        passes=tuple(passes),
        reference=ReferenceFile(**answers.model_dump(), photos=reference.photos),
    )


def open_formats(model: LoadedModel, dtypes: Sequence[str], threads: int) -> dict[str, CompiledPasses]:
    """The passes of a model in several number formats, converted now and ready to run; for measuring.

    Args:
        model: in float32, on a CPU.
        dtypes: number formats.
        threads: to compute with.

    Raises:
        ConversionInvalid: OpenVINO is not installed, or cannot convert the model.
    """
    families = _with_dense(PlanFamily.all_of(dial_plans(model.dial))) if dtypes else []
    exact = {family: _converted(model.vit, family, model.manifest.input_size) for family in families}
    opened: dict[str, CompiledPasses] = {}
    for dtype in dtypes:
        own = {family: converted.clone() for family, converted in exact.items()}
        if dtype.startswith("int8"):
            for converted in own.values():
                quantise_weights(converted)
        graphs, constants = pack({_name(family): one for family, one in own.items()}, halved=False)
        opened[dtype] = CompiledPasses(
            [
                CompiledPass(
                    open_pass(graphs[_name(family)], constants, dtype, threads), family, model.geometry
                )
                for family in own
            ]
        )
    return opened


def open_network(
    network: ReducingViT, family: PlanFamily, size: int, dtypes: Sequence[str], threads: int
) -> dict[str, CompiledPasses]:
    """The pass of a network, converted now and ready to run; for experiments, which keep no files.

    Args:
        network: on a CPU.
        family: of the plans.
        size: input resolution, in pixels a side.
        dtypes: the number formats to compute in; the network is converted once for all of them.
        threads: to compute with.

    Returns:
        The pass in each number format.

    Raises:
        ConversionInvalid: OpenVINO is not installed, or cannot convert the network.
    """
    exact = _converted(network, family, size)
    opened: dict[str, CompiledPasses] = {}
    for dtype in dtypes:
        converted = exact.clone()
        if dtype == "int8":
            quantise_weights(converted)
        graphs, constants = pack({"pass": converted}, halved=False)
        infer = open_pass(graphs["pass"], constants, dtype, threads)
        opened[dtype] = CompiledPasses([CompiledPass(infer, family, network.geometry)])
    return opened


def compile_stored(store: ModelStore, name_or_folder: str, formats: Sequence[WeightFormat]) -> StoredModel:
    """Compile a model, and keep the passes beside its weights.

    A model of the store is replaced as a whole. A packaged one is not changed: a copy with the passes goes into the
    store and takes precedence. In a folder elsewhere the manifest is written last.

    Args:
        store: the folder of models.
        name_or_folder: the model's name in the store, or a folder with a model.json.
        formats: of the weights; what was compiled before is replaced.

    Raises:
        ModelNotFound: there is no such model.
        ConversionInvalid: OpenVINO is not installed, or cannot convert the model.
        ModelError: its folder cannot be written, or it has become another model meanwhile.
    """
    stored = store.open(name_or_folder)
    model = load_model(stored, device="cpu", dtype="float32")
    with store.staging(stored) as staged:
        with store.writing():
            compiled = compile_model(model, formats, staged)
        found = {"compiled": compiled, "geometry": model.geometry}
        return store.update_manifest(name_or_folder, model.manifest, found, staged=staged)


@torch.inference_mode()
def reference_of(model: LoadedModel) -> Reference:
    """The model's own answers on the sample photos, dense and with tokens removed.

    Args:
        model: in float32, on a CPU.
    """
    manifest = model.manifest
    size = manifest.input_size
    photos = torch.from_numpy(normalised_photos(size, manifest.mean, manifest.std))
    wanted = (0.0, manifest.reduction.default_ratio, _REDUCED)
    ratios = tuple(sorted({min(ratio, model.max_ratio) for ratio in wanted}))
    logits = [model.vit(photos, [(model.plan(ratio), len(photos))]).logits for ratio in ratios]
    return Reference(ratios, torch.stack(logits).numpy(), photos_digest(size))


@torch.no_grad()
def _converted(network: ReducingViT, family: PlanFamily, size: int) -> Any:
    if (why := why_not(network.geometry, [family.method])) is not None:
        raise ConversionInvalid(f"it stays with PyTorch: {why}")
    _openvino()
    try:
        return to_openvino(DynamicPass(network, family).exported(size))
    except Exception as error:  # neither the exporter's errors nor the converter's have a common class
        raise ConversionInvalid(f"OpenVINO cannot take over the pass: {error}") from error


def _openvino() -> Any:
    try:
        import openvino
    except ImportError:
        raise ConversionInvalid('compiling needs OpenVINO: pip install "prunepool[openvino]"') from None
    return openvino


def _with_dense(families: Sequence[PlanFamily]) -> list[PlanFamily]:
    """The families, and before them one for the dense plan alone.

    Any of them runs it, but scores and matches tokens of which it then removes none: on a small model that takes as
    long again as all matrix products.
    """
    return list(dict.fromkeys((PlanFamily(DENSE.method, ()), *families)))


def _name(family: PlanFamily) -> str:
    return family.method if family.blocks else "dense"


def _written(path: Path, content: bytes) -> CompiledFile:
    path.write_bytes(content)
    return CompiledFile(file=path.name, sha256=hashlib.sha256(content).hexdigest())
