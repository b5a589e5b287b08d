"""The configuration of a model of Hugging Face's transformers, as timm's network of the same function."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import timm
from torch import Tensor

from prunepool.errors import ArchitectureUnsupported
from prunepool.models.checked_options import checked_options
from prunepool.models.transformers_names import to_timm
from prunepool.store import NetworkOptions

#: Values that a configuration may leave out, for it is written without what is usual.
_USUAL: Mapping[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "num_channels": 3,
    "qkv_bias": True,
}
_USUAL_OF: Mapping[str, Mapping[str, Any]] = {
    "vit": {"intermediate_size": 3072, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "patch_size": 16},
    "deit": {"intermediate_size": 3072, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "patch_size": 16},
    "dinov2": {"mlp_ratio": 4, "hidden_act": "gelu", "layer_norm_eps": 1e-6, "patch_size": 14},
    "siglip": {
        "intermediate_size": 3072,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
        "patch_size": 16,
    },
    "clip": {
        "intermediate_size": 3072,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "patch_size": 32,
        "projection_dim": 512,
    },
}
_USUAL_OF = {**_USUAL_OF, "dinov2_with_registers": {**_USUAL_OF["dinov2"], "num_register_tokens": 4}}
#: timm's names of activations, by those of transformers; None for the one that is timm's own.
_ACTIVATIONS = {
    "gelu": None,
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
#: timm's sizes, by channels, blocks and heads.
_SIZES = {
    (192, 12, 3): "tiny",
    (384, 12, 6): "small",
    (768, 12, 12): "base",
    (1024, 24, 16): "large",
    (1280, 32, 16): "huge",
}
_USUAL_MLP_RATIO = 4
#: Tensors that some models store and do not use, by their names in timm.
_UNUSED = {
    "CLIPForImageClassification": re.compile(r"norm\."),
    "SiglipForImageClassification": re.compile(r"attn_pool\."),
    "CLIPVisionModel": re.compile(r"head\."),
}
#: timm makes a layer scale where there is any number; the weights have the values.
_ANY_SCALE = 1e-5


@dataclass(frozen=True, slots=True)
class TransformersNetwork:
    """A network of transformers in timm's words.

    Attributes:
        kind: `model_type` of its tower, `vit`.
        architecture: timm's name.
        options: what the network has otherwise.
        image_size: input resolution, in pixels a side.
        distilled: whether a second token feeds a second head.
        embedding: whether its output is an embedding, not classes.
        unused: names in timm's words of tensors that this model stores and does not use.
    """

    kind: str
    architecture: str
    options: NetworkOptions
    image_size: int
    distilled: bool = False
    embedding: bool = False
    unused: re.Pattern[str] | None = None

    def to_timm(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Its weights under timm's names, without those that it does not use."""
        registers = self.kind == "dinov2_with_registers"
        named = to_timm(weights, distilled=self.distilled, registers=registers)
        return {key: value for key, value in named.items() if not (self.unused and self.unused.match(key))}


def read_network(config: Mapping[str, Any], source: str) -> TransformersNetwork:
    """The network that a configuration describes.

    Args:
        config: of `config.json`.
        source: its path, for messages.

    Raises:
        ArchitectureUnsupported: the model is none of those that can be served; names what prevents it.
        ManifestInvalid: one of its numbers is not allowed.
    """
    architecture = next(iter(config.get("architectures") or ()), None)
    if not isinstance(architecture, str):
        raise ArchitectureUnsupported(
            f"{source}: has no architectures, so that it is not known what was saved"
        )
    make = _MODELS.get(architecture)
    if make is None:
        known = ", ".join(sorted(_MODELS))
        raise ArchitectureUnsupported(f"{source}: is a {architecture}; of transformers are served: {known}")
    kind, options = make
    tower = config.get("vision_config") if kind in ("clip", "siglip") else None
    stated: Mapping[str, Any] = tower if isinstance(tower, Mapping) else config
    values = {**_USUAL, **_USUAL_OF[kind], **stated}
    return _network(kind, architecture, values, options, source)


