"""gzip and deflate, over whole bodies and within a limit. Pure functions."""

from __future__ import annotations

import re
import zlib

from prunepool.errors import BodyTooLarge, InvalidParameter, UnsupportedMediaType

IDENTITY = "identity"
#: What zlib calls the two; deflate over HTTP is the format of RFC 1950.
_FORMATS = {"gzip": 31, "deflate": 15}
#: The answers are numbers that hardly shrink, and the event loop waits for this.
_LEVEL = 1
_ACCEPTED = re.compile(r"\s*(?P<coding>[^\s;,]+)\s*(?:;\s*q\s*=\s*(?P<q>[01](?:\.\d{0,3})?))?\s*", re.ASCII)


def decompress(data: bytes, coding: str, limit: int) -> bytes:
    """What a body was before its Content-Encoding.

    Args:
        data: the body.
        coding: the header's value.
        limit: most bytes of the result; no more are ever held.

    Raises:
        UnsupportedMediaType: another coding than gzip, deflate and identity.
        BodyTooLarge: the result is longer.
        InvalidParameter: the body is not in that coding, is cut short, or goes on behind its end.
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
        got = "one with more behind it" if inflater.eof else "one cut short"
        raise InvalidParameter("body", got, f"one complete {coding} stream")
    return plain


def compress(data: bytes, coding: str) -> bytes:
    """A body in gzip or deflate."""
    packer = zlib.compressobj(_LEVEL, wbits=_FORMATS[coding])
    return packer.compress(data) + packer.flush()


def accepted(header: str | None) -> str:
    """The coding that a client likes best of those spoken here; gzip before deflate, if it likes both.

    Args:
        header: `Accept-Encoding`, or None where none was sent.
    """
    likes: dict[str, float] = {}
    for item in (header or "").split(","):
        if (found := _ACCEPTED.fullmatch(item)) is not None:
            likes[found["coding"].lower()] = float(found["q"] or 1)
    best = max(_FORMATS, key=lambda coding: likes.get(coding, 0.0))
    return best if likes.get(best, 0.0) > 0 else IDENTITY
