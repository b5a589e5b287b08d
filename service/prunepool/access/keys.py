"""API keys: what they look like, and what is kept of them."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import date

from prunepool.access.buckets import Rate

#: Lets scanners for leaked secrets find a key where it should not be.
PREFIX = "pp_"
_RANDOM_BYTES = 32
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Key:
    """What is kept of a key.

    Attributes:
        name: whose it is; shown in log lines.
        digest: SHA-256 of the key, 32 bytes.
        rate: how much it may send; None: as much as the server takes.
        created: when it was made, if that is known.
        admin: whether it may load and unload models.
    """

    name: str
    digest: bytes
    rate: Rate | None = None
    created: date | None = None
    admin: bool = False


def new_key() -> str:
    """A key that nobody can guess: 256 random bits, in characters that a header can hold."""
    return PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def digest_of(key: str) -> bytes:
    """What is kept of a key: SHA-256 of its UTF-8, 32 bytes."""
    return hashlib.sha256(key.encode("utf-8")).digest()
