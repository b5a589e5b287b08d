"""Cutting a batch into parts of about equal size."""

from __future__ import annotations


def even_shares(images: int, limit: int) -> list[int]:
    """The fewest shares of at most `limit` images, all about equally large; no share for no image."""
    count = -(-images // limit)
    return [images * (i + 1) // count - images * i // count for i in range(count)]
