"""Add weights to the store: check every number and shape, and write a manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from prunepool.errors import InvalidParameter, ManifestInvalid, WeightsInvalid
from prunepool.models.catalogue import is_projection
from prunepool.models.convert import inspect, to_safetensors
from prunepool.models.description import ModelDescription
from prunepool.models.fitting import drop_counters, first_of, fit_file
from prunepool.models.labels import imagenet_labels
from prunepool.models.loader import check_finite, network_with_weights, network_without_weights
from prunepool.models.mapped_weights import shapes_of
from prunepool.models.pooling import METHOD_OF_POOLED
from prunepool.store import Geometry, Manifest, ModelStore, ReductionDefaults, StoredModel, Weights
from prunepool.store.manifest_file import explain
from prunepool.store.model import sha256_of, tensor_shapes

WEIGHTS = "model.safetensors"
_CLASSIFIER = "head.weight"
#: Each class has a label in the manifest, in memory and in answers.
_MAX_CLASSES = 1_000_000


@dataclass(frozen=True, slots=True)
class AddedModel:
    """A model that was added.

    Attributes:
        model: the model in the store.
        notices: facts that the user should know about it, one sentence each.
    """

    model: StoredModel
    notices: tuple[str, ...] = ()


def add_file(
    store: ModelStore, source: Path, description: ModelDescription, *, replace: bool = False
) -> AddedModel:
    """Add a file of weights to the store, converted to safetensors if it is another format.

    Args:
        store: the store to add to.
        source: `.safetensors`, or a checkpoint that holds only tensors.
        description: of the model.
        replace: whether to replace a model of that name.

    Raises:
        WeightsInvalid: the weights are unreadable, not finite, too large to compute with, or of another
            architecture.
        ArchitectureUnsupported: the architecture's tokens cannot be reduced.
        InvalidParameter: labels and classes differ in number, or the name is invalid.
        ModelError: the name is taken, or the store cannot be written.
    """
    if not replace:
        store.check_free(description.name)
    with store.staging() as staged:
        with store.writing():
            notices = to_safetensors(source, staged / WEIGHTS)
        added = add_staged(store, staged, description, replace=replace)
    return AddedModel(added.model, (*notices, *added.notices))


def add_staged(
    store: ModelStore, staged: Path, description: ModelDescription, *, replace: bool = False
) -> AddedModel:
    """Add weights from a staging folder: check them, write the manifest, move the folder into the store.

    Args:
        store: the store to add to.
        staged: a folder from `store.staging()` that holds the weights as `model.safetensors`.
        description: of the model.
        replace: whether to replace a model of that name.

    Raises:
        WeightsInvalid, ArchitectureUnsupported, InvalidParameter, ModelError: as :func:`add_file`.
    """
    path = staged / WEIGHTS
    drop_counters(path)
    dtype, parameters = inspect(path)
    shapes = tensor_shapes(path)
    outputs = _outputs(shapes)
    labels, notices = _labels(description, outputs)
    description, said = fit_file(path, description, outputs)
    if said:
        dtype, parameters = inspect(path)
        shapes = tensor_shapes(path)
    try:
        manifest = Manifest.model_validate(
            {
                "name": description.name,
                "architecture": description.architecture,
                "input_size": description.input_size,
                "mean": description.mean,
                "std": description.std,
                "crop_pct": description.crop_pct,
                "crop_mode": description.crop_mode,
                "crop_rounding": description.crop_rounding,
                "interpolation": description.interpolation,
                "network": description.network,
                "licence": description.licence,
                "origin": description.origin,
                "labels": labels,
                "weights": Weights(file=WEIGHTS, sha256=sha256_of(path), dtype=dtype, parameters=parameters),
            }
        )
    except ValidationError as error:
        raise ManifestInvalid(f"{description.name}: {explain(error)}") from error
    geometry = check_fit(manifest, shapes, outputs)
    manifest = manifest.model_copy(update={"geometry": geometry})
    if geometry.pool != "token":
        reduction = ReductionDefaults(method=METHOD_OF_POOLED)
        manifest = manifest.model_copy(update={"reduction": reduction})
    check_answer(manifest, path)
    return AddedModel(store.add(manifest, staged, replace=replace), (*notices, *said))


def check_fit(manifest: Manifest, shapes: Mapping[str, tuple[int, ...]], outputs: int) -> Geometry:
    """Compare the shapes of tensors with those of a manifest's network, without computing anything.

    Args:
        manifest: without a geometry.
        shapes: of the tensors, by name.
        outputs: of the head, 0 without one.

    Returns:
        The network's geometry.

    Raises:
        ArchitectureUnsupported: the architecture's tokens cannot be reduced.
        WeightsInvalid: names keys that are missing, unexpected, or of another shape.
    """
    network = network_without_weights(manifest, outputs)
    wanted = shapes_of(network.vit)
    misshapen = [key for key in wanted if key in shapes and shapes[key] != wanted[key]]
    problems = [
        f"{len(keys)} {what} ({first_of(keys)})"
        for what, keys in (
            ("missing", [key for key in wanted if key not in shapes]),
            ("unexpected", [key for key in shapes if key not in wanted]),
            ("of another shape", [f"{k} is {list(shapes[k])}, not {list(wanted[k])}" for k in misshapen]),
        )
        if keys
    ]
    if not problems:
        return network.geometry
    hint = "; --input-size says how large its images are" if "pos_embed" in misshapen else ""
    raise WeightsInvalid(
        f"the weights are not those of {manifest.architecture} at {manifest.input_size}² with "
        f"{outputs or 'no'} classes: {', '.join(problems)}{hint}"
    )


def check_answer(manifest: Manifest, weights: Path) -> None:
    """Compute one image, in float32.

    Raises:
        WeightsInvalid: the logits are not finite: some of the weights are too large; names the largest.
    """
    check_finite(network_with_weights(StoredModel(manifest, weights.parent)), manifest)


def _outputs(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Outputs of the head, which are its rows; 0 for weights without a head."""
    shape = shapes.get(_CLASSIFIER)
    if shape is None:
        return 0
    if len(shape) != 2:
        raise WeightsInvalid(f"the weights have no classifier: {_CLASSIFIER} is of shape {list(shape)}")
    if shape[0] > _MAX_CLASSES:
        raise WeightsInvalid(
            f"{_CLASSIFIER} has {shape[0]:,} rows; at most {_MAX_CLASSES:,} classes are served"
        )
    return shape[0]


def _labels(description: ModelDescription, outputs: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """One label for each class, or none where the output is an embedding; and a notice if they were not given."""
    if description.labels == ():
        return (), ("its output is an embedding, and /classify refuses it",)
    if description.labels is not None:
        if len(description.labels) != outputs:
            rows = f"{outputs}, one for each row of {_CLASSIFIER}"
            none = f"left out: the weights have no classifier ({_CLASSIFIER} is missing)"
            raise InvalidParameter("labels", f"{len(description.labels)} labels", rows if outputs else none)
        return description.labels, ()
    if not outputs:
        return (), ("it has no classification head: its output is an embedding, and /classify refuses it",)
    known = imagenet_labels(outputs)
    if known is not None:
        return known, (f"its {outputs} classes are taken to be ImageNet's; --labels names others",)
    if is_projection(description.architecture, outputs):
        own = f"those of timm's own {description.architecture}"
        notice = f"its {outputs} outputs are taken for an embedding, as {own}, and /classify refuses it"
        return (), (f"{notice}; --labels makes classes of them",)
    numbered = tuple(f"class {index}" for index in range(outputs))
    return numbered, (f"its classes are called 'class 0' … 'class {outputs - 1}'; --labels names them",)
