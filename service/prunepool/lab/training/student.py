"""Where a run begins, and how its result gets into the store."""

from __future__ import annotations

import torch
from safetensors.torch import save_file
from torch import Tensor

from prunepool.errors import InvalidParameter
from prunepool.models.add import WEIGHTS, AddedModel, ModelDescription, add_staged
from prunepool.models.catalogue import look_up
from prunepool.models.loaded_model import LoadedModel
from prunepool.models.loader import network_of, resolve_device
from prunepool.store import Manifest, ModelStore, Weights

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def new_student(
    architecture: str, name: str, labels: tuple[str, ...], like: Manifest | None, device: str, seed: int
) -> LoadedModel:
    """A model with random weights.

    Args:
        architecture: timm's name.
        name: what it will be called.
        labels: one a class.
        like: another model whose pixels it takes; None for what timm says of the architecture.
        device: as in `load_model`.
        seed: of the weights.

    Raises:
        ArchitectureUnsupported: timm has it not, or its tokens cannot be reduced.
    """
    entry = look_up(architecture)
    seen = like or entry
    manifest = Manifest.model_validate(
        {
            "name": name,
            "architecture": entry.architecture,
            "input_size": seen.input_size,
            "mean": seen.mean,
            "std": seen.std,
            "crop_pct": seen.crop_pct,
            "interpolation": seen.interpolation,
            "labels": labels,
            "licence": "unknown",
            "origin": "random weights",
            # Nothing is on disk yet: no file has this hash.
            "weights": Weights(sha256="0" * 64, dtype="float32", parameters=1),
        }
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = network_of(manifest)
    return LoadedModel(network.to(resolve_device(device)), manifest)


def check_dtype(dtype: str) -> None:
    """Find out before long work that weights cannot be stored so.

    Raises:
        InvalidParameter: names the formats that there are.
    """
    if dtype not in _DTYPES:
        raise InvalidParameter("weights", dtype, "one of " + ", ".join(_DTYPES))


def keep(
    store: ModelStore,
    weights: dict[str, Tensor],
    student: Manifest,
    name: str,
    licence: str,
    origin: str,
    dtype: str,
    *,
    replace: bool,
) -> AddedModel:
    """Put trained weights into the store. A profile that was measured of other weights stays behind.

    Args:
        store: where to.
        weights: by timm's names.
        student: of the model that was trained.
        name: of the result.
        licence: of the result.
        origin: of the result.
        dtype: of the file; see :func:`check_dtype`.
        replace: whether a model of that name gives way.

    Raises:
        WeightsInvalid: a weight that is not finite, or not in this dtype.
        ModelError: a model of that name is there already, or the store cannot be written.
    """
    description = ModelDescription(
        name=name,
        architecture=student.architecture,
        input_size=student.input_size,
        mean=student.mean,
        std=student.std,
        crop_pct=student.crop_pct,
        interpolation=student.interpolation,
        licence=licence,
        origin=origin,
        labels=student.labels,
    )
    with store.staging() as staged:
        named = {key: value.detach().cpu().to(_DTYPES[dtype]).contiguous() for key, value in weights.items()}
        save_file(named, staged / WEIGHTS, {"format": "pt"})
        return add_staged(store, staged, description, replace=replace)
