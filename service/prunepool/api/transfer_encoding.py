"""Undoes the Content-Transfer-Encoding of mail, which some clients give parts of forms. Pure functions."""

from __future__ import annotations

import binascii

from prunepool.api.base64_images import decode_image_text
from prunepool.errors import UnsupportedMediaType

#: Bytes as they are.
_IDENTITY = frozenset({"", "binary", "8bit", "7bit"})


def decode_transfer(coding: str, data: bytes) -> bytes:
    """Decode a body or a part of one (RFC 2045).

    Args:
        coding: value of the header Content-Transfer-Encoding; empty without one.
        data: the coded bytes.

    Raises:
        ImageUndecodable: the coding is base64 and the bytes are not.
        UnsupportedMediaType: the coding is unknown.
    """
    kind = coding.strip().lower()
    if kind in _IDENTITY or not data:
        return data
    if kind == "base64":
        return decode_image_text(data)
    if kind == "quoted-printable":
        return binascii.a2b_qp(data)
    raise UnsupportedMediaType(
        f"Content-Transfer-Encoding must be binary, base64 or quoted-printable; got {coding[:100]!r}"
    )
