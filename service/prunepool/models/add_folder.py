"""Add the model of a folder to the store: its configuration says what it is."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from prunepool.models.add import WEIGHTS, AddedModel, add_staged
from prunepool.models.convert import read_weights, to_safetensors, write_weights
from prunepool.models.description import ModelDescription
from prunepool.models.layouts import check_merged
from prunepool.models.model_folder import ModelFolder
from prunepool.store import ModelStore


def description_of(folder: ModelFolder, name: str, origin: str) -> ModelDescription:
    """What a manifest is to say of a folder's model."""
    image = folder.image
    return ModelDescription(
        name=name,
        architecture=folder.architecture,
        input_size=image.size,
        mean=image.mean,
        std=image.std,
        crop_pct=image.crop_pct,
        crop_mode=image.crop_mode,
        crop_rounding=image.crop_rounding,
        interpolation=image.interpolation,
        licence=folder.licence or "unknown",
        origin=origin,
        labels=folder.labels,
        network=folder.network,
    )


def add_folder(
    store: ModelStore, folder: ModelFolder, description: ModelDescription, *, replace: bool = False
) -> AddedModel:
    """Add the model of a folder to the store, its tensors under timm's names.

    Args:
        store: the store to add to.
        folder: what it says of its model.
        description: of the model.
        replace: whether to replace a model of that name.

    Raises:
        WeightsInvalid, ArchitectureUnsupported, InvalidParameter, ModelError: as :func:`add_file`.
    """
    if not replace:
        store.check_free(description.name)
    with store.staging() as staged:
        with store.writing():
            notices = to_timms_names(folder, staged / WEIGHTS)
        added = add_staged(store, staged, description, replace=replace)
    return AddedModel(added.model, (*folder.notices, *notices, *added.notices))


def to_timms_names(folder: ModelFolder, target: Path) -> tuple[str, ...]:
    """Write the weights of a folder as one file of safetensors under timm's names.

    Returns:
        Facts that the user should know about the choice of weights, one sentence each.

    Raises:
        WeightsInvalid: a file is unreadable, or holds something else than named tensors.
        ModelError: the target cannot be written.
    """
    if folder.translated is None and len(folder.weights) == 1:
        return to_safetensors(folder.weights[0], target)
    named: dict[str, Tensor] = {}
    notices: tuple[str, ...] = ()
    for source in folder.weights:
        part, said = read_weights(source)
        check_merged(part, source)
        named, notices = named | part, (*notices, *said)
    write_weights(named if folder.translated is None else folder.translated.to_timm(named), target)
    return notices
