"""timm's attention on packed rows: one call for neighbouring segments of equal length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from prunepool.models.packing import (
    RaggedSegment,
    attention_calls,
    counts_of,
    joined,
    places_of,
    prefix_rows,
    split_rows,
)
from prunepool.models.positions import Positions, Relative, Rotary


class Heads(NamedTuple):
    """What the attention of one segment or one call is computed from.

    Attributes:
        query: normalised and rotated, [B, H, N, D].
        key: the same.
        value: [B, H, N, D].
        bias: what positions add to the logits, [B, H, N, N] or [1, H, N, N]; None for nothing.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    bias: Tensor | None = None


def self_attention(
    attention: Any, y: Tensor, segments: Sequence[RaggedSegment], positions: Positions = None
) -> tuple[Tensor, list[Heads]]:
    """Self-attention within each image.

    Args:
        attention: timm's module; :mod:`prunepool.models.family` names the kinds.
        y: normalised tokens, [Σ tokens, C].
        segments: of which `y` is made.
        positions: that the block adds.

    Returns:
        The output, [Σ tokens, C], and the heads of each segment.
    """
    calls = attention_calls(segments)
    rows = [sum(s.rows for s in call) for call in calls]
    parts = [split_rows(part, rows) for part in _projected(attention, y)]
    call_heads = [
        _heads(attention, q, k, v, call, positions) for q, k, v, call in zip(*parts, calls, strict=True)
    ]
    mixed = [_attend(heads, counts_of(call)) for heads, call in zip(call_heads, calls, strict=True)]
    segment_heads: list[Heads] = []
    for heads, call in zip(call_heads, calls, strict=True):
        segment_heads += _by_segment(heads, [s.images for s in call])
    return _output(attention, joined(mixed), y), segment_heads


def prefix_attention(
    attention: Any, y: Tensor, segments: Sequence[RaggedSegment], prefix: int, positions: Positions = None
) -> Tensor:
    """Attention of the prefix tokens to all tokens of their image.

    Args:
        attention: timm's module.
        y: normalised tokens, [Σ tokens, C].
        segments: of which `y` is made.
        prefix: P, prefix tokens of each image.
        positions: that the block adds.

    Returns:
        The output for the prefix tokens, [B·P, C].
    """
    front = prefix_rows(y, segments, prefix)
    calls = attention_calls(segments)
    q_rows = split_rows(_queries(attention, front), [sum(s.images for s in call) * prefix for call in calls])
    rows = [sum(s.rows for s in call) for call in calls]
    k_rows, v_rows = (split_rows(part, rows) for part in _keys_values(attention, y))
    mixed = [
        _attend(_heads(attention, q, k, v, call, positions, prefix), counts_of(call))
        for q, k, v, call in zip(q_rows, k_rows, v_rows, calls, strict=True)
    ]
    return _output(attention, joined(mixed), front)


def _output(attention: Any, mixed: Tensor, y: Tensor) -> Tensor:
    """From the mixed values, [rows, H·D], to the module's output, [rows, C], for the tokens y [rows, C]."""
    if hasattr(attention, "norm"):
        mixed = attention.norm(mixed)
    if getattr(attention, "gate", None) is not None:
        mixed = mixed * attention.gate(y).sigmoid()
    out: Tensor = attention.proj(mixed)
    return out


def _projected(attention: Any, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of tokens [rows, C], each [rows, H·D]."""
    if attention.qkv is None:
        return attention.q_proj(y), attention.k_proj(y), attention.v_proj(y)
    bias = _bias(attention)
    if bias is not None and getattr(attention, "qkv_bias_separate", False):
        rows = attention.qkv(y)
        rows += bias
    else:
        rows = F.linear(y, attention.qkv.weight, bias)
    q, k, v = rows.chunk(3, dim=-1)
    return q, k, v


def _queries(attention: Any, y: Tensor) -> Tensor:
    """Queries alone, [rows, H·D]."""
    if attention.qkv is None:
        q: Tensor = attention.q_proj(y)
        return q
    weight, bias = attention.qkv.weight, _bias(attention)
    width = weight.shape[0] // 3
    return F.linear(y, weight[:width], None if bias is None else bias[:width])


def _keys_values(attention: Any, y: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values alone, each [rows, H·D]."""
    if attention.qkv is None:
        return attention.k_proj(y), attention.v_proj(y)
    weight, bias = attention.qkv.weight, _bias(attention)
    width = weight.shape[0] // 3
    k, v = F.linear(y, weight[width:], None if bias is None else bias[width:]).chunk(2, dim=-1)
    return k, v


def _bias(attention: Any) -> Tensor | None:
    """The bias of the fused projection, [3·H·D]; EVA and BEiT keep it in parts, with keys that have none."""
    if getattr(attention, "q_bias", None) is not None:
        return torch.cat((attention.q_bias, attention.k_bias, attention.v_bias))
    bias: Tensor | None = attention.qkv.bias
    return bias


def _heads(
    attention: Any,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    call: Sequence[RaggedSegment],
    positions: Positions,
    queries: int | None = None,
) -> Heads:
    """From the rows of a call to heads as they enter attention: normalised, rotated, groups of them expanded.

    Args:
        attention: timm's module.
        q: queries, [B·M, H·D].
        k: keys, [B·N, H·D], or fewer heads.
        v: values, the same.
        call: its segments.
        positions: that the block adds.
        queries: M, the first tokens of each image, for which there are queries; None for all N.
    """
    tokens = call[0].tokens
    query = _split(attention, q, tokens if queries is None else queries, attention.num_heads)
    few = getattr(attention, "num_kv_heads", attention.num_heads)
    key, value = _split(attention, k, tokens, few), _split(attention, v, tokens, few)
    if hasattr(attention, "q_norm"):
        query, key = attention.q_norm(query), attention.k_norm(key)
    bias: Tensor | None = None
    if isinstance(positions, Rotary):
        place = places_of(call)
        key = positions.turned(key, place).type_as(value)
        if queries is None:  # prefix tokens have no position
            query = positions.turned(query, place).type_as(value)
    elif isinstance(positions, Relative):
        bias = positions.bias(places_of(call))
        bias = bias if queries is None else bias[:, :, :queries]
    if few != attention.num_heads:
        groups = attention.num_heads // few
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    return Heads(query, key, value, bias)


def _split(attention: Any, rows: Tensor, tokens: int, heads: int) -> Tensor:
    """Rows [B·N, H·D] as heads [B, H, N, D]."""
    return rows.view(-1, tokens, heads, rows.shape[-1] // heads).transpose(1, 2)


def _by_segment(heads: Heads, counts: Sequence[int]) -> list[Heads]:
    """The heads of a call by its segments, which have so many images each."""
    q, k, v = (split_rows(part, counts) for part in heads[:3])
    bias: Sequence[Tensor | None] = [heads.bias] * len(counts)
    if heads.bias is not None and heads.bias.shape[0] > 1:
        bias = split_rows(heads.bias, counts)
    return [Heads(*segment) for segment in zip(q, k, v, bias, strict=True)]


def _attend(heads: Heads, size: Tensor | None) -> Tensor:
    """Proportional attention, as packed rows [B·N, H·D].

    While every token stands for one patch there is no bias but that of positions, so that flash attention kernels
    can run where there is none.
    """
    q, k, v, bias = heads
    if size is not None:
        proportional = size.log().to(q.dtype)[:, None, None, :]
        bias = proportional if bias is None else bias + proportional
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return y.transpose(1, 2).reshape(q.shape[0] * q.shape[2], -1)
