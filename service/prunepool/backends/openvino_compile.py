"""Converts a model for OpenVINO into files that are served without PyTorch."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from prunepool.backends.compiled_pass import CompiledPass
from prunepool.backends.dynamic_pass import DynamicPass
from prunepool.backends.fidelity import Reference, normalised_photos, photos_digest
from prunepool.backends.openvino_conversion import to_openvino
from prunepool.backends.openvino_runtime import open_streams
from prunepool.backends.openvino_weights import quantise_weights
from prunepool.backends.plan_family import PlanFamily, dial_plans
from prunepool.errors import ConversionInvalid
from prunepool.models.loaded_model import LoadedModel
from prunepool.models.loader import load_model
from prunepool.models.vit import ReducingViT
from prunepool.store import Compiled, CompiledFile, ModelStore, PassFiles, StoredModel, check_name
from prunepool.store.compiled import ReferenceFile, WeightFormat
from prunepool.store.folders import copy_folder

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
        folder: exists, and is on the way to becoming the model's.

    Raises:
        ConversionInvalid: OpenVINO is not installed, or cannot convert the model.
        OSError: the files cannot be written.
    """
    ov = _openvino()
    passes: list[PassFiles] = []
    for family in PlanFamily.all_of(dial_plans(model.dial)):
        began = time.perf_counter()
        exact = _converted(model.vit, family, model.manifest.input_size)
        for weights in formats:
            name = f"{family.method}-{weights}"
            converted = exact.clone()
            if weights == "int8":
                quantise_weights(converted)
            graph = folder / f"{name}.xml"
            ov.save_model(converted, graph, compress_to_fp16=weights == "float16")
            passes.append(
                PassFiles(
                    weights=weights,
                    method=family.method,
                    blocks=family.blocks,
                    graph=_recorded(graph),
                    constants=_recorded(graph.with_suffix(".bin")),
                )
            )
        log.info("the pass by %s is converted in %.0f s", family.method, time.perf_counter() - began)
    reference = reference_of(model)
    path = folder / REFERENCE
    path.write_bytes(reference.to_bytes())
    return Compiled(
        openvino=ov.__version__,
        source_sha256=model.manifest.weights.sha256,
        passes=tuple(passes),
        reference=ReferenceFile(**_recorded(path).model_dump(), photos=reference.photos),
    )


def open_network(
    network: ReducingViT, family: PlanFamily, size: int, dtype: str, threads: int
) -> CompiledPass:
    """The pass of a network, converted now and ready to run; for experiments, which keep no files.

    Args:
        network: on a CPU.
        family: of the plans.
        size: input resolution, in pixels a side.
        dtype: the number format to compute in.
        threads: to compute with.

    Raises:
        ConversionInvalid: OpenVINO is not installed, or cannot convert the network.
    """
    converted = _converted(network, family, size)
    if dtype == "int8":
        quantise_weights(converted)
    with TemporaryDirectory() as folder:
        graph = Path(folder) / "pass.xml"
        _openvino().save_model(converted, graph, compress_to_fp16=False)
        parts = graph.read_bytes(), graph.with_suffix(".bin").read_bytes()
    return CompiledPass(open_streams(*parts, dtype, threads), family, network.geometry)


def compile_stored(store: ModelStore, name: str, formats: Sequence[WeightFormat]) -> StoredModel:
    """Compile a model of the store, and replace it by itself with the compiled passes beside its weights.

    A packaged model is not changed: a copy with the passes goes into the store and takes precedence.

    Args:
        store: the folder of models.
        name: of the model.
        formats: of the weights; what was compiled before is replaced.

    Raises:
        ModelNotFound: there is no such model in the store.
        ConversionInvalid: OpenVINO is not installed, or cannot convert the model.
        ModelError: the store cannot be written.
    """
    check_name(name)
    stored = store.open(name)
    manifest = stored.manifest
    model = load_model(stored.folder, device="cpu", dtype="float32")
    with store.staging() as staged:
        with store.writing():
            copy_folder(stored.folder, staged)
            if manifest.compiled is not None:
                for old in manifest.compiled.files():
                    (staged / old.file).unlink(missing_ok=True)
            compiled = compile_model(model, formats, staged)
        changed = manifest.model_copy(update={"compiled": compiled, "geometry": model.geometry})
        return store.add(changed, staged, replace=True)


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


def _recorded(path: Path) -> CompiledFile:
    return CompiledFile(file=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
