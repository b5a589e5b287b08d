"""API keys: their format, and the hash that is stored."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from datetime import date

from pydantic import SecretStr

from prunepool.access.buckets import Rate

#: Lets scanners for leaked secrets recognise a key.
PREFIX = "pp_"
_RANDOM_BYTES = 32
_KEY = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{40,}}", re.ASCII)
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is stored.

    Attributes:
        name: name of its owner, shown in log lines.
        digest: SHA-256 of the key, 32 bytes.
        rate: its rate limit; None for no limit.
        created: date on which it was made, if known.
        admin: whether it may load and unload models.
    """

    name: str
    digest: bytes = field(repr=False)
    rate: Rate | None = None
    created: date | None = None
    admin: bool = False


def new_key() -> SecretStr:
    """Make a key of 256 random bits, in characters that are safe in a header."""
    return SecretStr(PREFIX + secrets.token_urlsafe(_RANDOM_BYTES))


def digest_of(key: str) -> bytes:
    """Return the hash that is stored: SHA-256 of the key in UTF-8, 32 bytes."""
    return hashlib.sha256(key.encode("utf-8")).digest()


def hide_keys(text: str) -> str:
    """Return a text without the keys in it."""
    return _KEY.sub(f"{PREFIX}…", text)
