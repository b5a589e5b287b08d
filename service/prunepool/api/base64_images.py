"""Images that come as text: base64, or a data URL of it. Pure functions."""

from __future__ import annotations

import binascii
import re

from prunepool.errors import ImageUndecodable, UnsupportedMediaType

#: Characters decoded in one call. The call holds the interpreter's lock, so the event loop waits for it even if
#: it runs in another thread.
_PIECE = 256 * 1024
_WHITE_SPACE = b"\t\n\r "
_STANDARD_ALPHABET = bytes.maketrans(b"-_", b"+/")
_DATA_URL = re.compile(r"data:(?P<type>[^;,]*)(?P<parameters>(;[^;,]*)*),", re.ASCII)


def decode_image_text(text: str) -> bytes:
    """Decode an image from base64 (standard or URL-safe alphabet, white space ignored) or a data URL of it.

    Raises:
        ImageUndecodable: the text is not base64, or empty.
        UnsupportedMediaType: the data URL names a type that is not an image.
    """
    start = _end_of_head(text) if text.startswith("data:") else 0
    try:
        data = _decode(text, start)
    except (binascii.Error, ValueError) as error:
        raise ImageUndecodable(f"the image is not valid base64: {error}") from error
    if not data:
        raise ImageUndecodable("the image is empty")
    return data


def _end_of_head(url: str) -> int:
    """Return where the base64 of a data URL begins."""
    head = _DATA_URL.match(url)
    if head is None or not head["parameters"].lower().endswith(";base64"):
        raise ImageUndecodable("a data URL must read data:image/…;base64,… to be an image")
    kind = head["type"].lower()
    if kind not in ("", "application/octet-stream") and not kind.startswith("image/"):
        raise UnsupportedMediaType(
            f"a data URL must be of type image/* or application/octet-stream; got {kind[:100]!r}"
        )
    return head.end()


def _decode(text: str, start: int) -> bytes:
    decoded: list[bytes] = []
    rest, padded = b"", False
    for at in range(start, len(text), _PIECE):
        piece = rest + _ascii(text[at : at + _PIECE]).translate(_STANDARD_ALPHABET, _WHITE_SPACE)
        last = at + _PIECE >= len(text)
        # Four characters make three bytes, so only the last piece may end in the middle of a group.
        whole = len(piece) if last else len(piece) - len(piece) % 4
        if whole and padded:
            raise binascii.Error("Excess data after padding")
        decoded.append(binascii.a2b_base64(piece[:whole], strict_mode=True))
        padded = piece.endswith(b"=", 0, whole)
        rest = piece[whole:]
    return b"".join(decoded)


def _ascii(text: str) -> bytes:
    try:
        return text.encode("ascii")
    except UnicodeEncodeError:
        raise ValueError("string argument should contain only ASCII characters") from None
