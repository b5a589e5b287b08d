"""timm's plain attention on packed rows: one call for neighbouring segments of equal length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from prunepool.models.packing import RaggedSegment, attention_calls, joined, prefix_rows, sizes_of, split_rows

#: Queries, keys and values of one segment or one call, each [B, H, N, D].
Heads = tuple[Tensor, Tensor, Tensor]


def self_attention(
    attention: Any, y: Tensor, segments: Sequence[RaggedSegment]
) -> tuple[Tensor, list[Heads]]:
    """Self-attention within each image.

    Args:
        attention: a timm `Attention`.
        y: normalised tokens, [Σ tokens, C].
        segments: of which `y` is made.

    Returns:
        The output, [Σ tokens, C], and the heads of each segment.
    """
    calls = attention_calls(segments)
    qkv = split_rows(attention.qkv(y), [sum(s.rows for s in call) for call in calls])
    heads_of = [_split(attention, rows, call[0].tokens, 3) for rows, call in zip(qkv, calls, strict=True)]
    out, call_heads = _attention(attention, calls, heads_of)
    segment_heads: list[Heads] = []
    for heads, call in zip(call_heads, calls, strict=True):
        counts = [s.images for s in call]
        q, k, v = (split_rows(part, counts) for part in heads)
        segment_heads += zip(q, k, v, strict=True)
    return out, segment_heads


def prefix_attention(attention: Any, y: Tensor, segments: Sequence[RaggedSegment], prefix: int) -> Tensor:
    """Attention of the prefix tokens to all tokens of their image.

    Args:
        attention: a timm `Attention`.
        y: normalised tokens, [Σ tokens, C].
        segments: of which `y` is made.
        prefix: P, prefix tokens of each image.

    Returns:
        The output for the prefix tokens, [B·P, C].
    """
    width = attention.num_heads * attention.head_dim
    weight, bias = attention.qkv.weight, attention.qkv.bias
    queries = F.linear(
        prefix_rows(y, segments, prefix), weight[:width], None if bias is None else bias[:width]
    )
    keys_values = F.linear(y, weight[width:], None if bias is None else bias[width:])
    calls = attention_calls(segments)
    q_rows = split_rows(queries, [sum(s.images for s in call) * prefix for call in calls])
    kv_rows = split_rows(keys_values, [sum(s.rows for s in call) for call in calls])
    heads_of = [
        (*_split(attention, q, prefix, 1), *_split(attention, kv, call[0].tokens, 2))
        for q, kv, call in zip(q_rows, kv_rows, calls, strict=True)
    ]
    return _attention(attention, calls, heads_of)[0]


def _attention(
    attention: Any, calls: Sequence[Sequence[RaggedSegment]], split: Sequence[tuple[Tensor, ...]]
) -> tuple[Tensor, list[Heads]]:
    """Attention from the queries, keys and values of each call to the output projection.

    Args:
        attention: a timm `Attention`.
        calls: the segments of each call.
        split: queries, keys and values of each call, each [B, H, N, D].

    Returns:
        The output, packed rows [Σ queries, C], and the heads of each call with queries and keys normalised.
    """
    call_heads = [(attention.q_norm(q), attention.k_norm(k), v) for q, k, v in split]
    mixed = [_attend(*heads, sizes_of(call)) for heads, call in zip(call_heads, calls, strict=True)]
    out: Tensor = attention.proj(attention.norm(joined(mixed)))
    return out, call_heads


def _split(attention: Any, rows: Tensor, tokens: int, parts: int) -> tuple[Tensor, ...]:
    """Split packed rows into queries, keys, values or some of them.

    Args:
        attention: a timm `Attention`.
        rows: output of a linear layer, [B·N, S·H·D].
        tokens: N, rows of each image.
        parts: S, how many of queries, keys and values the rows hold.

    Returns:
        S tensors [B, H, N, D].
    """
    shape = (-1, tokens, parts, attention.num_heads, attention.head_dim)
    return rows.view(shape).permute(2, 0, 3, 1, 4).unbind(0)


def _attend(q: Tensor, k: Tensor, v: Tensor, size: Tensor | None) -> Tensor:
    """Proportional attention of [B, H, N, D] heads, as packed rows [B·N, H·D].

    While every token stands for one patch there is no bias, so that flash attention kernels can run.
    """
    bias = None if size is None else size.log().to(q.dtype)[:, None, None, :]
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return y.transpose(1, 2).reshape(q.shape[0] * q.shape[2], -1)
