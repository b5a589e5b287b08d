"""A folder of weights with a configuration: of Hugging Face's transformers, or of timm."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm

from prunepool.errors import ArchitectureUnsupported, ManifestInvalid, WeightsInvalid
from prunepool.files import NotUtf8, read_text
from prunepool.models.checked_options import checked_options
from prunepool.models.image_input import ImageInput, input_of_processor, input_of_timm
from prunepool.models.json_object import read_object
from prunepool.models.label_files import read_labels
from prunepool.models.transformers_config import TransformersNetwork, read_network
from prunepool.models.weight_files import find_weights
from prunepool.store import NetworkOptions

CONFIG = "config.json"
#: What transformers calls the configuration of an image processor; newer ones nest it in the second.
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
CARD = "README.md"
ADAPTER = "adapter_config.json"
_NESTED = "image_processor"
_LONGEST_FILE = 64 << 20
_LICENCE = re.compile(r"^licen[cs]e:[ \t]*[\"']?([^\s\"'#]+)", re.MULTILINE)
#: What transformers calls classes that nobody named.
_PLACEHOLDER = re.compile(r"LABEL_\d+")
#: Arguments of timm's networks that change nothing where nothing is trained, or that the manifest has elsewhere.
_WITHOUT_EFFECT = re.compile(
    r"(.*_)?drop(_path)?_rate|img_size|num_classes|weight_init|fix_init|dynamic_img_(size|pad)|in_chans"
)


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """What a folder says of its model.

    Attributes:
        architecture: timm's name.
        network: what the network has otherwise.
        image: its input.
        labels: names of its classes; empty if its output is an embedding; None if the folder has none.
        licence: as its card says; None if it does not.
        weights: the files of weights.
        translated: of transformers; None for timm's own names.
        notices: what the user should know, one sentence each.
    """

    architecture: str
    network: NetworkOptions | None
    image: ImageInput
    labels: tuple[str, ...] | None
    licence: str | None
    weights: tuple[Path, ...]
    translated: TransformersNetwork | None = None
    notices: tuple[str, ...] = ()


def read_folder(folder: Path) -> ModelFolder:
    """Read what a folder says of its model; the weights are found, not read.

    Raises:
        WeightsInvalid: it has no configuration or no weights, or those of an adapter.
        ArchitectureUnsupported: its model cannot be served; names what prevents it.
        ManifestInvalid: its configuration is unreadable, or asks for an input that is not served.
        InvalidParameter: its labels are of no known form.
    """
    if (folder / ADAPTER).is_file():
        raise WeightsInvalid(
            f"{folder}: is an adapter of PEFT ({ADAPTER}), not a model; merge it into its model with "
            "merge_and_unload(), and save_pretrained() that"
        )
    path = folder / CONFIG
    if not path.is_file():
        raise WeightsInvalid(
            f"{folder}: has no {CONFIG}, so that nothing says what its weights are; add the file of weights with "
            "--architecture"
        )
    config = read_object(path)
    weights = find_weights(folder)
    if isinstance(config.get("architecture"), str):
        found = _of_timm(config, path, weights)
    elif "architectures" in config or "model_type" in config:
        found = _of_transformers(config, path, weights)
    else:
        raise ManifestInvalid(
            f"{path}: has neither architecture, as timm's have it, nor architectures, as those of transformers"
        )
    return found


def _of_timm(config: Mapping[str, Any], path: Path, weights: tuple[Path, ...]) -> ModelFolder:
    nested = config.get("pretrained_cfg")
    described: Mapping[str, Any] = nested if isinstance(nested, Mapping) else config
    architecture = str(config["architecture"]).partition(".")[0]
    if not timm.is_model(architecture):
        raise ArchitectureUnsupported(f"{path}: timm {timm.__version__} has no architecture {architecture!r}")
    arguments = config.get("model_args")
    image = input_of_timm(described, str(path))
    if isinstance(arguments, Mapping) and isinstance(size := arguments.get("img_size"), int):
        image = replace(image, size=size)
    named = any(isinstance(one, Mapping) and one.get("label_names") for one in (config, described))
    licence = described.get("license")
    return ModelFolder(
        architecture=architecture,
        network=_options(arguments, path),
        image=image,
        labels=_named_labels(path) if named else None,
        licence=licence if isinstance(licence, str) else _licence(path.parent),
        weights=weights,
    )


def _options(arguments: object, path: Path) -> NetworkOptions | None:
    """The options of timm's `model_args`.

    Raises:
        ArchitectureUnsupported: one is not known.
    """
    if not isinstance(arguments, Mapping):
        return None
    given = {
        key: value
        for key, value in arguments.items()
        if value is not None and not _WITHOUT_EFFECT.fullmatch(key)
    }
    if unknown := sorted(given.keys() - NetworkOptions.model_fields.keys()):
        raise ArchitectureUnsupported(
            f"{path}: model_args.{unknown[0]} is {given[unknown[0]]!r}; "
            f"{', '.join(NetworkOptions.model_fields)} are supported"
        )
    return checked_options(given, str(path)) if given else None


def _of_transformers(config: Mapping[str, Any], path: Path, weights: tuple[Path, ...]) -> ModelFolder:
    network = read_network(config, str(path))
    processor = _processor(path.parent)
    image, notices = input_of_processor(
        processor or {}, network.kind, network.image_size, str(path.parent / PROCESSORS[0])
    )
    if processor is None:
        notices = (f"it has no {PROCESSORS[0]}: its images are prepared as is usual for {network.kind}",)
    labels = _named_labels(path) if config.get("id2label") else None
    if network.embedding:
        labels = ()
    if config.get("problem_type") == "multi_label_classification":
        notices = (
            *notices,
            "it was trained for several classes an image; its scores are those of one of them",
        )
    return ModelFolder(
        architecture=network.architecture,
        network=network.options,
        image=image,
        labels=labels,
        licence=_licence(path.parent),
        weights=weights,
        translated=network,
        notices=notices,
    )


def _named_labels(path: Path) -> tuple[str, ...] | None:
    """The labels of a configuration, unless nobody has named its classes."""
    labels = read_labels(path)
    return None if all(map(_PLACEHOLDER.fullmatch, labels)) else labels


def _processor(folder: Path) -> Mapping[str, Any] | None:
    """The configuration of a folder's image processor, if there is one."""
    for name in PROCESSORS:
        if (folder / name).is_file():
            found = read_object(folder / name)
            nested = found.get(_NESTED)
            if isinstance(nested, Mapping):
                return nested
            if name == PROCESSORS[0]:
                return found
    return None


def _licence(folder: Path) -> str | None:
    """The licence that a model card names in its front matter."""
    try:
        text = read_text(folder / CARD, _LONGEST_FILE)
    except (OSError, NotUtf8):
        return None
    front = text.split("\n---", 1)[0] if text.startswith("---") else ""
    found = _LICENCE.search(front)
    return found[1] if found else None
