"""The names of tensors in Hugging Face's transformers, translated to timm's."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]

#: Beginnings that the names of a network have where it is a part of a larger model.
_PREFIXES = ("vit.", "deit.", "dinov2_with_registers.", "dinov2.", "vision_model.")
#: Parts that answer nothing here: what was masked in pre-training, a text tower, a pooler behind the class token,
#: and positions that are counted.
_LEFT_OUT = re.compile(
    r"embeddings\.mask_token$|text_model\.|text_projection\.|logit_(scale|bias)$|pooler\.|embeddings\.position_ids$"
)
_BLOCK = r"^encoder\.layers?\.(\d+)\."
#: Rules of all models whose names differ from each other nowhere else.
_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^embeddings\.cls_token$", "cls_token"),
        (r"^embeddings\.class_embedding$", "cls_token"),
        (r"^embeddings\.register_tokens$", "reg_token"),
        (r"^embeddings\.position_embeddings$", "pos_embed"),
        (r"^embeddings\.position_embedding\.weight$", "pos_embed"),
        (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
        (r"^pre_?la?yrnorm\.", "norm_pre."),
        (_BLOCK + r"attention\.attention\.(query|key|value)\.", r"blocks.\1.attn.\2."),
        (_BLOCK + r"attention\.output\.dense\.", r"blocks.\1.attn.proj."),
        (_BLOCK + r"self_attn\.q_proj\.", r"blocks.\1.attn.query."),
        (_BLOCK + r"self_attn\.k_proj\.", r"blocks.\1.attn.key."),
        (_BLOCK + r"self_attn\.v_proj\.", r"blocks.\1.attn.value."),
        (_BLOCK + r"self_attn\.out_proj\.", r"blocks.\1.attn.proj."),
        (_BLOCK + r"(layernorm_before|norm1|layer_norm1)\.", r"blocks.\1.norm1."),
        (_BLOCK + r"(layernorm_after|norm2|layer_norm2)\.", r"blocks.\1.norm2."),
        (_BLOCK + r"intermediate\.dense\.", r"blocks.\1.mlp.fc1."),
        (_BLOCK + r"output\.dense\.", r"blocks.\1.mlp.fc2."),
        (_BLOCK + r"mlp\.weights_in\.", r"blocks.\1.mlp.fc1."),
        (_BLOCK + r"mlp\.weights_out\.", r"blocks.\1.mlp.fc2."),
        (_BLOCK + r"mlp\.", r"blocks.\1.mlp."),
        (_BLOCK + r"layer_scale([12])\.lambda1$", r"blocks.\1.ls\2.gamma"),
        (r"^(layernorm|post_layernorm)\.", "norm."),
        (r"^head\.probe$", "attn_pool.latent"),
        (r"^head\.attention\.in_proj_", "attn_pool.qkv."),
        (r"^head\.attention\.out_proj\.", "attn_pool.proj."),
        (r"^head\.layernorm\.", "attn_pool.norm."),
        (r"^head\.mlp\.", "attn_pool.mlp."),
        (r"^(classifier|cls_classifier)\.", "head."),
        (r"^distillation_classifier\.", "head_dist."),
        (r"^visual_projection\.", "head."),
    )
)
_PARTS = ("query", "key", "value")


def to_timm(weights: Weights, *, distilled: bool = False, registers: bool = False) -> dict[str, Tensor]:
    """Translate names; queries, keys and values become one tensor.

    Args:
        weights: by the names of transformers.
        distilled: whether the second token feeds a second head; else it is a register.
        registers: whether there are registers without positions.

    Returns:
        By timm's names; what has no translation keeps its own, for the message of what it does not fit.
    """
    named: dict[str, Tensor] = {}
    for key, value in weights.items():
        if (name := _translated(key, distilled)) is not None:
            named[name] = value
    if "pos_embed" in named and named["pos_embed"].ndim == 2:
        named["pos_embed"] = named["pos_embed"].unsqueeze(0)
    if "cls_token" in named:
        named["cls_token"] = named["cls_token"].reshape(1, 1, -1)
    if registers:
        # timm's registers, and with them its class token, have no position.
        named["cls_token"] = named["cls_token"] + named["pos_embed"][:, :1]
        named["pos_embed"] = named["pos_embed"][:, 1:]
    for kind in ("weight", "bias"):
        if (packed := named.pop(f"attn_pool.qkv.{kind}", None)) is not None:
            width = len(packed) // 3
            named[f"attn_pool.q.{kind}"], named[f"attn_pool.kv.{kind}"] = packed[:width], packed[width:]
    if "head.weight" in named and "head.bias" not in named:
        named["head.bias"] = named["head.weight"].new_zeros(len(named["head.weight"]))
    return _joined(named)


def _translated(key: str, distilled: bool) -> str | None:
    """A name in timm's words; None for a tensor that is left out."""
    bare = key
    while prefix := next((one for one in _PREFIXES if bare.startswith(one)), None):
        bare = bare.removeprefix(prefix)
    if _LEFT_OUT.match(bare):
        return None
    if bare == "embeddings.distillation_token":
        return "dist_token" if distilled else "reg_token"
    for pattern, name in _RULES:
        if pattern.search(bare):
            return pattern.sub(name, bare)
    return bare


def _joined(named: Weights) -> dict[str, Tensor]:
    """Concatenate the queries, keys and values of each block, in this order."""
    out: dict[str, Tensor] = {}
    for key, value in named.items():
        before, found, after = key.rpartition(".query.")
        if found:
            rows = [named.get(f"{before}.{part}.{after}") for part in _PARTS]
            if all(row is not None for row in rows):
                out[f"{before}.qkv.{after}"] = torch.cat([row for row in rows if row is not None])
                continue
        elif any(f".{part}." in key and key.replace(f".{part}.", ".query.") in named for part in _PARTS):
            continue
        out[key] = value
    return out
