"""timm's plain attention on packed rows: one call for each group of segments of equal length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from prunepool.models.packing import RaggedSegment, equal_length_groups, joined, prefix_rows, sizes_of

#: Queries, keys and values, each [B, H, N, D].
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
    groups = equal_length_groups(segments)
    rows = attention.qkv(y).split_with_sizes([sum(s.rows for s in group) for group in groups])
    heads: list[Heads] = []
    mixed: list[Tensor] = []
    for part, group in zip(rows, groups, strict=True):
        q, k, v = _heads(part, (-1, group[0].tokens, 3, attention.num_heads, attention.head_dim))
        q, k = attention.q_norm(q), attention.k_norm(k)
        mixed.append(_attend(q, k, v, sizes_of(group)))
        counts = [s.images for s in group]
        heads += zip(
            q.split_with_sizes(counts), k.split_with_sizes(counts), v.split_with_sizes(counts), strict=True
        )
    return _projected(attention, mixed), heads


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
    pairs = F.linear(y, weight[width:], None if bias is None else bias[width:])
    groups = equal_length_groups(segments)
    rows = pairs.split_with_sizes([sum(s.rows for s in group) for group in groups])
    counts = [sum(s.images for s in group) * prefix for group in groups]
    mixed = []
    for part, own, group in zip(rows, queries.split_with_sizes(counts), groups, strict=True):
        (q,) = _heads(own, (-1, prefix, 1, attention.num_heads, attention.head_dim))
        k, v = _heads(part, (-1, group[0].tokens, 2, attention.num_heads, attention.head_dim))
        mixed.append(_attend(attention.q_norm(q), attention.k_norm(k), v, sizes_of(group)))
    return _projected(attention, mixed)


def _projected(attention: Any, mixed: Sequence[Tensor]) -> Tensor:
    """What follows the attention product in timm: norm, where there is one, and projection."""
    out: Tensor = attention.proj(attention.norm(joined(mixed)))
    return out


def _heads(rows: Tensor, shape: tuple[int, int, int, int, int]) -> tuple[Tensor, ...]:
    """Split packed rows into queries, keys, values or some of them, each [B, H, N, D].

    Args:
        rows: output of a linear layer, [B·N, S·H·D].
        shape: (B, N, S, H, D); S tensors are returned.
    """
    return rows.view(shape).permute(2, 0, 3, 1, 4).unbind(0)


def _attend(q: Tensor, k: Tensor, v: Tensor, size: Tensor | None) -> Tensor:
    """Proportional attention of [B, H, N, D] heads, as packed rows [B·N, H·D].

    While every token stands for one patch there is no bias, so that flash attention kernels can run.
    """
    bias = None if size is None else size.log().to(q.dtype)[:, None, None, :]
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return y.transpose(1, 2).reshape(q.shape[0] * q.shape[2], -1)
