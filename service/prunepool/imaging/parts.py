"""The limit on the parts of an image file: each is parsed in Python, and a small file may have very many."""

from __future__ import annotations

from prunepool.errors import ImageUndecodable


def too_many_parts() -> ImageUndecodable:
    """The error of a file that has more parts than allowed: chunks, blocks, segments or reads."""
    return ImageUndecodable("the image file consists of too many small parts")
