"""The header of a WebP file."""

from __future__ import annotations

_ANIMATED, _HAS_ALPHA = 0x02, 0x10
_FLAGS = 20


def canvas_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of the canvas; None if the header is too short or of an unknown kind."""
    kind, head = data[12:16], data[20:30]
    if len(head) < 10:
        return None
    if kind == b"VP8X":
        return int.from_bytes(head[4:7], "little") + 1, int.from_bytes(head[7:10], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(head[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        return int.from_bytes(head[6:8], "little") & 0x3FFF, int.from_bytes(head[8:10], "little") & 0x3FFF
    return None


def with_transparent_canvas(data: bytes) -> bytes:
    """The same file, an animation marked as having alpha.

    libwebp then tells what the first frame does not cover from what it shows as black.
    """
    if data[12:16] != b"VP8X" or not data[_FLAGS] & _ANIMATED:
        return data
    return data[:_FLAGS] + bytes([data[_FLAGS] | _HAS_ALPHA]) + data[_FLAGS + 1 :]
