"""Compresses and decompresses whole bodies with gzip and deflate, within a limit. Pure functions."""

from __future__ import annotations

import re
import zlib

from prunepool.errors import BodyTooLarge, InvalidParameter, UnsupportedMediaType

IDENTITY = "identity"
#: zlib's window bits for each; deflate over HTTP is the zlib format of RFC 1950.
_FORMATS = {"gzip": 31, "deflate": 15}
#: The fastest level, because numbers hardly shrink.
_LEVEL = 1
_ACCEPTED = re.compile(r"\s*(?P<coding>[^\s;,]+)\s*(?:;\s*q\s*=\s*(?P<q>[01](?:\.\d{0,3})?))?\s*", re.ASCII)


def decompress(data: bytes, coding: str, limit: int) -> bytes:
    """Decompress a body.

    Args:
        data: the compressed body.
        coding: value of the header Content-Encoding.
        limit: longest result in bytes; no more is ever in memory.

    Raises:
        UnsupportedMediaType: the coding is not gzip, deflate or identity.
        BodyTooLarge: the result exceeds the limit.
        InvalidParameter: the body is not in that coding, is cut short, or has bytes after its end.
    """
    coding = coding.strip().lower()
    if coding == IDENTITY:
        return data
    if coding not in _FORMATS:
        raise UnsupportedMediaType(
            f"Content-Encoding must be gzip, deflate or identity; got {coding[:100]!r}"
        )
    inflater = zlib.decompressobj(_FORMATS[coding])
    try:
        plain = inflater.decompress(data, limit + 1)
    except zlib.error as error:
        raise InvalidParameter("body", str(error), f"valid {coding}") from error
    if len(plain) > limit:
        raise BodyTooLarge(f"the body unpacks to more than the limit of {limit} bytes", limit=limit)
    if not inflater.eof or inflater.unused_data:
        got = "one with bytes after its end" if inflater.eof else "a truncated one"
        raise InvalidParameter("body", got, f"one complete {coding} stream")
    return plain


def compress(data: bytes, coding: str) -> bytes:
    """Compress a body with gzip or deflate."""
    packer = zlib.compressobj(_LEVEL, wbits=_FORMATS[coding])
    return packer.compress(data) + packer.flush()


def accepted(header: str | None) -> str:
    """Return the coding that a client prefers among those supported here; gzip if it prefers none.

    Args:
        header: `Accept-Encoding`, or None if it was not sent.
    """
    qualities: dict[str, float] = {}
    for item in (header or "").split(","):
        if (found := _ACCEPTED.fullmatch(item)) is not None:
            qualities[found["coding"].lower()] = float(found["q"] or 1)
    best = max(_FORMATS, key=lambda coding: qualities.get(coding, 0.0))
    return best if qualities.get(best, 0.0) > 0 else IDENTITY
