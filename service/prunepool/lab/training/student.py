"""A new student to train, and its result in the store."""

from __future__ import annotations

import torch
from safetensors.torch import save_file
from torch import Tensor

from prunepool.errors import InvalidParameter
from prunepool.models.add import WEIGHTS, AddedModel, add_staged
from prunepool.models.catalogue import look_up
from prunepool.models.description import ModelDescription
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
        name: of the model.
        labels: one for each class.
        like: a model whose input resolution and normalisation it takes; None for timm's defaults of the
            architecture.
        device: as in `load_model`.
        seed: seed of the weights.

    Raises:
        ArchitectureUnsupported: timm has no such architecture, or its tokens cannot be reduced.
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
            "crop_mode": seen.crop_mode,
            "crop_rounding": "even" if like is None else like.crop_rounding,
            "interpolation": seen.interpolation,
            "labels": labels,
            "licence": "unknown",
            "origin": "random weights",
            # Nothing is on disk yet, so that no file has this hash.
            "weights": Weights(sha256="0" * 64, dtype="float32", parameters=1),
        }
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = network_of(manifest)
    return LoadedModel(network.to(resolve_device(device)), manifest)


def check_dtype(dtype: str) -> None:
    """Check that weights can be stored in a dtype; meant to be called before long work.

    Raises:
        InvalidParameter: they cannot; names the dtypes that are supported.
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
    """Add trained weights to the store, without the student's profile, which was measured with other weights.

    Args:
        store: the store to add to.
        weights: tensors by timm's names.
        student: manifest of the model that was trained.
        name: of the result.
        licence: of the result.
        origin: of the result.
        dtype: of the file; see :func:`check_dtype`.
        replace: whether to replace a model of that name.

    Raises:
        WeightsInvalid: a weight is not finite, or not in this dtype.
        ModelError: the name is taken, or the store cannot be written.
    """
    description = ModelDescription(
        name=name,
        architecture=student.architecture,
        input_size=student.input_size,
        mean=student.mean,
        std=student.std,
        crop_pct=student.crop_pct,
        crop_mode=student.crop_mode,
        crop_rounding=student.crop_rounding,
        interpolation=student.interpolation,
        licence=licence,
        origin=origin,
        labels=student.labels,
        network=student.network,
    )
    with store.staging() as staged:
        named = {key: value.detach().cpu().to(_DTYPES[dtype]).contiguous() for key, value in weights.items()}
        with store.writing():
            save_file(named, staged / WEIGHTS, {"format": "pt"})
        return add_staged(store, staged, description, replace=replace)