_TOKEN = {"global_pool": "token"}
#: CLIP's classifier reads the mean of the patches as the last block leaves it, without a norm.
_CLIP = {"pre_norm": True, "class_token": True}
_CLIP_CLASSIFIER = {**_CLIP, "global_pool": "avg", "final_norm": False, "fc_norm": False}
_SIGLIP = {"class_token": False}
_SIGLIP_CLASSIFIER = {**_SIGLIP, "global_pool": "avg", "fc_norm": False}
#: By the class that saved the weights: the tower, and how its head reads it.
_MODELS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "ViTForImageClassification": ("vit", {}),
    "ViTModel": ("vit", {}),
    "DeiTForImageClassification": ("deit", {"reg_tokens": 1}),
    "DeiTForImageClassificationWithTeacher": ("deit", {}),
    "DeiTModel": ("deit", {"reg_tokens": 1}),
    "Dinov2ForImageClassification": ("dinov2", {"global_pool": "tokenavg"}),
    "Dinov2Model": ("dinov2", _TOKEN),
    "Dinov2WithRegistersForImageClassification": ("dinov2_with_registers", {"global_pool": "tokenavg"}),
    "Dinov2WithRegistersModel": ("dinov2_with_registers", _TOKEN),
    "SiglipForImageClassification": ("siglip", _SIGLIP_CLASSIFIER),
    "SiglipVisionModel": ("siglip", {**_SIGLIP, "global_pool": "map"}),
    "SiglipModel": ("siglip", {**_SIGLIP, "global_pool": "map"}),
    "CLIPForImageClassification": ("clip", _CLIP_CLASSIFIER),
    "CLIPVisionModel": ("clip", {**_CLIP, **_TOKEN}),
    "CLIPVisionModelWithProjection": ("clip", {**_CLIP, **_TOKEN}),
    "CLIPModel": ("clip", {**_CLIP, **_TOKEN}),
}
#: timm's architectures of each tower, with the options that they have already; the size and the patch go in.
_ARCHITECTURES: Mapping[str, Sequence[tuple[str, Mapping[str, Any]]]] = {
    "deit": (("deit_{}_distilled_patch{}_224", {}),),
    "vit": (("vit_{}_patch{}_224", {"global_pool": "token"}),),
    "dinov2": (("vit_{}_patch{}_dinov2", {"global_pool": "token", "init_values": _ANY_SCALE}),),
    "dinov2_with_registers": (
        (
            "vit_{}_patch{}_reg4_dinov2",
            {"global_pool": "token", "init_values": _ANY_SCALE, "reg_tokens": 4, "no_embed_class": True},
        ),
    ),
    "siglip": (
        ("vit_{}_patch{}_siglip_gap_224", _SIGLIP_CLASSIFIER),
        ("vit_{}_patch{}_siglip_224", {**_SIGLIP, "global_pool": "map"}),
    ),
    "clip": (
        ("vit_{}_patch{}_clip_quickgelu_224", {**_CLIP, **_TOKEN, "act_layer": "quick_gelu"}),
        ("vit_{}_patch{}_clip_224", {**_CLIP, **_TOKEN}),
    ),
}


def _network(
    kind: str, architecture: str, values: Mapping[str, Any], head: Mapping[str, Any], source: str
) -> TransformersNetwork:
    width, depth, heads, patch = (
        _count(values, key, source)
        for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "patch_size")
    )
    if values["num_channels"] != 3:
        raise ArchitectureUnsupported(f"{source}: num_channels is {values['num_channels']}; images have 3")
    if values.get("use_swiglu_ffn"):
        raise ArchitectureUnsupported(
            f"{source}: use_swiglu_ffn is true, as in DINOv2's giant; pull timm's weights of it by their name"
        )
    distilled = architecture.endswith("WithTeacher")
    inside = values.get("intermediate_size") or round(values.get("mlp_ratio", _USUAL_MLP_RATIO) * width)
    wanted: dict[str, Any] = {
        **head,
        "act_layer": _activation(values["hidden_act"], source),
        "qkv_bias": None if values["qkv_bias"] else False,
    }
    if kind.startswith("dinov2"):
        wanted["init_values"] = _ANY_SCALE
    if kind == "dinov2_with_registers":
        wanted |= {"reg_tokens": values["num_register_tokens"], "no_embed_class": True}
    tower = "vit" if kind == "deit" and not distilled else kind
    name, options = _architecture(tower, (width, depth, heads), patch, wanted)
    options |= {
        "mlp_ratio": None if inside == _USUAL_MLP_RATIO * width else _ratio(inside, width),
        "norm_eps": values["layer_norm_eps"],
    }
    return TransformersNetwork(
        kind=kind,
        architecture=name,
        options=checked_options(options, source),
        image_size=_count(values, "image_size", source),
        distilled=distilled,
        embedding=not architecture.endswith(("ForImageClassification", "WithTeacher")),
        unused=_UNUSED.get(architecture),
    )


def _architecture(
    tower: str, size: tuple[int, int, int], patch: int, wanted: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Timm's architecture of a size, the one with the fewest options that differ, and those options."""
    found = []
    for family, own in _ARCHITECTURES[tower]:
        name = family.format(_SIZES.get(size, ""), patch)
        if timm.is_model(name):
            differs = {key: value for key, value in wanted.items() if own.get(key) != value}
            if "act_layer" in differs:
                differs["act_layer"] = wanted["act_layer"] or "gelu"
            found.append((name, {key: value for key, value in differs.items() if value is not None}))
    if found:
        return min(found, key=lambda one: len(one[1]))
    width, depth, heads = size
    sizes = {"embed_dim": width, "depth": depth, "num_heads": heads, "patch_size": patch}
    usual = "deit_base_distilled_patch16_224" if tower == "deit" else "vit_base_patch16_224"
    return usual, {**sizes, **wanted}


def _ratio(inside: int, width: int) -> float:
    """The ratio whose product with the width, cut to an integer as timm does, is the number of channels."""
    ratio = inside / width
    return ratio if int(width * ratio) == inside else (inside + 0.5) / width


def _activation(name: object, source: str) -> str | None:
    if name not in _ACTIVATIONS:
        raise ArchitectureUnsupported(
            f"{source}: hidden_act is {name!r}; {', '.join(_ACTIVATIONS)} are supported"
        )
    return _ACTIVATIONS[str(name)]


def _count(values: Mapping[str, Any], key: str, source: str) -> int:
    """A number of the configuration; two that are equal are as good as one."""
    value = values[key]
    if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
        value = value[0]
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ArchitectureUnsupported(f"{source}: {key} is {value!r}; one positive number is supported")
    return value
