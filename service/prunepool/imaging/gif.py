"""GIF files as Pillow reads them, without what it stumbles over before the first picture."""

from __future__ import annotations

import io

from PIL.GifImagePlugin import GifImageFile

from prunepool.imaging.parts import too_many_parts

_EXTENSION, _GRAPHIC_CONTROL = 0x21, 0xF9
_CONTROL_BYTES = 4


def open_gif(data: bytes, max_blocks: int) -> GifImageFile:
    """Open a GIF file; no pixel is decoded.

    Pillow refuses a whole file for an extension that is empty or cut short. It gets none but the one that says
    which colour is transparent.

    Raises:
        ImageUndecodable: its extensions have more blocks than allowed.
        Exception: whatever Pillow raises.
    """
    return GifImageFile(io.BytesIO(_without_extensions(data, max_blocks)), "")


def _without_extensions(data: bytes, max_blocks: int) -> bytes:
    flags = data[10] if len(data) > 10 else 0
    at = 13 + ((3 << (flags & 7) + 1) if flags & 0x80 else 0)
    kept = [data[:at]]
    while data[at : at + 1] == bytes([_EXTENSION]):
        start, label, at = at, data[at + 1 : at + 2], at + 2
        first = data[at] if at < len(data) else 0
        while at < len(data) and (length := data[at]):
            at += 1 + length
            max_blocks -= 1
            if max_blocks < 0:
                raise too_many_parts()
        at += 1
        if label == bytes([_GRAPHIC_CONTROL]) and first >= _CONTROL_BYTES:
            kept.append(data[start:at])
    return b"".join((*kept, data[at:]))
