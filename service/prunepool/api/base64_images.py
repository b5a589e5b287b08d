"""Images that come as text: base64, or a data URL of it. Pure functions."""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Iterator

from prunepool.errors import ImageUndecodable, PrunepoolError, UnsupportedMediaType

#: Characters decoded in one call. The call holds the interpreter's lock, so the event loop waits for it even if
#: it runs in another thread.
_PIECE = 256 * 1024
_WHITE_SPACE = b"\t\n\v\f\r "
_STANDARD_ALPHABET = bytes.maketrans(b"-_", b"+/")
#: The characters of base64 that may be percent-encoded, each with its two ways of writing it.
_PERCENT_ENCODED = [
    (code, b"%c" % character)
    for character in b"+/=-_\r\n "
    for code in {b"%%%02X" % character, b"%%%02x" % character}
]
#: `https:`, `s3:`, `C:`, and `data:` too; base64 has no colon.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:", re.ASCII)
_DATA_URL = re.compile(r"data:(?P<type>[^;,]*)(?P<parameters>(;[^;,]*)*),", re.ASCII | re.IGNORECASE)
#: How bytes begin that are a URL; no format of images begins so.
_URL = re.compile(rb"\s*(data|https?|file|ftp|gs|s3):", re.ASCII | re.IGNORECASE)
#: The part of a data URL before its comma is short; a search that finds none ends here.
_MAX_HEAD = 1024


def decode_image_text(text: str | bytes) -> bytes:
    """Decode an image from base64 or a data URL of it.

    Both may have either alphabet (standard or URL-safe), white space anywhere, percent-encoded punctuation, and no
    padding. A data URL's scheme and parameters may be in capitals.

    Raises:
        ImageUndecodable: the text is not base64, is a URL or a path, or is empty.
        UnsupportedMediaType: the data URL names a type that is not an image.
    """
    head = text[:_MAX_HEAD]
    shown = head.decode("latin-1") if isinstance(head, bytes) else head
    blank = len(shown) - len(shown.lstrip())
    scheme = _SCHEME.match(shown, blank)
    start = 0
    if scheme is not None and scheme[0].lower() == "data:":
        start = _end_of_head(shown, blank)
    elif scheme is not None:
        raise ImageUndecodable(
            "URLs and paths are not fetched: send the image itself, in base64 or as a data URL;"
            f" got {shown[:100]!r}"
        )
    try:
        data = _decode(text, start)
    except (binascii.Error, ValueError) as error:
        raise ImageUndecodable(f"the image is not valid base64: {error}") from error
    if not data:
        raise ImageUndecodable("the image is empty")
    return data


def image_of_bytes(data: bytes) -> bytes:
    """Return the image that bytes are; those of a data URL are decoded, those of other URLs refused.

    Raises:
        ImageUndecodable: the bytes are a URL, or a data URL that is not base64.
        UnsupportedMediaType: the data URL names a type that is not an image.
    """
    return decode_image_text(data) if is_url(data) else data


def is_url(data: bytes) -> bool:
    """Return whether bytes are a URL and no image."""
    return _URL.match(data) is not None


def image_or_error(decode: Callable[..., bytes], *args: object) -> bytes | PrunepoolError:
    """Decode one image of several; return its error, which is its own alone."""
    try:
        return decode(*args)
    except PrunepoolError as error:
        return error


def _end_of_head(url: str, at: int) -> int:
    """Return where the base64 of a data URL begins, which itself begins at `at`."""
    head = _DATA_URL.match(url, at)
    if head is None or not head["parameters"].lower().endswith(";base64"):
        raise ImageUndecodable(
            f"a data URL must read data:image/…;base64,… to be an image; got {url[at : at + 100]!r}"
        )
    kind = head["type"].strip().lower().replace("%2f", "/")
    if kind not in ("", "application/octet-stream", "binary/octet-stream") and not kind.startswith("image/"):
        raise UnsupportedMediaType(
            f"a data URL must be of type image/* or application/octet-stream; got {kind[:100]!r}"
        )
    return head.end()


def _decode(text: str | bytes, start: int) -> bytes:
    """Decode base64 from a position on."""
    decoded: list[bytes] = []
    rest, padded = b"", False
    standard = url_safe = False
    for piece in _pieces(text, start):
        standard = standard or b"+" in piece or b"/" in piece
        url_safe = url_safe or b"-" in piece or b"_" in piece
        groups = rest + piece.translate(_STANDARD_ALPHABET)
        # Four characters make three bytes, so only the last piece may end in the middle of a group.
        whole = len(groups) - len(groups) % 4
        if whole and padded:
            raise ValueError("there are characters behind its padding")
        decoded.append(binascii.a2b_base64(groups[:whole], strict_mode=True))
        padded = padded or groups.endswith(b"=", 0, whole)
        rest = groups[whole:]
    if rest:
        decoded.append(_decode_last(rest, padded))
    if standard and url_safe:
        raise ValueError("it mixes the standard alphabet (+ and /) with the URL-safe one (- and _)")
    return b"".join(decoded)


def _decode_last(rest: bytes, padded: bool) -> bytes:
    """Decode the last one to three characters, which may lack their padding."""
    if padded or rest.startswith(b"="):
        raise ValueError("there are characters behind its padding, or more padding than it needs")
    if len(rest) == 1:
        raise ValueError("its length is one more than a multiple of four, so characters are missing")
    missing = b"" if b"=" in rest else b"=" * (4 - len(rest))
    return binascii.a2b_base64(rest + missing, strict_mode=True)


def _pieces(text: str | bytes, start: int) -> Iterator[bytes]:
    """Yield base64 from a position on, without white space and percent-encoding."""
    cut_short = b""
    for at in range(start, len(text), _PIECE):
        piece = cut_short + _ascii(text[at : at + _PIECE])
        # What follows the last per cent sign may be in the next piece.
        sign = piece.rfind(b"%", -2) if at + _PIECE < len(text) else -1
        piece, cut_short = (piece, b"") if sign < 0 else (piece[:sign], piece[sign:])
        if b"%" in piece:
            for code, character in _PERCENT_ENCODED:
                piece = piece.replace(code, character)
        yield piece.translate(None, _WHITE_SPACE)


def _ascii(text: str | bytes) -> bytes:
    if isinstance(text, bytes):
        return text
    try:
        return text.encode("ascii")
    except UnicodeEncodeError:
        raise ValueError("string argument should contain only ASCII characters") from None
